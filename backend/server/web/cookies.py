# SPDX-License-Identifier: GPL-3.0-or-later
"""The session's cookie, and the two secrets of a request."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from .channel import SECRET_CHARACTERS

PAGE_KEY = "x-dreamwright-key"  # header of every request with a session


def cookie_name(is_tls: bool) -> str:
    """Under TLS the browser itself refuses a cookie of this name that another host, or plain HTTP, sets."""
    return "__Host-dreamwright" if is_tls else "dreamwright"


def secrets_of(request: Request, is_tls: bool) -> tuple[str, str]:
    """(cookie, page's key) of a request; "" for what it does not have."""
    cookie, key = request.cookies.get(cookie_name(is_tls), ""), request.headers.get(PAGE_KEY, "")
    return ("", "") if max(len(cookie), len(key)) > SECRET_CHARACTERS else (cookie, key)


def set_cookie(response: Response, secret: str, is_tls: bool) -> None:
    """Keep the secret in the browser until it closes; scripts and other sites cannot use it."""
    response.set_cookie(cookie_name(is_tls), secret, path="/", secure=is_tls, httponly=True, samesite="strict")


def delete_cookie(response: Response, is_tls: bool) -> None:
    """Make the browser forget the secret."""
    response.delete_cookie(cookie_name(is_tls), path="/", secure=is_tls, httponly=True, samesite="strict")
