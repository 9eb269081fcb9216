"""``emoji-zs``: each emoji as four vendors draw it; a small cousin of Stanford Online Products.

``emoji-captions`` is the same with what ``emoji.json`` says of each emoji as its captions. The pictures come from the
npm packages ``emoji-datasource-apple``, ``-google``, ``-twitter`` and ``-facebook``, 16.0.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedkit.errors import BadSource
from embedkit.training.datasets.build import Builder, Row, captioned, numbering
from embedkit.training.datasets.contract import DataSet
from embedkit.training.datasets.tree import Tree

__all__ = ["captions", "read_emoji", "read_emoji_captions"]

_VENDORS = ("apple", "google", "twitter", "facebook")
_SEED = 0


def read_emoji(tree: Tree) -> DataSet:
    """Rows of ``emoji.json`` by ``sort_order``, permuted; the first half trains, the second half is judged.

    Transparent pictures lie on white, as everywhere. The vendors may be unpacked side by side, or into one folder.
    """
    return _read(tree, "emoji-zs")


def read_emoji_captions(tree: Tree) -> DataSet:
    """The halves of `read_emoji`. A caption belongs to all pictures of its emoji, whoever drew them."""
    return _read(tree, "emoji-captions")


def _read(tree: Tree, name: str) -> DataSet:
    homes = {vendor: _home(tree, vendor) for vendor in _VENDORS}
    absent = [vendor for vendor, home in homes.items() if home is None]
    if absent:
        raise BadSource(
            f"{str(tree.root)!r} has no pictures (img/VENDOR/64) of {', '.join(absent)}; see what belongs "
            f"there with: embedkit datasets check PATH --name {name}"
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
    halves = [[row for row in rows if int(row.label) < middle], [row for row in rows if int(row.label) >= middle]]
    train, query = (builder.train(half, names=names) for half in halves)
    if name == "emoji-zs":
        return DataSet(name, "zero-shot", train, query, missing=tuple(builder.missing))
    texts = [{new: captions(emojis[order[int(old)]]) for old, new in numbering(half).items()} for half in halves]
    train, query = captioned(train, texts[0]), captioned(query, texts[1])
    return DataSet(name, "image-text", train, query, missing=tuple(builder.missing))


def captions(emoji: Mapping[str, Any]) -> tuple[str, ...]:
    """Two captions: the name; and the name with the short names that differ, the sub-category and the category.

    >>> captions({"name": "NERD FACE", "short_names": ["nerd_face"], "category": "Smileys"})
    ('nerd face', 'nerd face (smileys)')
    """
    known = [emoji.get("name") or emoji["short_name"], *emoji.get("short_names", ())]
    names = list(dict.fromkeys(_plain(one) for one in known))
    kinds = [_plain(emoji[key]) for key in ("subcategory", "category") if emoji.get(key)]
    return tuple(dict.fromkeys([names[0], ", ".join(names) + (f" ({', '.join(kinds)})" if kinds else "")]))


def _plain(text: str) -> str:
    """In lower case, with spaces between words."""
    return " ".join(text.replace("_", " ").replace("-", " ").lower().split())


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
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadSource(f"{path}: it is not the emoji.json of emoji-datasource: {error!r}") from error
    return found
