# SPDX-License-Identifier: GPL-3.0-or-later
"""Who sends a request, and what that user may do beyond their own jobs."""

from __future__ import annotations

from dataclasses import dataclass

from .transport.authorized_keys import LOCAL


@dataclass(frozen=True)
class RequestContext:
    """Who sends a request, over which connection, and whether they may see and change every job."""

    owner: str
    route: bytes
    is_admin: bool = False
    key: str = ""  # fingerprint of the key that the connection has proven; "" without keys and on the web page

    @property
    def may_operate(self) -> bool:
        """Whether queue, devices and disk may be managed: by admins, and by the user of a server without keys."""
        return self.is_admin or self.owner == LOCAL

    @property
    def may_manage_models(self) -> bool:
        """Whether models may be downloaded and named by path: by admins, and by the user of a server without keys."""
        return self.is_admin or self.owner == LOCAL
