# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Blender add-on and the backend both speak."""

__version__ = "0.1.0"
