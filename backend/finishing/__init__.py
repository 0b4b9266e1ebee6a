# SPDX-License-Identifier: GPL-3.0-or-later
"""Finishing of a mesh: budget, UVs, baked textures, levels of detail, collision, pivot and scale."""
