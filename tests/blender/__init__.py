# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the add-on and of the shared protocol."""
