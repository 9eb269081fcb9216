"""Index specs and the knobs of a search: what an index is made of, as a value and as text.

``[opq +] family [+ codes] [+ refine(flat)]``: a rotation, how the rows are arranged, how each is kept, and whether
the vectors themselves have the last word (with ``fp16`` a copy of them in half precision). Every part takes
``(name=value, …)``, and ``auto`` stands for a default.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TypeAlias

from embedkit.errors import BadInput, ConfigError
from embedkit.specs import SpecText, parse_spec

__all__ = [
    "CODES",
    "FAMILIES",
    "IndexSpec",
    "Part",
    "SearchParams",
    "ef_under_filter",
    "lists_of",
    "nearest_shapes",
    "nprobe_under_filter",
    "pieces_of",
]

Value: TypeAlias = int | float | str

FAMILIES = ("flat", "hnsw", "nsg", "ivf", "imi", "diskann", "cagra", "multihash")
CODES = ("sq8", "fp16", "pq", "pq4fs", "polysemous", "rabitq", "rq", "lsq", "prq")
_ROTATIONS = ("opq",)
_PLACES = {
    **dict.fromkeys(_ROTATIONS, 0),
    **dict.fromkeys(FAMILIES, 1),
    **dict.fromkeys(CODES, 2),
    "refine": 3,
}
_GRAPHS = ("hnsw", "nsg", "diskann", "cagra")
_KIN = {"nsg": "hnsw", "diskann": "hnsw", "cagra": "hnsw", "imi": "ivf", "multihash": "flat"}
_LEAST_SHARE = 1e-9  # of rows that a filter admits, so that none of them is divided by 0
_WRITTEN = "an index is written opq + family + codes + refine(flat), each part once and only the ones that are wanted"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a spec: a name and its parameters."""

    name: str
    params: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return self._text().text

    def _text(self) -> SpecText:
        return SpecText(self.name, "", {name: str(value) for name, value in self.params.items()}, "index")

    def only(self, *known: str) -> Part:
        """Raise ConfigError for a parameter that is not known, with the nearest that are."""
        self._text().only(*known)
        return self

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within a range; ``auto`` gives the default. Raises ConfigError."""
        if self.params.get(name, "auto") == "auto":
            return default
        return self._text().whole_number(name, default, low, high)

    def choice(self, name: str, known: tuple[str, ...]) -> str:
        """One of a few words, the first by default. Raises ConfigError."""
        return self._text().choice(name, known[0], known)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """What an index is made of.

    `family` with its `params`: how rows are arranged, ``flat`` for a scan of all. `codes`: how each one is kept, None
    for the vector itself. `rotation`: what is done to vectors before (OPQ). `refine`: ``flat`` where the vectors
    themselves put more hits in order than are asked for, ``fp16`` where a copy of them in half precision does. A
    backend says in its `Capabilities` which shapes it builds, and by what it refines.
    """

    family: str = "flat"
    params: Mapping[str, Value] = field(default_factory=dict)
    codes: Part | None = None
    rotation: Part | None = None
    refine: str = ""

    @property
    def main(self) -> Part:
        """The family with its parameters, as a part."""
        return Part(self.family, self.params)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part that makes the shape, in order; ``flat`` stands only where there are no codes."""
        first = () if self.codes and self.family == "flat" and not self.params else (self.main,)
        return tuple(part for part in (self.rotation, *first, self.codes) if part is not None)

    @property
    def shape(self) -> str:
        """The names without parameters and without ``refine``: what backends list.

        >>> IndexSpec.parse("opq(m=16) + ivf(nlist=auto) + pq(m=16, bits=4) + refine(flat)").shape
        'opq + ivf + pq4fs'
        """
        return " + ".join(part.name for part in self.parts)

    def knobs(self, *, rescores: bool = False) -> tuple[str, ...]:
        """The names of `SearchParams` that a search of it heeds. `rescores`: as `Capabilities` say."""
        found = ["ef"] if self.family in _GRAPHS else ["nprobe"] if self.family in ("ivf", "imi") else []
        if self.codes is not None and self.codes.name == "polysemous":
            found.append("ht")
        if self.refine or (self.codes is not None and rescores):
            found.append("k_factor")
        return tuple(found)

    @classmethod
    def parse(cls, text: str) -> IndexSpec:
        """Read the text form. Raises ConfigError where it is none, or names a part of a composition that is unknown.

        A single name that is unknown is kept: a backend of somebody else may have it, and one of ours refuses it.

        >>> IndexSpec.parse("hnsw(m=32)")
        IndexSpec(family='hnsw', params={'m': 32}, codes=None, rotation=None, refine='')
        >>> str(IndexSpec.parse("ivf+pq( m=16 )+refine"))
        'ivf + pq(m=16) + refine(flat)'
        """
        pieces = [piece.strip() for piece in re.split(r"\+(?![^()]*\))", text)]
        spec, place = cls(), -1
        for piece in pieces:
            part = _part(piece, text)
            known = _PLACES.get(part.name)
            if known is None and len(pieces) == 1:
                return cls(part.name, part.params)
            if known is None:
                near = difflib.get_close_matches(part.name, _PLACES, n=2, cutoff=0.4)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_PLACES)}"
                raise ConfigError(f"There is no part {part.name!r} of an index (in {text!r}); {hint}")
            if known <= place:
                raise ConfigError(f"{part.name!r} stands at a wrong place in the index {text!r}; {_WRITTEN}")
            spec, place = _joined(spec, part), known
        return spec

    def __str__(self) -> str:
        last = [f"refine({self.refine})"] if self.refine else []
        return " + ".join([*map(str, self.parts), *last])


