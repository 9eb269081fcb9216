"""Vearch's REST over the real Gamma engine: ``python vearch_router --folder data --port 9001 [--password secret]``.

Speaks what the router of a Vearch 3.5 cluster speaks, and what it hands on to its master: databases, spaces, aliases,
documents. Status codes and error bodies are the server's: the router answers what it hands on to the master with 500
whenever the master refuses, and says why in the body. One process stands for router and master, another one for each
partition; there is no replication (a space with two replicas is refused, as on a cluster with one partition server).
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import documents
from cluster import Cluster, Refused, unauthorized

_DOCUMENTS: dict[str, Callable[[Cluster, dict[str, Any]], dict[str, Any]]] = {
    "/document/upsert": documents.upsert,
    "/document/delete": documents.delete,
    "/document/query": documents.query,
    "/document/search": documents.search,
    "/index/flush": documents.flush,
}


def master(cluster: Cluster, method: str, steps: list[str], query: dict[str, list[str]], body: dict[str, Any]) -> Any:
    """What the router hands on to the master. Raises Refused."""
    detail = query.get("detail") == ["true"]
    match method, steps:
        case "GET", ["dbs"]:
            return [{"name": db} for db in sorted(cluster.dbs)]
        case "GET", ["dbs", db]:
            cluster.spaces_of(db)
            return {"name": db}
        case "POST", ["dbs", db]:
            return cluster.create_db(db)
        case "DELETE", ["dbs", db]:
            return cluster.drop_db(db)
        case "GET", ["dbs", db, "spaces"]:
            return [space.info(db, detail=detail) for space in cluster.spaces_of(db).values()]
        case "POST", ["dbs", db, "spaces"]:
            return cluster.create_space(db, body)
        case "GET", ["dbs", db, "spaces", name]:
            return cluster.space(db, name).info(db, detail=detail)
        case "DELETE", ["dbs", db, "spaces", name]:
            return cluster.drop_space(db, name)
        case "GET", ["alias"]:
            return list(cluster.aliases.values())
        case "GET", ["alias", alias]:
            return cluster.alias(alias)
        case "DELETE", ["alias", alias]:
            return cluster.drop_alias(alias)
        case "POST" | "PUT", ["alias", alias, "dbs", db, "spaces", name]:
            return cluster.put_alias(alias, db, name, new=method == "POST")
    raise Refused(404, 1, "page not found")


class Handler(BaseHTTPRequestHandler):
    """One connection. `cluster` and `password` are set on the class."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    cluster: Cluster
    password: str | None = None

    def _authorize(self) -> None:
        if self.password is None:
            return
        kind, _, code = (self.headers.get("Authorization") or "").partition(" ")
        if not kind:
            raise unauthorized("auth header is empty")
        if kind != "Basic":
            raise unauthorized("auth header type is invalid")
        user, _, password = base64.b64decode(code).decode().partition(":")
        if user != "root":
            raise unauthorized(f"auth header user {user} is invalid")
        if password != self.password:
            raise unauthorized("auth header password is invalid")

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        of_router = parts.path in _DOCUMENTS or parts.path == "/"
        try:
            self._authorize()
            body = json.loads(raw) if raw else {}
            if parts.path == "/":
                data: Any = {"name": "gamma router", "version": {"build_version": "3.3.2"}}
            elif parts.path in _DOCUMENTS:
                data = _DOCUMENTS[parts.path](self.cluster, body)
            else:
                steps = [unquote(step) for step in parts.path.strip("/").split("/")]
                with self.cluster.lock:
                    data = master(self.cluster, self.command, steps, parse_qs(parts.query), body)
            self._send(200, {"code": 0, **({} if data is None else {"data": data})})
        except Refused as error:
            self._send(error.status if of_router else 500, {"code": error.code, "msg": error.message})
        except ValueError as error:
            self._send(400, {"code": 1, "msg": str(error)})
        except (EOFError, OSError, RuntimeError) as error:  # of a partition
            self._send(500, {"code": 1, "msg": f"partition_error: {error!r}"})

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def _send(self, status: int, reply: dict[str, Any]) -> None:
        payload = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        sys.stderr.write(f"{format % args}\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--password")
    parser.add_argument("--lose-alias-updates", action="store_true")
    given = parser.parse_args()
    multiprocessing.set_start_method("forkserver")
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # or the server of forks does not find what it is to load
    multiprocessing.set_forkserver_preload(["gamma"])
    given.folder.mkdir(parents=True, exist_ok=True)
    Handler.cluster = Cluster(given.folder.absolute(), lose_updates=given.lose_alias_updates)
    Handler.password = given.password
    server = Server(("127.0.0.1", given.port), Handler)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        os._exit(0)  # the logs of all writes are whole


if __name__ == "__main__":
    main()
