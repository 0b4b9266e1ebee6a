# SPDX-License-Identifier: GPL-3.0-or-later
"""How many jobs, and how much of the disk, one user may keep by pinning."""

from __future__ import annotations

from collections.abc import Iterable

from dreamwright.shared.errors import RequestError

from ..policy import Policy
from ..transport.authorized_keys import LOCAL
from .cleanup import Cleanup
from .job_record import JobRecord
from .retention import check_pinned_bytes


def check_pin(record: JobRecord, records: Iterable[JobRecord], policy: Policy, cleanup: Cleanup) -> None:
    """Raises RequestError when the owner of a job, which is not pinned, may not pin one more."""
    pinned = sum(1 for other in records if other.owner == record.owner and other.summary.pinned)
    limit = policy.pinned_per_user
    if pinned >= limit:
        raise RequestError("too-many", f"{pinned} of your jobs are pinned; allowed are {limit} a user; unpin one first")
    if record.owner != LOCAL:
        used = cleanup.pinned_bytes(record.owner)
        check_pinned_bytes(used, cleanup.retained_bytes(record), policy.keep_gb_per_user)
