"""All plots of a run into one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedkit.errors import BadInput, ConfigError
from embedkit.training.datasets.contract import Split
from embedkit.training.evaluation.hashing import hashing_scores
from embedkit.training.evaluation.nearest import unit
from embedkit.training.plots.codes import draw_codes
from embedkit.training.plots.curves import draw_curves
from embedkit.training.plots.distances import draw_distances
from embedkit.training.plots.map import write_map
from embedkit.training.plots.mistakes import draw_mistakes

if TYPE_CHECKING:
    from embedkit.types import FloatArray

__all__ = ["write_plots"]

_FOLDER = "plots"  # a folder of that name belongs to the run that its parent is named after


def write_plots(
    folder: Path,
    *,
    history: Sequence[Mapping[str, Any]],
    split: Split,
    vectors: FloatArray,
    codes: bool = False,
    seed: int = 0,
    limit: int = 4_000,
) -> tuple[Path, ...]:
    """Write ``curves.png``, ``distances.png``, ``mistakes.png`` and ``map.html``; their paths.

    `history`: lines of steps (``step``, ``epoch``, ``seconds``, ``loss``, ``rate``) and of validations (``metrics`` in
    place of the last two). `vectors`: (n, dim), a row for each picture of `split`; if they are `codes` of ±1,
    ``codes.png`` as well. At most `limit` pictures are on the
    map. The same arguments give the same files. Raises BadInput, ConfigError, MissingExtra.
    """
    if len(vectors) != len(split):
        raise BadInput(f"Plots need a vector for each picture; there are {len(vectors)} for {len(split)}")
    if limit < 1:
        raise ConfigError(f"A map has room for 1 picture at least, not {limit}; take a larger limit")
    raw, vectors = vectors, unit(vectors)
    run = folder.resolve().parent.name if folder.name == _FOLDER else folder.resolve().name
    paths = tuple(folder / name for name in ("curves.png", "distances.png", "mistakes.png", "map.html"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draw_curves(paths[0], history)
        if codes:
            paths = (*paths, folder / "codes.png")
            draw_codes(paths[-1], hashing_scores(raw, split.labels).curves)
        draw_distances(paths[1], vectors, split.labels, seed=seed)
        draw_mistakes(paths[2], split, vectors)
        write_map(paths[3], split, vectors, run=run, seed=seed, limit=limit)
    except OSError as error:
        raise ConfigError(f"The plots cannot be written to {str(folder)!r}: {error.strerror or error}") from error
    return paths
