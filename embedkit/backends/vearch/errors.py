"""What Vearch answers and what its client raises, in embedkit's words.

A router answers ``{"code": 221, "msg": "space_not_exist"}`` with HTTP 500 for much of what its master refuses, so code
and message tell more than the status; the codes have changed between releases, so the message tells more than the code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests

from embedkit.errors import (
    BackendUnavailable,
    CollectionExists,
    CollectionNotFound,
    ConfigError,
    DiskFull,
    EmbedkitError,
    Terminal,
    UnsupportedByBackend,
)

__all__ = ["Refusal", "not_found", "translated", "unavailable"]

_AWAY = re.compile(
    r"no[_ ]leader|not[_ ]leader|time[_ ]?out|deadline|unavailable|connection|rpc|too frequen|busy|closed|recover"
    r"|not[_ ]running",
    re.IGNORECASE,
)
_AWAY_STATUSES = (429, 502, 503, 504)
_UNKNOWN_NAME = re.compile(r"(space|alias|db)\w*?[_ ]not[_ ]?exist|not found in space fields", re.IGNORECASE)
_UNKNOWN_CODES = (200, 221)
_UNAUTHORIZED_CODE = 3
_FULL = re.compile(r"no space left|disk full|resource[_ ]?exhausted|disk quota", re.IGNORECASE)


class Refusal(Exception):
    """An answer that is no success. It never leaves the backend."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed in a moment."""
        return self.status in _AWAY_STATUSES or (self.status == 500 and bool(_AWAY.search(self.message)))

    @property
    def unauthorized(self) -> bool:
        return self.status == 401 or self.code == _UNAUTHORIZED_CODE or "auth header" in self.message

    @property
    def unknown_name(self) -> bool:
        """Whether a database, space or alias of that name is what it lacks."""
        return self.code in _UNKNOWN_CODES or bool(_UNKNOWN_NAME.search(self.message))

    @property
    def taken_name(self) -> bool:
        return bool(re.search(r"(space|alias)_exist|dup_space", self.message, re.IGNORECASE))


def not_found(name: str) -> CollectionNotFound:
    """The error for a collection that is not there."""
    return CollectionNotFound(f"The backend 'vearch' has no collection {name!r}; create it by ingesting into it")


def unavailable(url: str, error: object) -> BackendUnavailable:
    """The error for a Vearch that does not answer."""
    reason = str(getattr(error, "reason", "") or error).strip().splitlines() or ["no answer"]
    return BackendUnavailable(
        f"Vearch at {url} does not answer ({_brief(reason[0])}); check that its router runs, and that URL and TLS "
        "settings are right"
    )


def _brief(reason: str) -> str:
    """Without the name of the object that failed, which urllib3 puts first."""
    return re.sub(r"^.*?object at 0x[0-9a-f]+>: |^.*?HTTPS?ConnectionPool\([^)]*\): ", "", reason)[:200]


@contextmanager
def translated(url: str, name: str = "") -> Iterator[None]:
    """Raise an EmbedkitError for whatever the client raises."""
    try:
        yield
    except EmbedkitError:
        raise
    except Refusal as error:
        raise _of_refusal(url, name, error) from error
    except requests.exceptions.RequestException as error:
        cause = error.args[0] if error.args else error
        raise unavailable(url, getattr(cause, "reason", cause) or error) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise Terminal(
            f"Vearch at {url} answers what embedkit does not understand ({type(error).__name__}: {error}); check that "
            "the URL names the router of a Vearch 3.5 cluster"
        ) from error


def _of_refusal(url: str, name: str, error: Refusal) -> EmbedkitError:
    if error.unauthorized:
        return ConfigError(
            f"Vearch at {url} refuses the user or the password ({error.message}); set them in the URL or as "
            "backend_options.user and backend_options.password"
        )
    if error.unknown_name and name:
        return not_found(name)
    if error.taken_name and name:
        return CollectionExists(f"Vearch at {url} already has a collection {name!r}")
    if "index type not support" in error.message:
        return UnsupportedByBackend("vearch", f"do that, and says {error.message!r}")
    if _FULL.search(error.message):
        return DiskFull(f"The disk of Vearch at {url} is full; free some space and run the same command again")
    if error.transient:
        return unavailable(url, error.message)
    return Terminal(f"Vearch at {url} refuses: {error.message.strip().splitlines()[0][:300]}")
