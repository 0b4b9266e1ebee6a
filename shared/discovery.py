# SPDX-License-Identifier: GPL-3.0-or-later
"""What an announced server says on the local network by DNS-SD over mDNS (RFC 6763, RFC 6762).

The instance's name is the fingerprint of the server's key, and its SRV and A records are where it listens. Nothing else
is announced, so that nobody can have Blender show a text.
"""

from __future__ import annotations

SERVICE_TYPE = "_dreamwright._tcp.local."
MULTICAST_ADDRESS, MULTICAST_PORT = "224.0.0.251", 5353  # RFC 6762, section 3


def instance_name(fingerprint: str) -> str:
    """The full name of a server's instance of the service, by the fingerprint of its key."""
    return f"{fingerprint}.{SERVICE_TYPE}"
