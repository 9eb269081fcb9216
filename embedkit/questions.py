"""From what a search is asked by to queries: which view each part asks, and the vector that it asks with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from embedkit.arguments import check_kind
from embedkit.codes import packed
from embedkit.errors import BadImage, BadInput
from embedkit.search.exact import Query
from embedkit.search.query import Asked
from embedkit.search.sketches import warn_unless_trained
from embedkit.search.wanted import checked_weights
from embedkit.search.words import Keywords, check_text, words_of
from embedkit.urls import redact
from embedkit.views import encoder_of, named_view

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from embedkit.encoders.contract import Encoder
    from embedkit.metadata.rows import CollectionRow, ViewRow
    from embedkit.resources import Resources
    from embedkit.types import ByteArray, Modality, Question, VectorArray

__all__ = ["asked_by"]

_BATCH = 32  # pictures or texts that are encoded together

_LACKING: Mapping[str, tuple[str, str, str]] = {  # modality: what is lacking, what an encoder cannot, what to do
    "text": (
        "texts",
        "reads no text",
        "for words ingest a view title=minilm into a collection of another name, or take an encoder of both for image: "
        "an exported CLIP, or a run of embedkit train --task image-text",
    ),
    "image": (
        "pictures",
        "takes no pictures",
        "for pictures ingest a view image=effnet-lite0 into a collection of another name",
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A part of a question and the view that it asks. `modality`: of what is yet to be encoded, None of a vector.

    `given`: that, or the id of a stored vector. `named`: the picture as it was given, or the product, for a message.
    `relaxed`: numbers are asked by, not the code of their signs.
    """

    view: ViewRow
    weight: float
    given: VectorArray | str | bytes | Image | int
    modality: Modality | None = None
    named: object = None
    relaxed: bool = False


def asked_by(
    resources: Resources,
    row: CollectionRow,
    questions: Sequence[Question],
    *,
    view: str | None,
    rerank: str | None,
    weights: Mapping[str, float] | None,
) -> list[Asked]:
    """What questions ask of a collection's views; what is to be encoded or looked up is so for all of them together.

    The arguments are those of `Collection.search`. Raises BadImage, BadInput, EncoderMismatch, FetchFailed,
    FetchTimeout.
    """
    shares = checked_weights(weights, _parts_of(questions))
    planned: list[tuple[_Planned, list[_Part], list[_Part] | None]] = []
    keys = [question.product for question in questions if question.product is not None]
    stored = resources.store.vector_ids_of(row.id, keys) if keys else {}
    for question in questions:
        one = _Planned(resources, row, question, shares, stored)
        parts = one.parts(view, but=rerank)
        again = None if rerank is None else one.again(rerank, parts)
        planned.append((one, [] if again and again[0].relaxed else parts, again))
    queries = iter(_encoded(resources, row, [part for _, parts, again in planned for part in [*parts, *(again or ())]]))
    asked = []
    for one, parts, again in planned:
        first = [next(queries) for _ in parts]
        last = None if again is None else [next(queries) for _ in again]
        if last and not first:  # the codes of the numbers that decide
            first = [replace(query, vector=packed(query.vector[None])[0]) for query in last]
        asked.append(Asked(first, one.keywords(), one.question.product, last))
    return asked


def _parts_of(questions: Sequence[Question]) -> set[str]:
    """What is asked by, of all questions."""
    return {one.name for question in questions for one in fields(question) if getattr(question, one.name) is not None}


def _encoded(resources: Resources, row: CollectionRow, parts: Sequence[_Part]) -> list[Query]:
    """A query for each part; a network is given all things of one kind that are asked of it in batches, each once."""
    vectors: dict[_Part, object] = {part: part.given for part in parts if part.modality is None}
    vectors.update(_fetched(resources, parts))
    encoders = {part.view.name: encoder_of(resources, row.name, part.view) for part in parts if part.modality}
    together: dict[tuple[int, Modality], dict[int, list[_Part]]] = {}
    for part in parts:
        if part.modality is not None:
            network = id(encoders[part.view.name].network)
            together.setdefault((network, part.modality), {}).setdefault(id(part.given), []).append(part)
    for things in together.values():
        every = list(things.values())
        for start in range(0, len(every), _BATCH):
            vectors.update(_made(every[start : start + _BATCH], encoders))
    return [Query(part.view, cast("VectorArray", vectors[part]), part.weight) for part in parts]


