"""The part of `Collection` that knows its indexes: built, shown, tuned, and which one to choose."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, cast

from embedkit.arguments import check_kind
from embedkit.errors import BadInput
from embedkit.living.face import Living
from embedkit.urls import redact
from embedkit.views import encoder_of, named_view

if TYPE_CHECKING:
    from collections.abc import Callable

    from embedkit.backends.contract import IndexSpec
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.resources import Resources
    from embedkit.search.advise import Advice
    from embedkit.search.measure import AdviceProgress, Tuning
    from embedkit.search.rules import IndexAdvice
    from embedkit.search.state import IndexState
    from embedkit.types import Modality, VectorArray

__all__ = ["Indexed"]


class Indexed(Living):
    """What a collection can be told of its indexes, and asked."""

    def index(self, *, view: str | None = None) -> IndexState:
        """The index of a view, the first one if unset: what it is, how far it has come, what searches ask with."""
        from embedkit.search.state import index_state

        row = self._existing()
        return index_state(self._resources.backend, named_view(row, view) if view else row.views[0])

    def build_index(self, spec: IndexSpec | str, *, view: str | None = None) -> IndexState:
        """Build another index over a view, or over every view of the kind it is for; searches go on meanwhile.

        `spec`: as text, ``hnsw(m=32)`` or ``ivf(nlist=auto) + pq(m=16) + refine(flat)``. Rows that come later are
        scanned exactly beside it, until they are many; then they are added. Raises BadInput, ConfigError,
        UnsupportedByBackend, naming what is nearest.
        """
        from embedkit.backends.indexes import IndexSpec
        from embedkit.search.state import rebuilt

        row, resources = self._fresh(), self._resources
        check_kind(spec, IndexSpec | str, "An index is a spec or its text")
        parsed = spec if isinstance(spec, IndexSpec) else IndexSpec.parse(spec)
        first = named_view(row, view) if view else row.views[0]
        views = [first] if view else [one for one in row.views if one.kind == first.kind]
        rebuilt(resources.store, resources.backend, row, views, parsed)
        self._row = None
        return self.index(view=first.name)

    def tune(
        self,
        *,
        recall: float = 0.95,
        k: int = 10,
        queries: int = 500,
        questions: str | Path | None = None,
        view: str | None = None,
        keep: bool = True,
    ) -> Tuning:
        """Find the cheapest parameters by which the index finds a share of the k nearest; searches then ask with them.

        Measured by `queries` of the collection's own vectors, or codes, against an exact scan of all of them; of
        several at the distance of the k-th any will do. `questions`: a catalog, read as `ingest` does, of what people
        ask; as many of its pictures (of its titles, where the view is of texts, or it has no pictures and the encoder
        takes words) ask instead. An index finds a little less for them than for its own vectors. `keep` false leaves
        searches as they are; else those of other processes ask with them within a second, too. Raises BadInput, also
        where the index has no parameters, or has become another one meanwhile; BadSource.
        """
        from embedkit.search.measure import tuned
        from embedkit.search.state import keep_knobs

        _check_share(recall, k=k, queries=queries)
        check_kind(questions, str | Path | None, "A catalog of questions is a path or a URL")
        row, resources = self._fresh(), self._resources
        chosen = named_view(row, view) if view else row.views[0]
        asking = None if questions is None else partial(_asking, resources, row, chosen, str(questions), queries)
        found = tuned(
            resources.store, resources.backend, row, chosen, recall=recall, k=k, queries=queries, asking=asking
        )
        if keep and found.chosen is not None:
            keep_knobs(resources.store, row, chosen, found.chosen.params)
            self._row = None
        return found

    def advise(
        self,
        *,
        view: str | None = None,
        recall: float = 0.95,
        memory: int | str | None = None,
        latency: float | None = None,
        k: int = 10,
        sample: int = 20_000,
        queries: int = 500,
        progress: Callable[[AdviceProgress], None] | None = None,
    ) -> IndexAdvice:
        """Which indexes would do for `view`, the first of floats if unset: each built over a sample, and measured.

        `queries` vectors ask for their `k` nearest among `sample` others, whose exact neighbours are known; `recall` is
        the share of these that is wanted. `memory`: bytes, or text such as ``2GB``. `latency`: milliseconds of a query.
        `progress` is told before each index is built. Raises BadInput, CollectionNotFound.
        """
        from embedkit.search.measure import measured_advice
        from embedkit.search.rules import parse_bytes

        _check_share(recall, k=k, sample=sample, queries=queries)
        row, resources = self._fresh(), self._resources
        return measured_advice(
            resources.store,
            resources.backend,
            row,
            _of_floats(row, view),
            recall=recall,
            memory=None if memory is None else parse_bytes(memory),
            latency=latency,
            k=k,
            sample=sample,
            queries=queries,
            progress=progress,
        )

    def advise_codes(
        self,
        *,
        view: str | None = None,
        recall: float = 0.95,
        k: int = 10,
        sample: int = 20_000,
        queries: int = 500,
    ) -> Advice:
        """Which codes would do in the place of the floats of `view`, and how many candidates to rerank.

        Measured on the vectors of `sample` products, of which `queries` ask for their `k` nearest; `recall`: the share
        of these that is wanted. `view`: the first of floats, if unset. Raises BadInput, CollectionNotFound.
        """
        from embedkit.search.advise import advise_codes

        _check_share(recall, k=k, sample=sample, queries=queries)
        row, resources = self._fresh(), self._resources
        chosen = _of_floats(row, view)
        return advise_codes(
            resources.store, resources.backend, row, chosen, k=k, recall=recall, sample=sample, queries=queries
        )


def _check_share(recall: float, **numbers: int) -> None:
    """Raise BadInput unless it is a share, and the others are numbers of vectors."""
    check_kind(recall, Real, "recall is a share")
    if not 0 < recall <= 1:
        raise BadInput(f"recall={recall} is not a share; give more than 0 and at most 1")
    for name, value in numbers.items():
        check_kind(value, Integral, f"{name} is a whole number")
        if value < 1:
            raise BadInput(f"{name}={value} is not a number of vectors; give 1 or more")


def _of_floats(row: CollectionRow, view: str | None) -> ViewRow:
    return named_view(row, view) if view else next((v for v in row.views if v.kind == "float"), row.views[0])


def _asking(resources: Resources, row: CollectionRow, view: ViewRow, catalog: str, count: int) -> VectorArray:
    """The vectors ``(n, dim)``, or codes, of questions to a view. Raises BadInput where a catalog has none."""
    import numpy as np

    from embedkit.ingest.sample import sample_vectors
    from embedkit.ingest.sources.open import open_source

    encoder = encoder_of(resources, row.name, view)
    kinds: list[Modality] = [view.modality, *(one for one in encoder.spec.modalities if one != view.modality)]
    with closing(open_source(catalog)) as source:
        found = sample_vectors(source, encoder, kinds, count, settings=resources.settings.fetch)
    if found:
        return cast("VectorArray", np.stack(found))
    wanted = " and no ".join("picture that can be read" if one == "image" else "title" for one in kinds)
    raise BadInput(f"{redact(catalog)} has no {wanted}, by which the view {view.name!r} could be asked")
