# SPDX-License-Identifier: GPL-3.0-or-later
"""The models of a session's server: their downloads to it, and when its capabilities are outdated. No bpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .shared.errors import RequestError
from .shared.messages import JobList
from .shared.model_messages import (
    CapabilitiesChanged,
    DownloadModel,
    ModelDownload,
    ModelDownloadChanged,
    ModelDownloadReply,
    StopDownload,
)
from .wording import say

Request = Callable[[Any, Callable[[Any], None]], None]  # (message, on_reply) -> None


class ServerModels:
    """Downloads of models by name. A server sends them only to users who may start one."""

    def __init__(
        self,
        request: Request,
        notify: Callable[[str, bool], None],
        on_changed: Callable[[], None],
        refresh: Callable[[], None],
    ) -> None:
        """`refresh` asks the server for its capabilities again."""
        self._request, self._notify, self._on_changed, self.refresh = request, notify, on_changed, refresh
        self.downloads: dict[str, ModelDownload] = {}
        self._revision: int | None = None  # of the capabilities; None: they were just asked for

    @property
    def active(self) -> ModelDownload | None:
        """The download that is under way."""
        return next((download for download in self.downloads.values() if download.is_active), None)

    def restarted(self) -> None:
        """Another server, or another start of it, is asked for its capabilities now."""
        self.downloads, self._revision = {}, None

    def take_snapshot(self, snapshot: JobList) -> None:
        """The answer to a subscription: all downloads, and the revision of the capabilities."""
        for download in snapshot.downloads:
            self._take(download)
        self.downloads = {download.model: download for download in snapshot.downloads}
        self._take_revision(snapshot.capabilities_revision)

    def take(self, event: ModelDownloadChanged | CapabilitiesChanged) -> None:
        """An event of the subscription."""
        if isinstance(event, ModelDownloadChanged):
            self._take(event.download)
        else:
            self._take_revision(event.revision)

    def _take_revision(self, revision: int) -> None:
        if self._revision not in (None, revision):
            self.refresh()
        self._revision = revision

    def _take(self, download: ModelDownload) -> None:
        before = self.downloads.get(download.model)
        self.downloads[download.model] = download
        if before is not None and before.is_active and not download.is_active:
            if download.state == "done":
                self._notify(say("The model {model} is on the server and can be used", model=download.model), False)
            elif download.state == "failed":
                self._notify(
                    say("The model {model} was not downloaded: {why}", model=download.model, why=download.message), True
                )
        self._on_changed()

    def download(self, model: str) -> None:
        """Have the server download a model, or continue."""
        self._ask(DownloadModel(model), say("The model {model} was not downloaded", model=model))

    def stop(self, model: str) -> None:
        """Have the server stop the download of a model; what it received is kept."""
        self._ask(StopDownload(model), say("The download of {model} was not stopped", model=model))

    def _ask(self, message: DownloadModel | StopDownload, failure: str) -> None:
        def on_reply(reply: Any) -> None:
            if isinstance(reply, ModelDownloadReply):
                self._take(reply.download)
            elif isinstance(reply, RequestError):
                self._notify(f"{failure}: {reply}", True)

        self._request(message, on_reply)
