"""Remote pictures come from a real HTTP server, which fails in every way that servers do."""

from __future__ import annotations

import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from embedkit.config import FetchSettings
from embedkit.errors import BadImage, FetchFailed, FetchTimeout
from embedkit.ingest.fetch import Fetcher, content_hash_of
from tests.conftest import picture, read_table, write_table


class _Handler(BaseHTTPRequestHandler):
    asked: ClassVar[Counter[str]] = Counter()
    not_modified = 0

    def do_GET(self):
        path = self.path.partition("?")[0]
        type(self).asked[path] += 1
        if path.startswith("/img/"):
            self._picture(path)
        elif path == "/flaky" and self.asked[path] < 3:
            self._answer(503, b"", {"Retry-After": "0"})
        elif path == "/flaky":
            self._answer(200, _png(1))
        elif path == "/slow":
            time.sleep(3)
        elif path == "/huge":
            self._answer(200, b"x" * 50_000)
        elif path == "/moved":
            self._answer(302, b"", {"Location": "/img/1.png"})
        else:
            self._answer(404, b"")

    def _picture(self, path):
        data = _png(int(path.removeprefix("/img/").removesuffix(".png")))
        tag = f'"{content_hash_of(data)}"'
        if self.headers.get("If-None-Match") == tag:
            type(self).not_modified += 1
            self._answer(304, b"")
        else:
            self._answer(200, data, {"ETag": tag})

    def _answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def _png(seed):
    out = io.BytesIO()
    picture(seed).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def host():
    _Handler.asked.clear()
    _Handler.not_modified = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher():
    fetcher = Fetcher(FetchSettings(timeout=1.0, retries=2, max_bytes=20_000))
    yield fetcher
    fetcher.close()


def test_a_busy_host_is_asked_again(host, fetcher):
    assert fetcher.submit(f"{host}/flaky").result(20).data == _png(1)
    assert _Handler.asked["/flaky"] == 3


def test_redirects_are_followed(host, fetcher):
    assert fetcher.submit(f"{host}/moved").result(20).data == _png(1)


def test_what_fails_says_how(host, fetcher):
    with pytest.raises(FetchFailed, match="404"):
        fetcher.submit(f"{host}/gone").result(20)
    with pytest.raises(FetchTimeout, match="3 tries"):
        fetcher.submit(f"{host}/slow").result(20)
    with pytest.raises(BadImage, match="max_bytes"):
        fetcher.submit(f"{host}/huge").result(20)
    with pytest.raises(FetchTimeout):
        fetcher.submit("http://127.0.0.1:9/x.png").result(20)
    with pytest.raises(FetchFailed) as caught:
        fetcher.submit(f"{host.replace('//', '//me:secret@')}/gone").result(20)
    assert "secret" not in str(caught.value)
    assert _Handler.asked["/gone"] == 2


def test_other_schemes_go_through_fsspec(fetcher, tmp_path):
    import fsspec

    with fsspec.open("memory://shop/1.png", "wb") as file:
        file.write(_png(1))
    assert fetcher.submit("memory://shop/1.png").result(20).data == _png(1)
    with pytest.raises(FetchFailed, match="not there"):
        fetcher.submit("memory://shop/none.png").result(20)


def test_an_ingest_over_http_asks_only_once_for_what_has_not_changed(products, catalog, host):
    rows = [{**row, "image": f"{host}/img/{number}.png"} for number, row in enumerate(read_table(catalog))]
    write_table(catalog, rows)
    assert products.ingest(catalog).encoded == 24
    assert products.search(image=f"{host}/img/5.png", k=1)[0].key == "p05"
    report = products.ingest(catalog)
    assert (report.encoded, report.skipped) == (0, 24)
    assert _Handler.not_modified == 24


@pytest.mark.parametrize("address", ["http://127.0.0.1:70000/x.png", "http://127.0.0.1:-1/x.png", "file://[x/a.png"])
@pytest.mark.usefixtures("plain")
def test_an_address_that_no_host_can_have_fails_alone(products, catalog, address):
    rows = read_table(catalog)[:3]
    write_table(catalog, [{**rows[0], "image": address}, *rows[1:]])
    report = products.ingest(catalog, encoder={"image": "plain"})
    assert (report.encoded, report.failed) == (2, 1)
    (failure,) = products.failures(stage="fetch")
    assert (failure.key, address in failure.error or "/a.png" in failure.error) == ("p00", True)