def _part(piece: str, text: str) -> Part:
    if match := re.fullmatch(r"refine\s*(?:\(\s*(\w*)\s*\))?", piece):
        return Part("refine", {"by": match[1] or "flat"})
    try:
        read = parse_spec(piece, kind="index")
    except ConfigError as error:
        if piece == text.strip():
            raise
        raise ConfigError(f"{error} (in {text!r})") from error
    if read.argument:
        raise ConfigError(f"{piece!r} is no part of an index; write for example 'hnsw(m=32)' or 'ivf + pq(m=16)'")
    params = {name: _value(value) for name, value in read.options.items()}
    if read.name == "pq" and params.get("bits") == 4:  # which no processor reads faster than as a fast scan
        return Part("pq4fs", {name: value for name, value in params.items() if name != "bits"})
    return Part(read.name, params)


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _joined(spec: IndexSpec, part: Part) -> IndexSpec:
    if part.name in _ROTATIONS:
        return replace(spec, rotation=part)
    if part.name in CODES:
        return replace(spec, codes=part)
    if part.name == "refine":
        return replace(spec, refine=str(part.params["by"]))
    return replace(spec, family=part.name, params=part.params)


def lists_of(part: Part, rows: int, *, unknown: int = 1, most: int = 1_000_000) -> int:
    """How many lists an inverted file has: 0 or ``auto`` asks for four times the root of its rows.

    `unknown`: how many, if the rows are yet to come. Raises ConfigError for more lists than rows.
    """
    lists = part.number("nlist", 0, 0, most)
    if rows and lists > rows:
        raise ConfigError(
            f"nlist={lists} of the index {str(part)!r} is more than the {rows} vectors that there are; "
            "write nlist=auto, or ingest more first"
        )
    return lists or (min(max(1, round(4 * rows**0.5)), rows, most) if rows else unknown)


def ef_under_filter(ef: int, k: int, share: float) -> int:
    """Rows that a walk through a graph keeps in view under a filter that admits a share of them.

    The k nearest of those are, if the filter knows nothing of distances, among the nearest ``k / share`` of all; so it
    sees twice as many more.
    """
    return math.ceil(ef + 2 * k * (1 / max(share, _LEAST_SHARE) - 1))


def nprobe_under_filter(nprobe: int, share: float) -> int:
    """Lists that are looked through under a filter that admits a share of the rows.

    Those that are looked for lie farther away, though not by as much as they are fewer: in few dimensions already
    there is much more room in a ball that is a little larger.
    """
    return math.ceil(nprobe / math.sqrt(max(share, _LEAST_SHARE)))


def pieces_of(part: Part, dim: int, wanted: int) -> int:
    """Into how many equal pieces codes cut a vector, near the wanted number by default.

    Raises ConfigError where they would not be equal.
    """
    divisors = [one for one in range(1, dim + 1) if dim % one == 0]
    pieces = part.number("m", min(divisors, key=lambda one: (abs(one - wanted), -one)), 1, 32_768)
    if dim % pieces:
        near = sorted(sorted(divisors, key=lambda one: abs(one - pieces))[:3])
        raise ConfigError(
            f"m={pieces} of {str(part)!r} does not cut the {dim} dimensions into equal pieces; "
            f"the nearest that do: {', '.join(map(str, near))}"
        )
    return pieces


def nearest_shapes(shape: str, known: Sequence[str]) -> list[str]:
    """Of the shapes that a backend has, the one or two that come nearest to one it lacks.

    >>> nearest_shapes("opq + ivf + pq", ["flat", "hnsw", "ivf", "ivf + sq8", "ivf + pq"])
    ['ivf + pq']
    >>> nearest_shapes("diskann", ["flat", "hnsw", "ivf"])
    ['hnsw']
    """
    names = shape.split(" + ")
    if not set(names) & _PLACES.keys():
        return difflib.get_close_matches(shape, known, n=2, cutoff=0.4)
    wanted = {_KIN.get(name, name) for name in names}

    def likeness(one: str) -> tuple[int, int]:
        has = {_KIN.get(name, name) for name in one.split(" + ")}
        return len(wanted & has), -len(has - wanted)

    best = max(known, key=likeness)
    return [best if likeness(best)[0] or "flat" not in known else "flat"]


@dataclass(frozen=True, slots=True)
class SearchParams:
    """Knobs at query time; None leaves the default. More costs time and buys recall; an index ignores what it lacks.

    `ef`: rows that a walk through a graph keeps in view. `nprobe`: lists of an inverted file that are looked through.
    `k_factor`: times as many hits as are asked for that the vectors themselves put in order. `ht`: bits in which
    polysemous codes may differ to be looked at.
    """

    ef: int | None = None
    nprobe: int | None = None
    k_factor: int | None = None
    ht: int | None = None

    @classmethod
    def of(cls, given: Mapping[str, object]) -> SearchParams:
        """From names and whole numbers, which may be text. Raises BadInput, with the nearest names.

        >>> SearchParams.of({"ef": "128"}).as_dict()
        {'ef': 128}
        """
        known = [one.name for one in fields(cls)]
        read: dict[str, int] = {}
        for name, value in given.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=2)
                hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
                raise BadInput(f"A search has no parameter {name!r}; {hint}")
            text = str(value)
            if isinstance(value, bool) or not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
                raise BadInput(f"{name}={value} of a search is not a whole number of 1 to 1000000")
            read[name] = int(text)
        return cls(**read)

    def as_dict(self) -> dict[str, int]:
        """What is set."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, defaults: Mapping[str, int]) -> SearchParams:
        """These, and the defaults where they say nothing."""
        return SearchParams(**{**defaults, **self.as_dict()})
