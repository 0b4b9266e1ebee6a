# SPDX-License-Identifier: GPL-3.0-or-later
"""Developer tools that are not part of the installed package."""
