# SPDX-License-Identifier: GPL-3.0-or-later
"""Helpers shared by tests: fakes, oracles and servers."""
