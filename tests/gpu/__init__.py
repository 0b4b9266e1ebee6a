# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that need a CUDA device."""