def _made(things: Sequence[Sequence[_Part]], encoders: Mapping[str, Encoder]) -> dict[_Part, VectorArray]:
    """The vectors by which parts ask of one network. `things`: the parts that ask by the same picture or text."""
    network = encoders[things[0][0].view.name].network
    batch = (
        [str(same[0].given) for same in things]
        if things[0][0].modality == "text"
        else np.stack([_pixels(network, same[0]) for same in things])
    )
    asking = {(part.view.name, part.relaxed): encoders[part.view.name] for same in things for part in same}
    first, *others = asking.values()
    if all(encoder is first for encoder in others) and not any(relaxed for _, relaxed in asking):
        rows = dict.fromkeys(asking, first.encode(batch))  # not every encoder knows its numbers
    else:
        numbers = network.numbers(batch)
        rows = {one: numbers if one[1] else encoder.vectors_of(numbers) for one, encoder in asking.items()}
    return {part: rows[part.view.name, part.relaxed][place] for place, same in enumerate(things) for part in same}


def _fetched(resources: Resources, parts: Sequence[_Part]) -> dict[_Part, VectorArray]:
    """The stored vectors by which parts ask. Raises BadInput."""
    stored: dict[str, dict[_Part, int]] = {}
    for part in parts:
        if isinstance(part.given, int):
            stored.setdefault(part.view.physical, {})[part] = part.given
    found: dict[_Part, VectorArray] = {}
    for physical, asked in stored.items():
        fetched = resources.backend.fetch(physical, np.unique(list(asked.values())))
        rows = dict(zip(fetched.ids.tolist(), fetched.vectors, strict=True))
        for part, vector_id in asked.items():
            if vector_id not in rows:
                raise _no_vector(str(part.named), part.view)
            found[part] = rows[vector_id]
    return found


def _no_vector(key: str, view: ViewRow) -> BadInput:
    return BadInput(f"The product {key!r} has no vector in the view {view.name!r}")


def _pixels(encoder: Encoder, part: _Part) -> ByteArray:
    try:
        return encoder.prepare(cast("bytes | Image", part.given))
    except BadImage as error:
        if isinstance(part.named, str | Path):
            raise BadImage(f"{redact(str(part.named))}: {error}") from error
        raise


