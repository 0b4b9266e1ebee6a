# SPDX-License-Identifier: GPL-3.0-or-later
"""Diffusion and CLIP models on disk: registry, download, verification, loading and memory estimates."""
