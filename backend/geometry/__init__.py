# SPDX-License-Identifier: GPL-3.0-or-later
"""Triangle meshes: extraction, cleaning, decimation, texturing, validation."""
