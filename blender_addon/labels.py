# SPDX-License-Identifier: GPL-3.0-or-later
"""States, times and prompts in words for a person."""

from __future__ import annotations

import re
import textwrap
from urllib.parse import urlsplit

from .shared.capabilities import Capabilities
from .shared.credentials import is_connection_string
from .shared.failure_causes import CAUSE_DESCRIPTIONS, FailureCause
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary
from .shared.prompt_words import PromptReading, model_vocabulary, read_prompt

WIDTH = 46  # of a line where nobody knows how wide the panel is

# Icon and word together: no state is told by color or shape alone.
STATE_LOOKS: dict[str, tuple[str, str]] = {
    JobState.QUEUED.value: ("TIME", "Queued"),
    JobState.RUNNING.value: ("PLAY", "Running"),
    JobState.PAUSED.value: ("PAUSE", "Paused"),
    JobState.CANCELLING.value: ("CANCEL", "Cancelling"),
    JobState.SUCCEEDED.value: ("CHECKMARK", "Ready"),
    JobState.FAILED.value: ("ERROR", "Failed"),
    JobState.CANCELLED.value: ("X", "Cancelled"),
}


# By shared.client.Link
LINK_LOOKS: dict[str, tuple[str, str]] = {
    "closed": ("UNLINKED", "Not connected"),
    "connecting": ("TIME", "Connecting"),
    "online": ("LINKED", "Connected"),
    "lost": ("ERROR", "Connection lost"),
    "unauthorized": ("LOCKED", "Not let in"),
    "incompatible": ("CANCEL", "Cannot talk to this server"),
}


def link_words(link: str, reason: str, here: bool, starting: bool, fault: str) -> tuple[str, str, str]:
    """Icon, state and advice for a connection, for somebody who has one button to press.

    `here`: the server is one of this machine; `starting`: it was started and is getting ready; `fault`: why it cannot be.
    """
    symbol, word = LINK_LOOKS[link]
    if link == "connecting" and starting:
        return symbol, "Starting", "It answers in some seconds"
    if link == "connecting" and here:
        return LINK_LOOKS["closed"][0], "Not running", fault or "Press Start Server"
    if link == "closed":
        return symbol, word, fault if here else ""
    return symbol, word, "" if link == "online" else reason[:1].upper() + reason[1:]


def duration(seconds: float) -> str:
    """A duration as a person says it; "unknown" when negative."""
    if seconds < 0:
        return "unknown"
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rough_span(low: float, high: float) -> str:
    """A stretch of time that is only estimated, seconds: "about 4 min", "10 to 15 min", "under a minute"."""
    if high < 60:
        return "under a minute"
    size, unit = (60, "min") if high < 7200 else (3600, "h")
    first, last = max(1, round(low / size)), max(1, round(high / size))
    if high <= 1.3 * low or first == last:
        return f"about {max(1, round((low + high) / 2 / size))} {unit}"
    return f"{first} to {last} {unit}"


def progress_text(job: JobSummary) -> str:
    """One line about where a job stands."""
    if job.state == JobState.QUEUED.value:
        place = "Next in the queue" if job.queue_position == 1 else f"Place {job.queue_position} in the queue"
        return place + (f", ready in {rough_span(job.ready_low_s, job.ready_high_s)}" if job.ready_high_s >= 0 else "")
    if job.state == JobState.RUNNING.value:
        left = f", {duration(job.eta_s)} left" if job.eta_s >= 0 else ""
        return f"Step {job.step} of {job.steps}{left}"
    if job.state in (JobState.PAUSED.value, JobState.CANCELLING.value):
        return f"{STATE_LOOKS[job.state][1]} at step {job.step} of {job.steps}"
    word = STATE_LOOKS[job.state][1]
    return f"{word} after {duration(job.elapsed_s)}"


def trouble(job: JobSummary) -> str:
    """Why a job that has not ended was begun more than once; "" where nothing went wrong."""
    return f"Tried again: {CAUSE_DESCRIPTIONS[FailureCause(job.cause)]}" if job.cause and JobState(job.state) not in ENDED else ""


def place_text(job: JobSummary, refined: str = "") -> str:
    """A job's priority while that means anything, then what it refined (its prompt, where it is known); whether the server keeps it."""
    kept = "kept until unpinned" if job.pinned else ""
    if JobState(job.state) not in ENDED:
        return f"Priority {job.priority}" + (f", {kept}" if kept else "")
    origin = f"“{short(refined, 24)}” refined" if refined else "another prop refined"
    return ", ".join(
        filter(
            None, (origin[:1].upper() + origin[1:] if job.parent_job else "", kept if job.parent_job else kept.capitalize())
        )
    )


def share_done(job: JobSummary) -> float:
    """Progress from 0 to 1."""
    if job.state == JobState.SUCCEEDED.value:
        return 1.0
    return min(1.0, job.step / job.steps) if job.steps else 0.0


def clean_prompt(text: str) -> str:
    """A prompt on one line: line breaks of a text box are spaces, as are runs of them."""
    return " ".join(text.split())


def read_prompt_for(offered: Capabilities | None, model: str, prompt: str) -> PromptReading:
    """The prompt in a model's words; as it was typed where the model is unknown or takes any words."""
    card = next((card for card in offered.models if card.name == model), None) if offered else None
    return read_prompt(prompt, model_vocabulary(card)) if card else PromptReading(prompt)


def vocabulary_fault(offered: Capabilities | None, model: str, prompt: str) -> str:
    """Why a model cannot be asked for this, in a sentence; "" when it can, or its words are unknown."""
    fault = read_prompt_for(offered, model, prompt).fault
    return fault[:1].upper() + fault[1:]


def _split(address: str) -> tuple[str, str, int, str]:
    """(scheme, host, port, rest) of an address; empty and 0 where it has none. Raises ValueError where it makes no sense."""
    parts = urlsplit(address.strip())
    rest = parts.path + parts.query + parts.fragment + (parts.username or "")
    return parts.scheme, (parts.hostname or "").lower(), parts.port or 0, rest


def is_local(address: str) -> bool:
    """Whether an address stays on this machine, so that Blender's offline mode does not concern it."""
    try:
        scheme, host, _, _ = _split(address)
    except ValueError:
        return False
    return scheme == "ipc" or host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def address_fault(address: str) -> str:
    """Why an address cannot be used, in a sentence; "" when it can."""
    example = "write it as tcp://127.0.0.1:47630"
    if is_connection_string(address):
        return "The connection string is not whole; copy the whole line that the server prints"
    try:
        scheme, host, port, rest = _split(address)
    except ValueError:
        return f"The server address has no valid host and port; {example}"
    if scheme != "tcp":
        return f"The server address must begin with tcp://; {example}"
    if not host or not port or rest:
        return f"The server address needs a host and a port; {example}"
    return ""


def key_fault(address: str, is_known: bool) -> str:
    """Why a server may not be talked to without its key, in a sentence; "" when it may."""
    if is_known or is_local(address):
        return ""
    return f"{address} is another machine and its key is not known here; paste the connection string that dreamwright serve prints there"


def short(text: str, limit: int = 60) -> str:
    """A text cut to fit a row or a datablock's name."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """A long text as lines for a narrow panel, whose labels do not wrap; a path or address may be broken as well."""
    return textwrap.wrap(text, width, break_on_hyphens=False, max_lines=16, placeholder=" …")
