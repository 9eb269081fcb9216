"""Work that is killed with SIGKILL at a chosen point, in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal

from tests.plain_encoder import install

_CONTEXT = multiprocessing.get_context("forkserver")  # it imports once, and each process starts from there
_CONTEXT.set_forkserver_preload(
    ["embedkit.collection", "embedkit.ingest.pipeline", "embedkit.living.reindex", __name__]
)


def _work(url, home, name, method, arguments, point, calls, settings):
    import embedkit

    os.environ.update(settings)
    install()
    if point:
        _die_at(point, calls)
    with embedkit.connect(backend=url, home=home) as kit:
        getattr(kit.collection(name) if name else kit, method)(**arguments)


def _die_at(point, calls):
    """Replace ``module:Class.function`` by one that kills this process when it is called for the n-th time."""
    module, _, path = point.partition(":")
    *outer, last = path.split(".")
    owner = importlib.import_module(module)
    for step in outer:
        owner = getattr(owner, step)
    real, done = getattr(owner, last), []

    def deadly(*positional, **named):
        done.append(1)
        if len(done) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*positional, **named)

    setattr(owner, last, deadly)


def run(url, home, method, arguments, *, point="", calls=1, name="products"):
    """Call a method of a collection, or of the kit and be killed at `point`; whether it came to its end."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("EMBEDKIT_")}
    process = _CONTEXT.Process(target=_work, args=(url, str(home), name, method, arguments, point, calls, settings))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0
