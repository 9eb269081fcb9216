"""From a URL to a backend."""

from __future__ import annotations

from typing import cast

from embedkit import plugins
from embedkit.backends.contract import BackendFactory, BackendOptions, Capabilities, VectorBackend
from embedkit.backends.url import parse_url

__all__ = ["capabilities", "open_backend"]


def _factory(url: str) -> BackendFactory:
    return cast(BackendFactory, plugins.load("backends", parse_url(url).scheme))


def capabilities(url: str) -> Capabilities:
    """What the backend at a URL can do, without connecting. Raises ConfigError, UnknownName."""
    return _factory(url).capabilities(url)


def open_backend(url: str, options: BackendOptions | None = None) -> VectorBackend:
    """Connect to the backend that a URL names. Raises BackendUnavailable, ConfigError, MissingExtra, UnknownName."""
    return _factory(url).open(url, options or BackendOptions())
