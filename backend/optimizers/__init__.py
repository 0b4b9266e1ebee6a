# SPDX-License-Identifier: GPL-3.0-or-later
"""Optimizers of the scenes: Shampoo and Adam for fields, Adam with one step size a tensor for meshes."""
