# SPDX-License-Identifier: GPL-3.0-or-later
"""Long runs of the server and its clients under load and faults."""
