"""Hypothesis strategies for attributes and filters, made to meet each other often."""

from __future__ import annotations

from hypothesis import strategies as st

from embedkit.filters import And, Compare, Filter, In, IsNull, Like, Not, Or

__all__ = ["PATHS", "attributes", "filters"]

PATHS = (
    ("price",),
    ("brand",),
    ("flag",),
    ("sizes", "eu"),
    ("sizes",),
    ("mixed",),
    ("title",),
    ("never",),
    ("odd name",),
)
_TEXTS = (
    "",
    "a",
    "acme",
    "acme shoes",
    "A",
    "zeta",
    "12",
    "größe",
    "東京",
    "50%",
    "under_score",
    "quo'te",
    'dou"ble',
    "back\\slash",
)
_NUMBERS = (0, 1, -1, 2, 2.5, 12, 80, 1e-9, 1e-10, -7.25, 1_000_000)

_texts = st.sampled_from(_TEXTS)
_numbers = st.sampled_from(_NUMBERS)
_scalars = st.one_of(_texts, _numbers, st.booleans(), st.none())
_values = st.one_of(_texts, _numbers, st.booleans())
_paths = st.sampled_from(PATHS)


def attributes() -> st.SearchStrategy[dict[str, object]]:
    """Columns of one row, some missing, some null, one of no fixed type."""
    return st.fixed_dictionaries(
        {"title": st.one_of(_texts, st.none())},
        optional={
            "price": st.one_of(_numbers, st.none()),
            "brand": _texts,
            "flag": st.booleans(),
            "sizes": st.one_of(
                st.fixed_dictionaries({}, optional={"eu": _scalars}), st.lists(_scalars, max_size=2), st.none()
            ),
            "mixed": st.one_of(_scalars, st.lists(_scalars, max_size=2), st.just({"eu": 1})),
            "odd name": _numbers,
        },
    )


def _leaves() -> st.SearchStrategy[Filter]:
    patterns = st.one_of(
        st.sampled_from(("%", "a%", "acme%", "%shoes", "%c%", "_", "50\\%", "under\\_%", "ac_e%", "größ%", "12%")),
        _texts,
    )
    return st.one_of(
        st.builds(Compare, _paths, st.sampled_from(("==", "!=")), _values),
        st.builds(Compare, _paths, st.sampled_from(("<", "<=", ">", ">=")), st.one_of(_texts, _numbers)),
        st.builds(In, _paths, st.lists(_values, max_size=3).map(tuple)),
        st.builds(Like, _paths, patterns),
        st.builds(IsNull, _paths),
    )


def filters() -> st.SearchStrategy[Filter]:
    """Trees of every node type."""
    return st.recursive(
        _leaves(),
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
        ),
        max_leaves=6,
    )
