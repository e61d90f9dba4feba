"""The playground's HTTP interface, on the loopback address: whatever comes in gets one clear answer."""

import base64
import hashlib
import http.server
import json
import os
import re
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ferrograd._core import ConfigError
from ferrograd.playground.points import shown
from ferrograd.playground.session import Session

__all__ = ["Server"]

HOST = "127.0.0.1"
MOST_BYTES = 1 << 20
# A connection that has not sent its whole request, or taken its answer, is closed.
PATIENCE_SECONDS = 10.0
MOST_CONNECTIONS = 64
_POSTS = ("/api/data", "/api/network", "/api/run")
_GETS = ("/", "/api/state")


class Server(http.server.ThreadingHTTPServer):
    """Serves a session to the programs of this machine.

    Parameters
    ----------
    session : Session
        What is shown and changed.
    port : int
        0 takes any that is free; `server_port` is the one.

    Raises
    ------
    OSError
        If the port cannot be had.

    Examples
    --------
    >>> from ferrograd.playground.server import Server
    >>> from ferrograd.playground.session import Session
    >>> session = Session()
    >>> with Server(session, 0) as server:
    ...     server.url.startswith("http://127.0.0.1:")
    True
    >>> session.close()
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    # Elsewhere the option lets two programs have one port.
    allow_reuse_address = os.name == "posix"

    def __init__(self, session: Session, port: int) -> None:
        self.session = session
        self.page = resources.files("ferrograd.playground").joinpath("page.html").read_bytes()
        self.policy = _policy(self.page.decode("utf-8"))
        # Connections, with the time since which each has been busy with its request.
        self.since: dict[socket.socket, float] = {}
        self._guard = threading.Lock()
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a request may have in its Host header."""
        names = (HOST, "localhost")
        bare = names if self.server_port == 80 else ()
        return (*(f"{name}:{self.server_port}" for name in names), *bare)

    def server_bind(self) -> None:
        """Bind without looking up a name for the address."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def mark(self, connection: socket.socket) -> None:
        """Note that a connection begins a request."""
        with self._guard:
            self.since[connection] = time.monotonic()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection, unless there are too many."""
        with self._guard:
            is_full = len(self.since) >= MOST_CONNECTIONS
            if not is_full:
                self.since[request] = time.monotonic()
        if is_full:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection and close it."""
        with self._guard:
            self.since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that take too long; called between accepted ones, and several times a second."""
        limit = time.monotonic() - PATIENCE_SECONDS
        with self._guard:
            for connection in [open_one for open_one, since in self.since.items() if since < limit]:
                del self.since[connection]
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    # The client was first.
                    continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong with a connection, unless it is only gone."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"ferrograd playground: {type(error).__name__}: {error}", file=sys.stderr)


