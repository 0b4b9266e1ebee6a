# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of the protocol: invalid messages, failed requests and requests without an answer."""

from __future__ import annotations

from dataclasses import dataclass


class ProtocolError(ValueError):
    """Bytes or fields that are no valid message. Names the field, the value and what is allowed."""

    number = 0  # id of the invalid request, where it could be read


CODES = (
    "bad-message",  # no message of this protocol
    "version",  # another protocol version
    "bad-input",  # an unusable prompt, setting, model, preset or mesh
    "not-admitted",  # the client's key is not, or no longer, authorized
    "no-such-job",  # unknown, or of another user: the answer is the same
    "not-now",  # not possible in the present state of the job or the connection
    "too-many",  # the user's limit of jobs
    "queue-full",  # the server's limit of jobs of all users
    "not-allowed",  # admins only
    "no-space",  # the server's disk is full; nothing was changed
    "not-ready",  # the file does not exist yet
    "internal",  # a defect of the server; its log has the details
)


@dataclass(unsafe_hash=True)  # not frozen: Python stores the traceback on the exception
class RequestError(Exception):
    """The server refused a request; `code` is one of CODES."""

    code: str
    message: str

    def __str__(self) -> str:
        return self.message


@dataclass(unsafe_hash=True)  # not frozen: Python stores the traceback on the exception
class RequestTimeout(RequestError):  # noqa: N818  (named as in common client libraries)
    """No reply arrived. The request may or may not have been executed; sending it again is safe."""
