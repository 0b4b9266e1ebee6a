# SPDX-License-Identifier: GPL-3.0-or-later
"""Meshes, materials and assets of a .blend file from arrays. Imports bpy and numpy only: the script that writes an
asset library runs it in a Blender without the add-on.
"""
