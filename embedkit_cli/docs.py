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

_OUTPUT = """# The command line

## What goes where

Results go to stdout; remarks, progress and errors to stderr. With `--json` stdout holds one line of JSON
and nothing else; `ingest` ends with such a line in any case. Where a command fails, stdout stays empty, with `--json` too:
one sentence on stderr says what is wrong and what to do next, and the exit code tells that it failed. So a program reads
the exit code first.

| exit code | meaning | stdout |
|---|---|---|
| 0 | done | the result |
| 1 | an error | empty |
| 1 | `verify` finds a difference, `index tune` no setting that does, `datasets check` something missing, `delete` not all of its keys | the result |
| 2 | wrong usage: an unknown option, or ones that do not go together | empty |
| 3 | done, but some records failed: `embedkit failures` lists them | the result |
| 130 | stopped by Ctrl-C or SIGTERM; the same command goes on from there | of an `ingest` its report, else empty |
| 141 | nobody reads stdout any more, as before `head` | what was read |

Commands that a remark or an error names are to be run as they stand: `--config` and `--backend` are in them if they were
given, a URL that holds a password as `--backend URL`.
"""


def cli_page() -> str:
    """Every command with its help, arguments and options."""
    from embedkit_cli.app import app

    group: Any = typer.main.get_command(app)
    context = click.Context(group, info_name="embedkit")
    parts = [_HEAD, _OUTPUT]
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


_INDEXES = """
## Indexes

An index is written as text, in `embedkit.toml` (`index = "hnsw(m=32)"`), in `embedkit index build COLLECTION SPEC` and in
`Collection.build_index`: `[opq +] family [+ codes] [+ refine(flat)]`. Every parameter may be left out; `auto` is its default.

    hnsw(m=32, ef_construction=200)
    ivf(nlist=auto) + pq(m=16) + refine(flat)
    opq(m=16) + ivf(nlist=auto, coarse=hnsw) + pq(m=16, bits=4)

| part | what it is | parameters |
|---|---|---|
| `flat` | a scan of all rows, exact | |
| `hnsw` | a graph in layers (Malkov & Yashunin 2018) | `m` links, `ef_construction` |
| `nsg` | a sparse graph with one entry (Fu 2019); takes no rows once it is built | `m` links |
| `ivf` | lists around centroids, of which the nearest are looked through | `nlist` (auto: four times the root of the rows), `coarse` flat or hnsw (Baranchuk 2018) |
| `imi` | inverted multi-index: lists by pairs of half vectors (Babenko & Lempitsky 2012) | `bits` of each half |
| `diskann`, `cagra` | Milvus's graphs on disk and on a GPU | of `cagra` `m`, `ef_construction` |
| `multihash` | of codes: exact multi-index hashing (Norouzi 2012) | `tables` |
| `opq` | a learned rotation before `pq` (Ge 2013) | `m`, `dim` to reduce to |
| `sq8`, `fp16` | a byte, or two, a dimension | |
| `pq` | product codes (Jégou 2011) | `m` pieces, which divide the dimensions, `bits` of each |
| `pq4fs` | product codes of 4 bits, compared 32 at a time; also written `pq(bits=4)` | `m` |
| `polysemous` | product codes that are first compared as bits (Douze 2016) | `m` |
| `rabitq` | a bit a dimension after a random rotation (Gao & Long 2024) | `bits` a dimension |
| `rq`, `lsq`, `prq` | residual, local search and product residual quantisers | `m` codes, `bits` of each, `splits` of `prq` |
| `refine(flat)` | the vectors themselves put more hits in order than are asked for | |
| `refine(fp16)` | of Milvus: a copy of the vectors in half precision does; half the memory | |

A search takes parameters for one call, `search(params={"nprobe": 32})` or `embedkit search --set nprobe=32`; `embedkit index
tune` finds the cheapest that reach a recall, and searches ask with them from then on. Recall is counted by distances: a hit
counts if it is no farther than the k-th nearest, whichever of several equal vectors it is. Indexes over codes are tuned too.
The collection's own vectors ask unless told otherwise, and an index finds them a little more easily than what is new to it:
of 30,000 SIFT descriptors `hnsw(m=8)` at `ef=16` found 0.975 of their neighbours, and 0.958 of those of 500 others.
`embedkit index tune products --questions customers/` asks by the pictures, or the titles, of any catalog instead.

| parameter | what it is | heeded by | default |
|---|---|---|---|
| `ef` | rows that a walk through a graph keeps in view | `hnsw`, `nsg`, `diskann`, `cagra` | 64 (`diskann` 100, `cagra` 128) |
| `nprobe` | lists that are looked through | `ivf`, `imi` | FAISS: the root of their number, Milvus: 32 |
| `k_factor` | times as many hits as are asked for that the vectors put in order | FAISS: any codes; Milvus: `refine` | 4 with `refine`, else 1 |
| `ht` | bits in which codes may differ to be looked at | `polysemous` | 4 for each piece |

FAISS keeps the vectors in mapped files whatever the index, so `refine(flat)` costs no memory there, and scores are exact even
where an index keeps codes alone; `refine(fp16)` would cost a copy, and is refused. An index learns from a sample of at most a
million rows. Rows that come later are scanned exactly beside it; when they are a tenth they are added, until there are four
times the rows it was built over: then it is built anew. What cannot be says so: more lists than rows, pieces that do not
divide the dimensions, too few rows to learn from, an index or a metric that a backend lacks (with the nearest it has).
`embedkit advise` says which index to choose.
"""

_RUN_AGAINST = """
## What was run against which

The contract suite and the tests of the command line run against these, which the tests start themselves:

| backend | what answers in the tests | what was not at hand |
|---|---|---|
| faiss | FAISS in this process | a GPU |
| milvus | Milvus Lite; a Milvus server 2.3.5 from its Python package | a cluster; a server of 2.6, for its newer indexes |
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
        "only on some servers": [
            ", ".join(one.capabilities.optional_families) if one.capabilities else "" for one in every
        ],
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
    return "".join([*lines, _INDEXES, _RUN_AGAINST])


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
