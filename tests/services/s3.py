"""A server that speaks the protocol of S3, in this process, and what it was asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

__all__ = ["Bucket", "s3_bucket"]


@dataclass
class Bucket:
    """An empty bucket. `asked`: method and path of every request, in their order."""

    client: Any
    name: str
    asked: list[str] = field(default_factory=list)

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def read(self, suffix: str) -> list[str]:
        """The requests for the bytes of objects whose keys end so."""
        return [line for line in self.asked if line.startswith("GET ") and line.endswith(suffix)]


class _Requests(logging.Handler):
    """Werkzeug tells each request by one line of its log: ``… "GET /shop/1.png HTTP/1.1" 200 -``."""

    def __init__(self, asked: list[str]) -> None:
        super().__init__()
        self._asked = asked

    def emit(self, record: logging.LogRecord) -> None:
        method, _, rest = record.getMessage().partition('"')[2].rpartition('"')[0].partition(" ")
        self._asked.append(f"{method.rpartition('m')[2]} {rest.partition(' ')[0].partition('?')[0]}")


@contextmanager
def s3_bucket(name: str = "shop") -> Iterator[Bucket]:
    """Start a server; clients of this process find it by their environment."""
    import boto3
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    log = logging.getLogger("werkzeug")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        bucket = Bucket(boto3.client("s3"), name)
        bucket.client.create_bucket(Bucket=name)
        requests = _Requests(bucket.asked)
        log.addHandler(requests)
        patch.setattr(log, "level", logging.INFO)
        try:
            yield bucket
        finally:
            log.removeHandler(requests)
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            server.stop()
