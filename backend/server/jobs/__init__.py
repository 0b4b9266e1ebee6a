# SPDX-License-Identifier: GPL-3.0-or-later
"""The job store, the queue and what is kept of each job."""
