"""The HTTP session under Vearch's client: time limits, retries, credentials, and errors that keep their body.

The client sends no timeout, knows one user (``root``) and no certificates, and hands an error's body on as a result
that is easily taken for a success. So it gets this session in place of its own.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from embedkit.backends.vearch.errors import Refusal

__all__ = ["VearchSession"]

_log = logging.getLogger(__name__)
_WAITS = (0.1, 0.3, 0.9)  # seconds between tries, give or take a half; an ingest waits longer above this
_POOL = 32
_SHOWN = 120
_LEAST = 0.05  # seconds for an answer


class VearchSession(requests.Session):
    """Answers are successes: anything else raises Refusal, or requests' own errors once tries and time are used up.

    Every request but the making of databases, spaces and aliases may be repeated, since documents carry our own ids;
    those are repeated only where the connection was refused, so that nothing can have been done.
    """

    def __init__(self, *, timeout: float, auth: tuple[str, str] | None = None) -> None:
        super().__init__()
        self.trust_env = False  # neither a proxy nor a .netrc decides how a database is reached
        self._timeout, self._credentials = timeout, auth
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(pool_connections=1, pool_maxsize=_POOL))

    def request(self, method: Any, url: Any, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["auth"] = self._credentials  # instead of root, which the client always names

        def send(seconds: float) -> requests.Response:
            return _checked(super(VearchSession, self).request(method, url, *args, **{**kwargs, "timeout": seconds}))

        return self._tried(send, repeatable=method in ("GET", "PUT", "DELETE") or "/document/" in str(url))

    def _tried(self, send: Callable[[float], requests.Response], *, repeatable: bool) -> requests.Response:
        deadline = time.monotonic() + self._timeout
        for wait in _WAITS:
            try:
                return send(max(_LEAST, deadline - time.monotonic()))
            except (requests.exceptions.RequestException, Refusal) as error:
                pause = wait * random.uniform(0.5, 1.5)
                if not _worth_it(error, repeatable) or time.monotonic() + pause >= deadline:
                    raise
                _log.info("Vearch: %s; trying again in %.1f s.", error, pause)
                time.sleep(pause)
        return send(max(_LEAST, deadline - time.monotonic()))


def _worth_it(error: Exception, repeatable: bool) -> bool:
    if isinstance(error, Refusal):
        return error.transient and repeatable
    if isinstance(error, requests.exceptions.SSLError | requests.exceptions.InvalidURL):
        return False
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    refused = isinstance(error, requests.exceptions.ConnectionError) and "refused" in str(error).lower()
    return refused or repeatable


def _checked(response: requests.Response) -> requests.Response:
    """Raise Refusal unless it is a success with a JSON object as its body."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "code" not in body:
        shown = " ".join(response.text.split())[:_SHOWN]
        raise Refusal(response.status_code, -1, f"HTTP {response.status_code} and no answer of Vearch's: {shown!r}")
    code, message = int(body["code"]), str(body.get("msg") or body.get("message") or f"code {body['code']}")
    if response.status_code >= 400 or code not in (0, 200):
        raise Refusal(response.status_code, code, message)
    return response
