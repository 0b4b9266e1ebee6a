# SPDX-License-Identifier: GPL-3.0-or-later
"""Asset libraries: many props from a list, with thumbnails, catalogs and a .blend file for Blender's Asset Browser."""
