# SPDX-License-Identifier: GPL-3.0-or-later
"""The web page: a process of its own that speaks HTTP, and the server's side of it, which decides who may do what."""
