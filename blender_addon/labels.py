# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts and icons of the panel: connection states, job states, durations, prompts. Does not import bpy."""

from __future__ import annotations

import re
import textwrap

from .shared.capabilities import Capabilities, ModelInfo
from .shared.durations import time_range_template
from .shared.failure_causes import CAUSE_DESCRIPTIONS, FailureCause
from .shared.job_states import ENDED, JobState
from .shared.messages import JobSummary
from .shared.prompt_words import PromptReading, model_vocabulary, read_prompt
from .wording import mark, say

LORA_FAMILIES = ("latent", "sdxl")  # whose models take LoRAs
WIDTH = 46  # characters per line where the panel's width is unknown
MOST_LINES = 16  # of one text
_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60"  # characters that are as wide as two Latin letters
_OPENING, _CLOSING = "「『（《", "」』）》、。，；：！？"  # noqa: RUF001

# (icon, label) by JobState; always both, so that no state is shown by color or shape alone.
STATE_LABELS: dict[str, tuple[str, str]] = {
    JobState.QUEUED.value: ("TIME", mark("Queued")),
    JobState.RUNNING.value: ("PLAY", mark("Running")),
    JobState.PAUSED.value: ("PAUSE", mark("Paused")),
    JobState.CANCELLING.value: ("CANCEL", mark("Cancelling")),
    JobState.SUCCEEDED.value: ("CHECKMARK", mark("Ready")),
    JobState.FAILED.value: ("ERROR", mark("Failed")),
    JobState.CANCELLED.value: ("X", mark("Cancelled")),
}


# (icon, label) by shared.connection_state.ConnectionState
CONNECTION_LABELS: dict[str, tuple[str, str]] = {
    "closed": ("UNLINKED", mark("Not connected")),
    "connecting": ("TIME", mark("Connecting")),
    "online": ("LINKED", mark("Connected")),
    "lost": ("ERROR", mark("Connection lost")),
    "unauthorized": ("LOCKED", mark("Not authorized")),
    "incompatible": ("CANCEL", mark("Incompatible server")),
}


def connection_text(
    state: str, reason: str, is_local: bool, is_starting: bool, start_fault: str
) -> tuple[str, str, str]:
    """(icon, label, advice) for a connection state.

    `is_starting`: the local server was started and is not ready yet; `start_fault`: why it cannot be started.
    """
    icon, label = CONNECTION_LABELS[state]
    if state == "connecting" and is_starting:
        return icon, say("Starting"), say("Ready in a few seconds")
    if state == "connecting" and is_local:
        return CONNECTION_LABELS["closed"][0], say("Not running"), start_fault or say("Press Start Server")
    if state == "closed":
        return icon, label, start_fault if is_local else ""
    return icon, label, "" if state == "online" else reason[:1].upper() + reason[1:]


def duration(seconds: float) -> str:
    """A duration as text; "unknown" when negative."""
    if seconds < 0:
        return say("unknown")
    total = int(seconds + 0.5)
    if total < 60:
        return say("{total} s", total=total)
    if total < 3600:
        return say("{minutes} min {seconds} s", minutes=total // 60, seconds=f"{total % 60:02d}")
    return say("{hours} h {minutes} min", hours=total // 3600, minutes=f"{total % 3600 // 60:02d}")


def time_range(low: float, high: float) -> str:
    """An estimated duration in seconds in words."""
    template, values = time_range_template(low, high)
    return say(template, **values)


def progress_text(job: JobSummary) -> str:
    """A job's progress in one line."""
    label = say(STATE_LABELS[job.state][1])
    if job.state == JobState.QUEUED.value:
        position = (
            say("Next in the queue")
            if job.queue_position == 1
            else say("Position {position} in the queue", position=job.queue_position)
        )
        if job.ready_high_s < 0:
            return position
        return say("{position}, ready in {time}", position=position, time=time_range(job.ready_low_s, job.ready_high_s))
    if job.state == JobState.RUNNING.value:
        left = say(", {time} left", time=duration(job.eta_s)) if job.eta_s >= 0 else ""
        return say("Step {step} of {steps}{left}", step=job.step, steps=job.steps, left=left)
    if job.state in (JobState.PAUSED.value, JobState.CANCELLING.value):
        return say("{label} at step {step} of {steps}", label=label, step=job.step, steps=job.steps)
    return say("{label} after {time}", label=label, time=duration(job.elapsed_s))


def error_text(job: JobSummary) -> str:
    """Why a job that has not ended was restarted; "" when it was not."""
    if not job.cause or JobState(job.state) in ENDED:
        return ""
    return say("Restarted: {cause}", cause=say(CAUSE_DESCRIPTIONS[FailureCause(job.cause)]))


def details_text(job: JobSummary, parent_prompt: str = "") -> str:
    """Priority of a job that has not ended, the job it was fine-tuned from, and whether it is pinned."""
    parts = []
    if JobState(job.state) not in ENDED:
        parts.append(say("priority {priority}", priority=job.priority))
    elif job.parent_job:
        parts.append(
            say("fine-tuned from “{prompt}”", prompt=short(parent_prompt, 24)) if parent_prompt else say("fine-tuned")
        )
    if job.pinned:
        parts.append(say("kept until unpinned"))
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def progress_fraction(job: JobSummary) -> float:
    """Progress from 0 to 1."""
    if job.state == JobState.SUCCEEDED.value:
        return 1.0
    return min(1.0, job.step / job.steps) if job.steps else 0.0


def clean_prompt(text: str) -> str:
    """A prompt on one line: each run of spaces and line breaks is one space."""
    return " ".join(text.split())


def model_info(capabilities: Capabilities | None, model: str) -> ModelInfo | None:
    """What the server says of a model; None when it is unknown."""
    return next((info for info in capabilities.models if info.name == model), None) if capabilities else None


def takes_loras(capabilities: Capabilities | None, model: str) -> bool:
    """Whether the server's model of that name takes LoRAs."""
    known = model_info(capabilities, model)
    return known is not None and known.family in LORA_FAMILIES


def read_prompt_for(capabilities: Capabilities | None, model: str, prompt: str) -> PromptReading:
    """The prompt in a model's words; as it was typed where the model is unknown or takes any words."""
    info = model_info(capabilities, model)
    return read_prompt(prompt, model_vocabulary(info)) if info else PromptReading(prompt)


def vocabulary_fault(capabilities: Capabilities | None, model: str, prompt: str) -> str:
    """Why a model cannot use this prompt, as a sentence; "" when it can, or its words are unknown."""
    fault = read_prompt_for(capabilities, model, prompt).fault
    return fault[:1].upper() + fault[1:]


def short(text: str, limit: int = 60) -> str:
    """A text cut to `limit` characters, for a row or a datablock's name."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def columns_of(text: str) -> int:
    """The width of a text in Latin letters; a Chinese or Japanese character takes two."""
    return len(text) + len(re.findall(f"[{_WIDE}]", text))


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """A text as lines for a panel, whose labels do not wrap; long words, such as paths, are broken as well.

    Chinese and Japanese have no spaces: a line may end after each character, except before closing punctuation.
    """
    if columns_of(text) == len(text):
        return textwrap.wrap(text, width, break_on_hyphens=False, max_lines=MOST_LINES, placeholder=" …")
    lines = [""]
    for piece in re.findall(rf"\s+|[{_OPENING}]*(?:[{_WIDE}]|[^\s{_WIDE}]+)[{_CLOSING}]*", text):
        if columns_of(lines[-1] + piece) <= width or not lines[-1]:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
    return [line.rstrip() for line in lines][:MOST_LINES]
