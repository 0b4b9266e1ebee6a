# SPDX-License-Identifier: GPL-3.0-or-later
"""The compute server: one encrypted port for clients, a store of jobs, and a worker for each device."""
