# SPDX-License-Identifier: GPL-3.0-or-later
"""Logs, counters and metrics of the server."""
