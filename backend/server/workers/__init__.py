# SPDX-License-Identifier: GPL-3.0-or-later
"""Worker processes and Ray actors that run jobs."""
