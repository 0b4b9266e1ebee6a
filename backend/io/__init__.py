# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that users read and write: images and meshes."""