class _Refused(Exception):
    """A request that is answered by an error."""

    def __init__(self, status: HTTPStatus, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "ferrograd"
    sys_version = ""
    timeout = PATIENCE_SECONDS
    # Headers and body of an answer go out together.
    wbufsize = -1
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        self.server.mark(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    # Whatever else has a name is known, but fits no path.
    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_GET

    def _answer(self, make: Callable[[], tuple[bytes, str]]) -> None:
        headers: dict[str, str] = {}
        try:
            self._check_sender()
            content, kind = make()
            status = HTTPStatus.OK
        except _Refused as refused:
            status, headers = refused.status, refused.headers
            content, kind = _error(str(refused)), "application/json"
        except ConfigError as error:
            status = HTTPStatus.BAD_REQUEST
            content, kind = _error(str(error)), "application/json"
        except OSError:  # The client is gone.
            raise
        except Exception as error:
            print(f"ferrograd playground: {type(error).__name__}: {error}", file=sys.stderr)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            content, kind = _error("internal error; the terminal says more"), "application/json"
        self._send(status, content, kind, headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        if status != HTTPStatus.OK:
            # What is left of the request could be taken for the next one.
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request at all, as the base class found, like every other error."""
        status = HTTPStatus(code)
        self.close_connection = True
        if not hasattr(self, "request_version") or self.request_version == "HTTP/0.9":
            self.request_version = self.protocol_version
        self._send(status, _error(f"request: {message or status.phrase}"), "application/json", {})
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a page asks ten times a second."""

    def _check_sender(self) -> None:
        """Refuse what another site's page sends: by its name for this address, or as itself."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].strip().lower() not in self.server.hosts:
            got = shown(hosts[0]) if len(hosts) == 1 else f"{len(hosts)} of them"
            raise _Refused(HTTPStatus.FORBIDDEN, f"Host: expected {self.server.hosts[0]}, got {got}")
        allowed = [f"http://{host}" for host in self.server.hosts]
        for origin in self.headers.get_all("Origin", []):
            if origin.strip().lower() not in allowed:
                raise _Refused(
                    HTTPStatus.FORBIDDEN, f"Origin: expected {allowed[0]} or none, got {shown(origin)}"
                )

    def _path(self, own: tuple[str, ...]) -> str:
        """Return the path without its query, if this method is for it."""
        path = urlsplit(self.path).path if self.path.startswith("/") else self.path
        if path in own and self.command in ("GET", "POST"):
            return path
        for paths, method in ((_GETS, "GET"), (_POSTS, "POST")):
            if path in paths:
                raise _Refused(
                    HTTPStatus.METHOD_NOT_ALLOWED,
                    f"method: expected {method} for {path}, got {self.command[:20]}",
                    Allow=method,
                )
        known = ", ".join((*_GETS, *_POSTS))
        raise _Refused(HTTPStatus.NOT_FOUND, f"path: expected one of {known}, got {shown(path)}")

    def _get(self) -> tuple[bytes, str]:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True
        if self._path(_GETS) == "/":
            return self.server.page, "text/html"
        state = self.server.session.state()
        since = parse_qs(urlsplit(self.path).query).get("since")
        if since is not None:
            if not re.fullmatch(r"[0-9]{1,18}", since[0]):
                raise ConfigError(f"since: expected a version, got {shown(since[0])}")
            if int(since[0]) == state["version"]:
                state = {"version": state["version"]}
        return _json(state), "application/json"

    def _post(self) -> tuple[bytes, str]:
        path = self._path(_POSTS)
        body = self._body()
        session = self.server.session
        change = {"/api/data": session.data, "/api/network": session.network, "/api/run": session.run}[path]
        return _json(change(body)), "application/json"

    def _body(self) -> dict[str, Any]:
        kind = self.headers.get("Content-Type", "")
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "Content-Length: expected the body's length, got none")
        if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", lengths[0].strip()):
            raise ConfigError(f"Content-Length: expected one number, got {shown(', '.join(lengths))}")
        length = int(lengths[0])
        if length > MOST_BYTES:
            self._drop(length)
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"Content-Length: expected at most {MOST_BYTES} bytes, got {length}",
            )
        text = self.rfile.read(length)
        if len(text) < length:
            raise ConfigError(f"body: expected {length} bytes, got {len(text)}")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise _Refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"Content-Type: expected application/json, got {shown(kind) if kind else 'none'}",
            )
        try:
            body = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
            raise ConfigError(f"body: expected JSON in UTF-8, got something else: {reason}") from error
        if not isinstance(body, dict):
            raise ConfigError(f"body: expected a JSON object, got {shown(body)}")
        return body

    def _drop(self, length: int) -> None:
        """Read some of what is too much: a client that still sends when it is cut off sees no answer."""
        left = min(length, 8 * MOST_BYTES)
        while left > 0 and (part := self.rfile.read1(min(left, 1 << 16))):
            left -= len(part)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


def _error(message: str) -> bytes:
    return _json({"error": message})


def _policy(page: str) -> str:
    """Return the page's policy: its own script and style, requests to this server, and nothing else."""

    def digest(tag: str) -> str:
        found = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert found is not None
        return "'sha256-" + base64.b64encode(hashlib.sha256(found[1].encode("utf-8")).digest()).decode() + "'"

    return (
        f"default-src 'none'; script-src {digest('script')}; style-src {digest('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
