# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of the add-on's user interface, and the catalogs of their translations."""
