# SPDX-License-Identifier: GPL-3.0-or-later
"""The optimization of one job: pipeline, trainer, events, checkpoints, optimizers."""
