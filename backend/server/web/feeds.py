# SPDX-License-Identifier: GPL-3.0-or-later
"""What open pages are sent: a user's jobs and the server's status, to each page what changed since its last read.

A page that reads slowly does not fill a queue: a job that changed five times meanwhile is sent once, as it is then.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any

from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import GetStatus, JobChanged, JobDeleted, JobSummary, ServerShutdown
from dreamwright.shared.model_messages import CapabilitiesChanged, ModelDownloadChanged
from dreamwright.shared.subscription import Subscription

from .channel import Account, Answer, Watch, WatchEnded, Watching, WhoAmI
from .page_data import job_data, status_data
from .server_link import ServerLink

log = logging.getLogger(__name__)

COUNTED = (JobChanged, JobDeleted, ModelDownloadChanged, CapabilitiesChanged)  # events that are numbered
CHECK_INTERVAL_S = 2.0  # between two looks at the status and at each session
STREAMS_PER_SESSION = 6  # visible pages of one sign-in; hidden ones close theirs
MOST_STREAMS = 200
TOO_MANY_OF_SESSION = f"{STREAMS_PER_SESSION} pages of your session are open already; close some, then reload"
TOO_MANY = "too many pages are open on this server; try again in a minute"


@dataclass(eq=False)
class Stream:
    """One open page: what it has not been sent yet, by kind and job."""

    cookie: str
    key: str
    pending: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: str = ""  # why nothing more is sent

    def put(self, kind: str, name: str, data: dict[str, Any]) -> None:
        """Send this, unless something newer of the same kind and name comes before."""
        self.pending[kind, name] = data
        self.changed.set()

    def end(self, reason: str) -> None:
        """Send nothing more."""
        self.ended = self.ended or reason
        self.changed.set()

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """What is to be sent now, as (kind, data)."""
        found = [(kind, data) for (kind, _), data in self.pending.items()]
        self.pending.clear()
        self.changed.clear()
        return found


@dataclass(eq=False)
class Feed:
    """One user's jobs, and the pages that show them."""

    watch: str
    jobs: dict[str, JobSummary] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    account: dict[str, Any] = field(default_factory=dict)
    counts: Subscription = field(default_factory=Subscription)
    streams: set[Stream] = field(default_factory=set)

    def put(self, kind: str, name: str, data: dict[str, Any]) -> None:
        """Send to every page."""
        for stream in self.streams:
            stream.put(kind, name, data)


class Feeds:
    """The feeds of all users whose pages are open. `link` is set by the process once the channel is open."""

    def __init__(self) -> None:
        self.link: ServerLink | None = None
        self._feeds: dict[str, Feed] = {}
        self._opening = asyncio.Lock()  # one snapshot at a time, so that none overtakes another

    @property
    def open_streams(self) -> int:
        """Pages that are sent events."""
        return sum(len(feed.streams) for feed in self._feeds.values())

    async def open(self, cookie: str, key: str) -> tuple[Feed, Stream]:
        """A stream that begins with everything its user may see. Raises RequestError."""
        same = sum(stream.cookie == cookie for feed in self._feeds.values() for stream in feed.streams)
        if same >= STREAMS_PER_SESSION:
            raise RequestError("too-many", TOO_MANY_OF_SESSION)
        if self.open_streams >= MOST_STREAMS:
            raise RequestError("too-many", TOO_MANY)
        stream = Stream(cookie, key)
        async with self._opening:
            feed = await self._snapshot(cookie, key)
            feed.streams.add(stream)
            await self._look(feed, stream)
        if stream.ended:
            self.close(feed, stream)
            raise RequestError("not-admitted", stream.ended)
        stream.pending.clear()  # what arrived meanwhile is in the snapshot
        stream.put("snapshot", "", self._everything(feed))
        return feed, stream

    async def ask(self, message: Any, cookie: str, key: str) -> Any:
        """The server's reply to a request of a session. Raises RequestError."""
        if self.link is None:
            raise RequestError("not-now", "the server has ended")
        return await self.link.ask(message, cookie, key)

    async def check_session(self, cookie: str, key: str) -> None:
        """Raise RequestError unless the session is open now."""
        await self.ask(WhoAmI(), cookie, key)

    def close(self, feed: Feed, stream: Stream) -> None:
        """The page was closed."""
        feed.streams.discard(stream)

    def on_event(self, answer: Answer) -> None:
        """An event of a watch arrived."""
        event = answer.message
        if isinstance(event, Watching):
            feed = self._feeds.setdefault(event.watch, Feed(event.watch))
            feed.jobs = {job.job: job for job in reversed(event.jobs.jobs)}
            feed.counts.on_snapshot(event.jobs)
            return
        found = self._feeds.get(answer.watch)
        if found is None:
            return
        feed = found
        if isinstance(event, COUNTED):
            if feed.counts.has_gap(event):
                feed.counts.snapshots_pending = 1  # `check` asks for it
            if not isinstance(event, (JobChanged, JobDeleted)) or not feed.counts.is_new(event):
                return
            if isinstance(event, JobDeleted):
                feed.jobs.pop(event.job, None)
                feed.put("job", event.job, {"job": event.job, "gone": True})
            else:
                feed.jobs[event.job.job] = event.job
                feed.put("job", event.job.job, job_data(event.job))
        elif isinstance(event, ServerShutdown):
            feed.put("notice", "", {"text": event.message})
        elif isinstance(event, WatchEnded):
            for stream in feed.streams:
                stream.end("your key was revoked or has another role; ask the operator for a new link")

    async def check(self) -> None:
        """Again and again: end the streams of sessions that have ended, and send every user the server's status."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            if not self._opening.locked():
                self._feeds = {watch: feed for watch, feed in self._feeds.items() if feed.streams}
            for feed in list(self._feeds.values()):
                for stream in list(feed.streams):
                    await self._check_session(feed, stream)
                valid = next((stream for stream in feed.streams if not stream.ended), None)
                if valid is None:
                    continue
                if feed.counts.snapshots_pending:
                    await self._recover(feed, valid)
                await self._look(feed, valid)

    async def _check_session(self, feed: Feed, stream: Stream) -> None:
        try:
            await self.check_session(stream.cookie, stream.key)
        except RequestError as error:
            if error.code == "not-admitted":
                stream.end(str(error))

    async def _snapshot(self, cookie: str, key: str) -> Feed:
        """The feed of a session's user, with the jobs as they are now. Raises RequestError."""
        watching: Watching = await self.ask(Watch(), cookie, key)
        return self._feeds[watching.watch]

    async def _recover(self, feed: Feed, stream: Stream) -> None:
        """Events were lost: begin again for every page of the user."""
        try:
            async with self._opening:
                await self._snapshot(stream.cookie, stream.key)
        except RequestError as error:
            log.warning("snapshot not received", extra={"why": error.code})
            return
        feed.put("snapshot", "", self._everything(feed))

    async def _look(self, feed: Feed, stream: Stream) -> None:
        """Ask for the account and the server's status, and send them if they changed."""
        try:
            account: Account = await self.ask(WhoAmI(), stream.cookie, stream.key)
            status = await self.ask(GetStatus(), stream.cookie, stream.key)
        except RequestError as error:
            if error.code == "not-admitted":
                stream.end(str(error))
            return
        feed.account = {"user": account.user, "is_admin": account.is_admin, "is_open": account.is_open}
        data = status_data(status)
        if data != feed.status:
            feed.status = data
            feed.put("status", "", data)

    def _everything(self, feed: Feed) -> dict[str, Any]:
        return {
            "account": feed.account,
            "status": feed.status,
            "jobs": [job_data(job) for job in feed.jobs.values()],
        }
