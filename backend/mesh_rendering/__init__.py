# SPDX-License-Identifier: GPL-3.0-or-later
"""Rasterization of triangle meshes, differentiable and plain."""
