# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests, their helpers, and long runs against faults."""
