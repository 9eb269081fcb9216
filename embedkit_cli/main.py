"""The entry point: runs the application and turns every error into one line and an exit code.

0 done; 1 an error; 2 wrong usage; 3 done, but some records failed (see ``embedkit failures``);
130 stopped by Ctrl-C or SIGTERM; 141 nobody reads the output any more, as behind ``| head``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
from typing import NoReturn

__all__ = ["main"]

_UNREAD = 141  # what a shell gives of a command that SIGPIPE has stopped


def main() -> None:
    """Run the command of this process and exit."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what ends a service stops it as Ctrl-C does
    warnings.simplefilter("ignore")  # warnings of libraries say nothing that a user of the command can act on
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # tells of every try, twice; the last error is enough
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: 2>&-
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process
    try:
        _run()
    except KeyboardInterrupt:
        _leave()


def _run() -> None:
    from embedkit.errors import EmbedkitError, Transient, disk_is_full
    from embedkit_cli.app import app
    from embedkit_cli.render import error_line

    try:
        app(prog_name="embedkit")
    except SystemExit as end:
        if _came_of(end, KeyboardInterrupt):
            raise KeyboardInterrupt from end  # Typer makes an exit of it, without a word
        if _came_of(end, BrokenPipeError):
            sys.exit(_UNREAD)  # Typer makes an error of it
        raise
    except EmbedkitError as error:
        if os.environ.get("EMBEDKIT_DEBUG"):
            raise
        error_line(str(error), hint="trying again later may help" if isinstance(error, Transient) else "")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_UNREAD)
    except Exception as error:
        if os.environ.get("EMBEDKIT_DEBUG"):
            raise
        if _came_of(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error  # native modules make an ImportError of it
        if disk_is_full(error):
            error_line("The disk is full, or what the output goes to; free some space and run the same command again")
            sys.exit(1)
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            error_line(
                f"{os.fsdecode(error.filename)}: {error.strerror}. Look whether it is there, and who may read and "
                "write it; EMBEDKIT_DEBUG=1 shows where this came up"
            )
            sys.exit(1)
        error_line(
            f"{type(error).__name__}: {error}. This is a fault of embedkit; "
            "run again with EMBEDKIT_DEBUG=1 and report it"
        )
        sys.exit(1)


def _came_of(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error came of one of that kind, such as a Ctrl-C."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _leave() -> NoReturn:
    """Leave at once: threads that still encode would hold up a usual exit, or make it crash."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.write("error: stopped\n")
        sys.stderr.flush()
    os._exit(130)
