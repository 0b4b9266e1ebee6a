# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of build_addon.py: pinned wheels, the add-on's zips, and the repository to host them."""
