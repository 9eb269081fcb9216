"""What people see: the only module that knows Rich."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import typer

from embedkit.errors import BadInput, ConfigError
from embedkit.urls import redact
from embedkit_cli.place import with_place

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedkit import Hit

__all__ = [
    "Moment",
    "as_json",
    "confirm",
    "counted",
    "csv_file",
    "error_line",
    "fields",
    "hits_as_dicts",
    "hits_table",
    "note",
    "progress_bar",
    "short",
    "size",
    "table",
    "waiting",
]


class Moment(Protocol):
    """What a bar shows of a long operation: `Progress` of an ingest has it, and that of an evaluation."""

    @property
    def total(self) -> int | None: ...
    @property
    def seen(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def note(self) -> str: ...


# Characters of a cell in a terminal, by the name of its column: what a catalog may make as long as it likes.
_MOST = {
    "key": 60,
    "where": 100,
    "why": 300,
    "title": 100,
    "keep": 60,
    "near-duplicates": 200,
    "nearest to its mean": 200,
}

# What a terminal would obey, or what would break a line of a table.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS.update({ord("\n"): " ", ord("\t"): " ", ord("\r"): " "})


def _shown(value: object) -> str:
    """A value of a catalog as one harmless line: an escape is spelt out, a line break becomes a space."""
    return str(value).translate(_CONTROLS)


def short(text: str, most: int) -> str:
    """At most so many characters of a text; its end is kept, since keys and reasons often differ there.

    >>> short("a very long title of a shoe", 15)
    'a very lon…shoe'
    """
    tail = most // 3 - 1
    return text if len(text) <= most else f"{text[: most - tail - 1]}…{text[-tail:]}"


def _lines(message: str) -> str:
    """A message with its own line breaks, and no other control character; commands in it name the same place."""
    return "\n".join(with_place(_shown(line)) for line in message.split("\n"))


def as_json(value: object) -> None:
    """One line of JSON on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=_plain))


def csv_file(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table. Raises ConfigError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"The table {str(path)!r} cannot be written: {error.strerror or error}") from error


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def size(count: int) -> str:
    """An amount of memory in three figures.

    >>> size(1_234_000_000)
    '1.23 GB'
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count} B"


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "product"), counted(1_200, "product")
    ('1 product', '1,200 products')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def confirm(question: str) -> None:
    """Ask, and go on if the answer is yes; it may come through a pipe. Raises Abort, BadInput if nobody answers."""
    if sys.stdin is not None and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)
        return
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer:
        raise BadInput(f"{question} Nobody is there to answer, so nothing was done; say --yes to go on without asking")
    if answer.strip().lower() not in ("y", "yes"):
        raise typer.Abort


def error_line(message: str, *, hint: str = "") -> None:
    """An error on stderr, red on a terminal."""
    head = typer.style("error:", fg="red", bold=True) if sys.stderr.isatty() else "error:"
    typer.echo(f"{head} {_lines(message)}" + (f" ({hint})" if hint else ""), err=True)


def note(message: str) -> None:
    """A remark on stderr, so that stdout stays for results."""
    typer.echo(_lines(message), err=True)


def fields(rows: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    pairs = [(_shown(name), "–" if value is None else _shown(value)) for name, value in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        typer.echo(f"{name:<{width}}  {value}")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """A table, in which long keys and titles are cut; on a pipe, plain tab-separated lines with all of them."""
    if not sys.stdout.isatty():
        if title:
            typer.echo(title)
        for row in [columns, *rows]:
            typer.echo("\t".join(_shown(cell) for cell in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        cells = zip(columns, map(_shown, row), strict=False)
        shown.add_row(*(Text(short(cell, _MOST.get(column, len(cell)))) for column, cell in cells))
    Console().print(shown)


def hits_as_dicts(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Hits as plain values."""
    return [
        {
            "key": hit.product.key,
            "score": round(hit.score, 6),
            "title": hit.product.title,
            "uri": hit.product.uri and redact(hit.product.uri),
            "attributes": dict(hit.product.attributes),
        }
        for hit in hits
    ]


def hits_table(hits: Sequence[Hit], *, title: str = "", first: int = 1) -> None:
    """Hits, best first; `first`: the place of the first one."""
    rows = [(n, f"{hit.score:.3f}", hit.product.key, hit.product.title or "") for n, hit in enumerate(hits, first)]
    table(["#", "score", "key", "title"], rows, title=title)


@contextmanager
def progress_bar(label: str, *, quiet: bool = False) -> Iterator[Callable[[Moment], None] | None]:
    """A bar on a terminal, a plain line every few seconds otherwise; None if `quiet`."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        yield from _bar(label)
    else:
        yield _Lines(label)


@contextmanager
def waiting(what: str, *, quiet: bool = False) -> Iterator[None]:
    """Says on a terminal what is being done, where nobody knows how long it takes; nothing otherwise, or if `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


def _bar(label: str) -> Iterator[Callable[[Moment], None]]:
    """The note has a line of its own: beside the bar a long one would leave no room for the numbers."""
    from rich.console import Console, RenderableType
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class WithNote(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["note"]:
                    yield Text(_shown(task.fields["note"]), style="yellow")

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}", style="yellow"),
    ]
    with WithNote(*columns, console=Console(stderr=True), transient=False) as bar:
        task = bar.add_task(label, total=None, rate="", failed="", note="")

        def show(now: Any) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            bar.update(
                task,
                total=now.total,
                completed=now.seen,
                rate=f"{speed:.0f}/s" if speed else "",
                failed=f"{now.failed} failed" if now.failed else "",
                note=now.note,
            )

        yield show


class _Lines:
    """Progress for logs: at most one line in five seconds."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._next = 0.0

    def __call__(self, now: Moment) -> None:
        from time import monotonic

        if self._next == 0.0:
            self._next = monotonic() + 5
        elif monotonic() >= self._next:
            self._next = monotonic() + 5
            of = f" of {now.total:,}" if now.total else ""
            waiting = f" ({now.note})" if now.note else ""
            note(f"{self._label}: {now.seen:,}{of}, {now.failed:,} failed{waiting}")
