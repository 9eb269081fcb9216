"""The parameters of a search: those of the call, over those that a view was tuned to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from embedkit.arguments import check_kind
from embedkit.backends.contract import Capabilities, IndexSpec, SearchParams
from embedkit.errors import BadInput
from embedkit.metadata.rows import ViewRow

__all__ = ["checked_params", "over_tuned"]


def checked_params(
    given: SearchParams | Mapping[str, object] | None, views: Iterable[ViewRow], able: Capabilities
) -> SearchParams | None:
    """The knobs of a search of some views. Raises BadInput for an unknown one, and for one that none of them heeds."""
    if given is None:
        return None
    check_kind(given, SearchParams | Mapping, "params are SearchParams or a mapping such as {'ef': 128}")
    params = SearchParams.of(given.as_dict() if isinstance(given, SearchParams) else given)
    searched = {view.index: IndexSpec.parse(view.index) for view in views}
    heeded = {knob for spec in searched.values() for knob in spec.knobs(rescores=able.rescores)}
    for name in params.as_dict():
        if searched and name not in heeded:
            has = f"it heeds {', '.join(sorted(heeded))}" if heeded else "it is searched exactly and heeds none"
            raise BadInput(f"{name} means nothing to the index {' and '.join(map(repr, searched))}; {has}")
    return params


def over_tuned(view: ViewRow, params: SearchParams | None) -> SearchParams:
    """What is asked of a view: the parameters of the call, and where they say nothing those that it was tuned to."""
    return (params or SearchParams()).over(view.knobs)
