# SPDX-License-Identifier: GPL-3.0-or-later
"""Frozen denoising networks behind one interface, one module per model family."""
