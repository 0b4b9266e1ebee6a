# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trainer optimizes: a radiance field, a mesh, or a sphere."""
