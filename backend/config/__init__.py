# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: their dataclasses with defaults and ranges, parsing, presets and schedules."""