class _Planned:
    """A search's question, of one part or of several. Pictures are read once, however many views they ask.

    `stored`: the live vectors of the products that are asked by, ``{key: {slot: id}}``.
    """

    def __init__(
        self,
        resources: Resources,
        row: CollectionRow,
        question: Question,
        shares: Mapping[str, float],
        stored: Mapping[str, Mapping[str, int]],
    ) -> None:
        self._resources, self._row, self._shares, self._ids = resources, row, shares, stored
        self.question = question
        if question.text is not None:
            check_text(question.text)
        self._pictures = {
            part: (given, self._picture_bytes(given))
            for part, given in (("image", question.image), ("sketch", question.sketch))
            if given is not None
        }

    def keywords(self) -> Keywords | None:
        """The words that titles are searched for. Raises BadInput."""
        if self.question.keywords is None:
            return None
        return Keywords(words_of(self.question.keywords), self._shares.get("keywords", 1.0))

    def parts(self, view: str | None, *, but: str | None = None) -> list[_Part]:
        """A part for each view that is asked: the one that is named, else the first that fits it and is not `but`.

        Raises BadInput, EncoderMismatch.
        """
        found: list[_Part] = []
        question = self.question
        if question.vector is not None:
            chosen = named_view(self._row, view) if view else self._views(but)[0]
            found.append(_Part(chosen, self._share("vector"), _checked_vector(question.vector)))
        for part, (named, given) in self._pictures.items():
            chosen = self._view_for("image", view if question.text is None else None, but)
            found.append(_Part(chosen, self._share(part), given, "image", named))
            if part == "sketch" and chosen.encoder not in self._resources.sketched:
                self._resources.sketched.add(chosen.encoder)
                warn_unless_trained(chosen.encoder)
        if question.text is not None:
            chosen = self._view_for("text", None if self._pictures else view, but)
            found.append(_Part(chosen, self._share("text"), question.text, "text"))
        if question.product is not None:
            chosen, vector_id = self._stored(question.product, view, but)
            found.append(_Part(chosen, self._share("product"), vector_id, named=question.product))
        return found

    def again(self, rerank: str, searched: Sequence[_Part]) -> list[_Part]:
        """The same question for the view that puts candidates in order. Raises BadInput where that cannot be.

        A view of codes that is `searched` itself puts them in order by the numbers of which its bits are the signs.
        """
        chosen = named_view(self._row, rerank)
        same = any(part.view.name == rerank for part in searched)
        if same and chosen.kind != "binary":
            raise BadInput(f"rerank={rerank!r} is the view that is searched; name another one, or leave it out")
        if same and self.question.product is not None:
            raise BadInput(
                f"Of the product {self.question.product!r} the view {rerank!r} holds the code alone, and cannot rerank "
                "by it; search by its picture or words, or name a view of floats"
            )
        if self.question.vector is not None:
            raise BadInput(
                f"A vector asks one view and cannot rerank by {rerank!r}; search by a picture, words or a product"
            )
        if self._pictures and self.question.text is not None:
            raise BadInput("Pictures and words together are scored exactly as they are; leave out rerank")
        parts = self.parts(rerank)
        if self.question.keywords is not None and not parts:
            raise BadInput(f"Keywords have no vector and cannot rerank by {rerank!r}; add a text, or leave it out")
        return [replace(part, relaxed=True) for part in parts] if same else parts

    def _share(self, part: str) -> float:
        return self._shares.get(part, 1.0)

    def _views(self, but: str | None) -> list[ViewRow]:
        """The views, without the one that only puts candidates in order, unless it is the only one."""
        return [view for view in self._row.views if view.name != but] or list(self._row.views)

    def _view_for(self, modality: Modality, name: str | None, but: str | None) -> ViewRow:
        """The view that a picture or words ask: one of their kind, or another whose encoder takes both (CLIP).

        Raises BadInput.
        """
        views, collection = self._views(but), self._row.name
        own = [view for view in views if view.modality == modality]
        for view in [named_view(self._row, name)] if name else own or views:
            if view.modality == modality or modality in self._encoder(view).spec.modalities:
                return view
        other, lacks, take = _LACKING[modality]
        if name:
            held = "pictures" if modality == "text" else "texts"
            raise BadInput(f"The view {name!r} of {collection!r} holds {held}, and its encoder {lacks}; {take}")
        there = ", ".join(f"{view.name} ({_held(view)})" for view in views)
        beside = f" beside {but!r}, which reranks" if len(views) < len(self._row.views) else ""
        raise BadInput(f"{collection!r} has no view of {other}{beside}; it has {there}; {take}")

    def _encoder(self, view: ViewRow) -> Encoder:
        return encoder_of(self._resources, self._row.name, view)

    def _picture_bytes(self, image: str | Path | bytes | Image) -> bytes | Image:
        from PIL.Image import Image

        check_kind(image, str | Path | bytes | Image, "An image is a path, a URL, encoded bytes or a PIL picture")
        return self._resources.read(str(image)) if isinstance(image, str | Path) else image

    def _stored(self, key: str, view: str | None, but: str | None) -> tuple[ViewRow, int]:
        """The id of a product's own vector, and the view that it is of. Raises BadInput."""
        ids, views = self._ids.get(key, {}), self._views(but)
        chosen = named_view(self._row, view) if view else next((v for v in views if v.slot in ids), views[0])
        if chosen.slot not in ids:
            raise _no_vector(key, chosen)
        return chosen, ids[chosen.slot]


def _checked_vector(vector: npt.ArrayLike) -> VectorArray:
    """Floats, or the bytes of a code. Raises BadInput."""
    try:
        given = np.asarray(vector)
    except (TypeError, ValueError) as error:
        raise BadInput(f"A query vector is a row of numbers: {error}") from error
    if given.dtype.kind not in "iuf":
        raise BadInput(f"A query vector is a row of numbers, not {type(vector).__name__} of {given.dtype}")
    if given.ndim != 1:
        raise BadInput(f"A query vector has one dimension, not the shape {given.shape}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which the backend refuses in words
        array: VectorArray = given if given.dtype == np.uint8 else given.astype(np.float32, copy=False)
    return array


def _held(view: ViewRow) -> str:
    """What a view holds, in words."""
    made = f"codes of {view.dim} bits" if view.kind == "binary" else f"{view.dim} floats"
    return f"{made} of {'pictures' if view.modality == 'image' else 'texts'} by {view.encoder!r}"
