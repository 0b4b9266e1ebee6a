# SPDX-License-Identifier: GPL-3.0-or-later
"""The compute server: one door for artists, a ledger of jobs, a worker process a device."""
