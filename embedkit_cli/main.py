"""The entry point: runs the application and turns every error into one line and an exit code.

0 done; 1 an error; 2 wrong usage; 3 done, but some records failed (see ``embedkit failures``);
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings

__all__ = ["main"]


def main() -> None:
    """Run the command of this process and exit."""
    warnings.simplefilter("ignore")  # warnings of libraries say nothing that a user of the command can act on
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    from embedkit.errors import EmbedkitError, Transient
    from embedkit_cli.app import app
    from embedkit_cli.render import error_line

    try:
        app(prog_name="embedkit")
    except EmbedkitError as error:
        if os.environ.get("EMBEDKIT_DEBUG"):
            raise
        error_line(str(error), hint="trying again later may help" if isinstance(error, Transient) else "")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        error_line("stopped")
        sys.exit(130)
    except Exception as error:
        if os.environ.get("EMBEDKIT_DEBUG"):
            raise
        error_line(
            f"{type(error).__name__}: {error}. This is a fault of embedkit; "
            "run again with EMBEDKIT_DEBUG=1 and report it"
        )
        sys.exit(1)
