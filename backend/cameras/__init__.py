# SPDX-License-Identifier: GPL-3.0-or-later
"""Camera poses, their rays, and the lights that go with them."""
