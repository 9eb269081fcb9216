"""A web server on this machine for tests: files by path, ranges or none, and every way to fail."""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebServer(ThreadingHTTPServer):
    """`files`: body by path. `ranges`: whether it knows them. `busy`: how many answers are 503 before the first good.

    Paths with a meaning: ``/drip/…`` sends a byte a fifth of a second, ``/to/URL`` redirects, ``/status/403``.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.ranges = True
        self.busy = 0
        self.asked: Counter[str] = Counter()
        self.authorizations: list[str | None] = []
        self.now, self.most = 0, 0
        self.counting = threading.Lock()
        self.pause = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self):
        server = self.server
        with server.counting:
            server.asked[self.path] += 1
            server.authorizations.append(self.headers.get("Authorization"))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            time.sleep(server.pause)
            self._get()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with server.counting:
                server.now -= 1

    def _get(self):
        server = self.server
        if server.busy > 0:
            server.busy -= 1
            self._answer(503, b"", {"Retry-After": "0"})
        elif self.path.startswith("/to/"):
            self._answer(302, b"", {"Location": self.path.removeprefix("/to/")})
        elif self.path.startswith("/status/"):
            self._answer(int(self.path.removeprefix("/status/")), b"")
        elif self.path.startswith("/drip/"):
            self._drip()
        elif self.path not in server.files:
            self._answer(404, b"")
        else:
            self._file(server.files[self.path], dict(server.headers.get(self.path, {})))

    def _file(self, body, headers):
        headers.setdefault("ETag", f'"{zlib.crc32(body)}-{len(body)}"')
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.server.ranges else None
        if asked and self.headers.get("If-Range") in (None, headers["ETag"]):
            start, end = int(asked[1]), min(int(asked[2] or len(body)) + 1, len(body))
            if start >= len(body):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(body)}"
            self._answer(206, body[start:end], headers)
        else:
            self._answer(200, body, headers)

    def _drip(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(1000):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.2)

    def _answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
