# SPDX-License-Identifier: GPL-3.0-or-later
"""Training of the starter model and of its classifier; not part of the installed package."""
