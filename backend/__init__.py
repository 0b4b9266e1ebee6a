# SPDX-License-Identifier: GPL-3.0-or-later
"""The compute side of Dreamwright: from a prompt to a mesh by Score Distillation Sampling."""
