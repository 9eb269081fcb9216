"""Writes the pages that are made from code: ``docs/cli.md`` and ``docs/backends.md``.

``python -m embedkit_cli.docs --check`` fails when a page is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

import embedkit

__all__ = ["backends_page", "cli_page", "main"]

_HEAD = "<!-- Made by `make docs`; change the code, not this page. -->\n\n"


def cli_page() -> str:
    """Every command with its help, arguments and options."""
    from embedkit_cli.app import app

    group: Any = typer.main.get_command(app)
    context = click.Context(group, info_name="embedkit")
    parts = [_HEAD, "# The command line\n\n", "Exit codes: 0 done; 1 an error; 2 wrong usage; "]
    parts.append("3 done, but some records failed; 130 stopped by Ctrl-C or SIGTERM.\n")
    for name, command in _commands(group, context):
        parts.append(f"\n## embedkit {name}\n\n{(command.help or '').strip()}\n\n| | |\n|---|---|\n")
        parts += [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False)]
    return "".join(parts)


def _commands(group: Any, context: click.Context, head: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its full name, those of groups too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield from _commands(command, context, f"{head}{name} ")
        else:
            yield f"{head}{name}", command


def _row(parameter: Any) -> str:
    if isinstance(parameter, click.Option) or parameter.param_type_name == "option":
        names = ", ".join(f"`{name}`" for name in parameter.opts)
    else:
        names = f"`{parameter.name.upper()}`"
    text = (parameter.help or "").replace("|", "\\|")
    default = parameter.default
    shown = f" Default: `{default}`." if isinstance(default, str | int | Path) and not isinstance(default, bool) else ""
    return f"| {names} | {text}{shown} |\n"


_RUN_AGAINST = """
## What was run against which

The contract suite and the tests of the command line run against these, which the tests start themselves:

| backend | what answers in the tests | what was not at hand |
|---|---|---|
| faiss | FAISS in this process | a GPU |
| milvus | Milvus Lite; a Milvus server 2.3.5 from its Python package | a cluster |
| vearch | the Gamma engine 3.3.2, the one that Vearch's partition servers run, behind a router of our own | a cluster |

Vearch publishes its engine as a Python package, but no master, router or partition server. So `tests/services/` has a
router that speaks the REST API of Vearch 3.5, with its status codes and error bodies, over that engine in processes of
its own. Index families, filters, scores and the delays of indexes are the engine's; databases, spaces, aliases,
passwords and the routing of documents to partitions are the router's, written after Vearch's sources. Replication and
IVFRABITQ, which the engine lacks, were not run at all.

`EMBEDKIT_TEST_VEARCH_URL=vearch://root:secret@host:9001/database make test` runs the same suite on a live cluster, in
a database kept for tests. [docs/vearch.md](vearch.md) tells how a collection lies there.
"""


def backends_page() -> str:
    """The capabilities of every backend, as they declare them."""
    every = embedkit.list_backends()
    lines = [_HEAD, "# What each backend can do\n\n", f"| | {' | '.join(one.name for one in every)} |\n"]
    lines.append(f"|---{'|---' * len(every)}|\n")
    rows = {
        "what it is": [one.summary for one in every],
        "metrics": [", ".join(one.capabilities.metrics) if one.capabilities else "" for one in every],
        "vectors": [", ".join(one.capabilities.vector_kinds) if one.capabilities else "" for one in every],
        "indexes": [", ".join(one.capabilities.index_families) if one.capabilities else "" for one in every],
        "indexes of codes": [", ".join(one.capabilities.binary_families) if one.capabilities else "" for one in every],
        "codes as near as the last hit": [
            "those with the lowest ids" if one.capabilities and one.capabilities.ties_by_id else "any" for one in every
        ],
        "most dimensions": [f"{one.capabilities.max_dim:,}" if one.capabilities else "" for one in every],
        "most hits": [f"{one.capabilities.max_k:,}" if one.capabilities else "" for one in every],
        "largest columns of a row": [
            f"{one.capabilities.max_columns_bytes:,} B" if one.capabilities else "" for one in every
        ],
        "alias switch": [_yes(one.capabilities and one.capabilities.alias_switch) for one in every],
        "survives a restart": [_yes(one.capabilities and one.capabilities.durable) for one in every],
    }
    lines += [f"| {name} | {' | '.join(cells)} |\n" for name, cells in rows.items()]
    lines.append("\nEvery backend answers every filter. What is emulated, and how:\n\n")
    for one in every:
        for what, how in (one.capabilities.emulated if one.capabilities else {}).items():
            lines.append(f"- **{one.name}**, {what}: {how}.\n")
    return "".join([*lines, _RUN_AGAINST])


def _yes(value: object) -> str:
    return "yes" if value else "no"


def main() -> None:
    """Write the pages, or with ``--check`` compare them."""
    folder = Path(__file__).resolve().parent.parent / "docs"
    stale = []
    for name, text in (("cli.md", cli_page()), ("backends.md", backends_page())):
        page = folder / name
        if "--check" in sys.argv[1:]:
            if not page.is_file() or page.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            page.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"out of date: {', '.join(stale)}; run: make docs")


if __name__ == "__main__":
    main()
