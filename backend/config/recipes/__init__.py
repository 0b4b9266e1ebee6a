# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations by the family of the model, one module for each family."""
