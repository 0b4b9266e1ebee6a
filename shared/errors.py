# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server answers when it cannot do what it was asked, and what a message that breaks the rules raises."""

from __future__ import annotations

from dataclasses import dataclass


class ProtocolError(ValueError):
    """Bytes or fields that are no valid message; says which field, what was given and what is allowed."""

    number = 0  # of the request that was refused, where it could be read


CODES = (
    "bad-message",  # not a message of this protocol
    "version",  # another protocol version
    "bad-input",  # a prompt, setting, model or preset that cannot be used
    "not-admitted",  # this key is not, or no longer, among those that the server lets in
    "no-such-job",  # unknown, or somebody else's: the answer is the same
    "not-now",  # the job's state does not allow it
    "too-many",  # the user's own limit of jobs
    "queue-full",  # the server's limit of jobs, all users together
    "not-allowed",  # only an admin may
    "no-space",  # the server's disk is full; nothing was changed
    "not-ready",  # the file asked for does not exist yet
    "internal",  # the server's own fault; its log says more
)


@dataclass(unsafe_hash=True)  # not frozen: Python notes on an exception where it came by
class RequestError(Exception):
    """The server's refusal of one request."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(unsafe_hash=True)  # not frozen: Python notes on an exception where it came by
class RequestTimeout(RequestError):
    """Nobody answered, so it is not known whether the request was carried out; asking again is safe."""
