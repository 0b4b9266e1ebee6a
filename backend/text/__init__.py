# SPDX-License-Identifier: GPL-3.0-or-later
"""From a prompt to embeddings: view-dependent prompts, tokenization, text encoders."""
