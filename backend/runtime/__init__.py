# SPDX-License-Identifier: GPL-3.0-or-later
"""Process-level runtime: random number streams and distributed process groups."""
