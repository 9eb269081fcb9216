"""``emoji-zs``: each emoji as four vendors draw it; a small cousin of Stanford Online Products.

Its pictures come from the npm packages ``emoji-datasource-apple``, ``-google``, ``-twitter`` and ``-facebook``, 16.0.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.tree import Tree

__all__ = ["read_emoji"]

_VENDORS = ("apple", "google", "twitter", "facebook")
_SEED = 0


def read_emoji(tree: Tree) -> DataSet:
    """Rows of ``emoji.json`` by ``sort_order``, permuted; the first half trains, the second half is judged.

    Transparent pictures lie on white, as everywhere. The vendors may be unpacked side by side, or into one folder.
    """
    homes = {vendor: _home(tree, vendor) for vendor in _VENDORS}
    absent = [vendor for vendor, home in homes.items() if home is None]
    if absent:
        raise BadSource(
            f"{str(tree.root)!r} has no pictures (img/VENDOR/64) of {', '.join(absent)}; see what belongs "
            "there with: embedkit datasets check PATH --name emoji-zs"
        )
    home = homes[_VENDORS[0]] or ""
    emojis = _emojis(tree, f"{home.rpartition('/img/')[0]}/emoji.json")
    order = np.random.default_rng(_SEED).permutation(len(emojis))
    middle = len(emojis) // 2
    builder = Builder(tree)
    names: dict[int | str, str] = {place: emojis[row]["short_name"] for place, row in enumerate(order)}
    rows = [
        Row(f"{homes[vendor]}/{emojis[emoji]['image']}", place)
        for place, emoji in enumerate(order)
        for vendor in _VENDORS
        if emojis[emoji].get(f"has_img_{vendor}")
    ]
    train = builder.train([row for row in rows if int(row.label) < middle], names=names)
    query = builder.train([row for row in rows if int(row.label) >= middle], names=names)
    return DataSet("emoji-zs", "zero-shot", train, query, missing=tuple(builder.missing))


def _home(tree: Tree, vendor: str) -> str | None:
    """The folder with a vendor's pictures: unpacked by npm or tar, under the package's name or not."""
    names = [name for name in tree.folders() if f"emoji-datasource-{vendor}" in name]
    heads = [f"{name}/{inner}" for name in names for inner in ("package/", "")]
    heads += [f"node_modules/emoji-datasource-{vendor}/", "package/", ""]
    return next((f"{head}img/{vendor}/64" for head in heads if tree.find(f"{head}img/{vendor}/64")), None)


def _emojis(tree: Tree, path: str) -> list[dict[str, Any]]:
    values = tree.json(path)
    try:
        found: list[dict[str, Any]] = sorted(values, key=lambda one: int(one["sort_order"]))
        if not all(isinstance(one["image"], str) and isinstance(one["short_name"], str) for one in found):
            raise ValueError("an image or a short_name is no text")
    except (KeyError, TypeError, ValueError) as error:
        raise BadSource(f"{path}: it is not the emoji.json of emoji-datasource: {error!r}") from error
    return found
