# SPDX-License-Identifier: GPL-3.0-or-later
"""A small HTTP port in a thread of its own that answers GET from a table of paths, for scrapers and health checks."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT_S = 10.0  # for a client to send its request and read the answer

# The status, the content type and the body of an answer.
Page = Callable[[], tuple[int, str, bytes]]


class HttpEndpoint:
    """Serves `pages` by their path until `close`. Raises OSError for an address that cannot be used, UnicodeError."""

    def __init__(self, host: str, port: int, pages: Mapping[str, Page]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT_S
            server_version, sys_version = "dreamwright", ""

            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                status, kind, body = page() if page else (404, "text/plain; charset=utf-8", b"no such page\n")
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Content-Type-Options", "nosniff")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: a scrape every few seconds is no event."""

        class Server(ThreadingHTTPServer):
            address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            daemon_threads = True

            def server_bind(self) -> None:
                """Without the base class's look-up of the host's full name, which may wait for a name server."""
                socketserver.TCPServer.server_bind(self)
                self.server_name, self.server_port = host, port

            def handle_error(self, request: object, client_address: object) -> None:
                """Nothing: a client that goes away in the middle of an answer is no event."""

        self._server = Server((host, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="http endpoint", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and release the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)
