# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets, authentication and event publishing."""
