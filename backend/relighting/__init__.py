# SPDX-License-Identifier: GPL-3.0-or-later
"""A set of props under several lightings: its description, where each prop stands, and how true its albedo renders."""
