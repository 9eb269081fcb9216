"""Vearch for tests: a router over the real Gamma engine, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from embedkit.testing.servers import free_port
from tests.services.gamma_venv import gamma_python, why_not

_ROUTER = Path(__file__).with_name("vearch_router")
_START = 60.0  # seconds; the log of writes is gone through
DB = "shop"


class VearchProcess:
    """A router that keeps its data in `folder`, so that the next one goes on with them."""

    def __init__(self, folder: Path, *arguments: str, password: str = "") -> None:
        if reason := why_not():
            pytest.skip(reason)
        self.folder, self.port = folder, free_port()
        self._password = password
        self._arguments = [*arguments, *(["--password", password] if password else [])]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"vearch://127.0.0.1:{self.port}/{DB}"

    def start(self) -> None:
        """Start, wait until it answers, and make the database if it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [gamma_python(), "-B", str(_ROUTER), "--folder", str(self.folder), "--port", str(self.port)]
        with (self.folder / "router.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *self._arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(httpx.TransportError):
                self._call("POST", f"/dbs/{DB}")
                return
            time.sleep(0.05)
        raise RuntimeError(f"the router did not start: {(self.folder / 'router.log').read_text()[-2_000:]}")

    def _call(self, method: str, path: str) -> None:
        auth = ("root", self._password) if self._password else None
        httpx.request(method, self.host + path, auth=auth, timeout=5)

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(10)
            self._process = None


@contextmanager
def vearch_server(folder: Path, *arguments: str, password: str = "") -> Iterator[VearchProcess]:
    """A running router with one database."""
    server = VearchProcess(folder, *arguments, password=password)
    server.start()
    try:
        yield server
    finally:
        server.kill()
