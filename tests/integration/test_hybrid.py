"""Several vectors and words in one answer, groups, diversity, pages, ranges and batches, against plain NumPy."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

import embedkit
from embedkit import Question
from embedkit.errors import BadInput, DimensionMismatch, UnknownName
from tests.made import fill, product, unit, write

COUNT, COLOURS, THINGS = 80, ("red", "green", "blue"), ("shoe", "bag")
IMAGES, TITLES = unit(COUNT, 16, seed=1), unit(COUNT, 16, seed=2)
TITLES[[3, 4, 50]] = np.nan  # these have no vector of a title
CODES = np.random.default_rng(3).integers(0, 256, (COUNT, 4), np.uint8)
NUMBERS = np.random.default_rng(4)
SELLERS = NUMBERS.choice(["acme", "beta", "zeta", "nu"], COUNT, p=[0.7, 0.2, 0.05, 0.05])
ROWS = [
    product(n, f"{COLOURS[n % 3]} {THINGS[n % 2]} {'leather ' * (n % 5)}{n}", price=n, seller=str(SELLERS[n]))
    for n in range(COUNT)
]
ASK = unit(4, 16, seed=5)
WHERE, ADMITTED = "price < 60", np.arange(COUNT) < 60


@pytest.fixture(scope="module", params=["faiss", "milvus"])
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    backend = f"faiss:///{folder}/faiss" if request.param == "faiss" else f"milvus:///{folder}/lite.db"
    with embedkit.connect(backend=backend, home=folder / "home") as kit:
        yield kit


@pytest.fixture(scope="module")
def there(opened):
    return fill(opened, "mixed", ROWS, {"image": IMAGES, "title": TITLES, "code": CODES})


@pytest.fixture(scope="module")
def measured(opened):
    return fill(opened, "measured", ROWS, {"image": 3 * IMAGES}, metric="l2")


def places(hits):
    return [int(hit.key[1:]) for hit in hits]


def best(scores, among=ADMITTED):
    """The rows of the highest scores, best first, without those that have none."""
    order = np.argsort(-np.where(among & ~np.isnan(scores), scores, -np.inf), kind="stable")
    return [int(row) for row in order if among[row] and not np.isnan(scores[row])]


BOTH = {"vector": ASK[0], "keywords": "blue leather"}


def test_reciprocal_ranks_join_a_vector_and_keywords(there):
    by_words = places(there.search(keywords="blue leather", k=COUNT, where=WHERE))
    by_vector = best(IMAGES @ ASK[0])
    scores = np.zeros(COUNT)
    for ranking, weight in ((by_vector, 1.0), (by_words, 0.5)):
        for rank, row in enumerate(ranking, 1):
            scores[row] += weight / (60 + rank)
    found = there.search(**BOTH, fusion="rrf", weights={"keywords": 0.5}, where=WHERE, k=20)
    assert places(found) == best(scores)[:20]
    assert [hit.score for hit in found] == pytest.approx(sorted(scores, reverse=True)[:20])
    assert {hit.view for hit in found} == {"image+keywords"}
    assert there.get(found[0].key) == found[0].product


def test_weighted_scores_add_the_cosine_and_the_share_of_the_best_keywords(there):
    words = {place: hit.score for hit in there.search(keywords="blue leather", k=COUNT) for place in places([hit])}
    top = max(score for place, score in words.items() if ADMITTED[place])
    scores = IMAGES @ ASK[0] * 0.8 + 0.3 * np.array([words.get(row, 0) / top for row in range(COUNT)])
    found = there.search(**BOTH, weights={"vector": 0.8, "keywords": 0.3}, where=WHERE, k=20)
    assert places(found) == best(scores)[:20]
    assert [hit.score for hit in found] == pytest.approx([scores[row] for row in best(scores)[:20]], abs=1e-5)


def test_only_what_the_keywords_find_has_no_vector(there):
    found = there.search(keywords="red", k=5)
    assert {hit.view for hit in found} == {"keywords"}
    assert {hit.vector_id for hit in found} == {-1}
    assert there.search(keywords="nowhere") == []
    joined = there.search(vector=ASK[0], keywords="nowhere", k=5)
    assert places(joined) == best(IMAGES @ ASK[0], np.full(COUNT, True))[:5]


@pytest.mark.parametrize("view", ["image", "code", "title"])
def test_one_hit_a_group_and_so_many_rows_as_that_takes(there, view):
    asked = {"image": ASK[0], "title": ASK[1], "code": CODES[9]}[view]
    every = there.search(vector=asked, view=view, k=COUNT)
    firsts = {}
    for hit in every:
        firsts.setdefault(hit.product.attributes["seller"], hit)
    found = there.search(vector=asked, view=view, group_by="seller", k=4)
    assert found == list(firsts.values())
    assert len(found) == 4  # though seven rows of ten are of one seller
    assert there.search(vector=asked, view=view, group_by="seller", k=9) == found
    assert len(there.search(vector=asked, view=view, group_by="key", k=9)) == 9
    with pytest.raises(BadInput, match=r"No product of .* has the attribute 'seler'; did you mean 'seller'"):
        there.search(vector=asked, view=view, group_by="seler", k=9)
    with pytest.raises(BadInput, match=r"has the attribute 'seller\.name'"):
        there.search_many([Question(vector=asked)], view=view, group_by="seller.name")


def test_groups_of_words_and_of_fused_answers(there):
    for question in ({"keywords": "leather"}, BOTH, {**BOTH, "fusion": "rrf"}):
        every = there.search(**question, k=COUNT)
        firsts = {}
        for hit in every:
            firsts.setdefault(hit.product.attributes["seller"], hit)
        assert there.search(**question, group_by="seller", k=4) == list(firsts.values())


def spread(relevance, alike, count, diversity):
    """Maximal marginal relevance (Carbonell and Goldstein 1998), its sum written as in the paper."""
    chosen = []
    while len(chosen) < count:
        left = [row for row in range(len(relevance)) if row not in chosen and np.isfinite(relevance[row])]
        worth = [
            (1 - diversity) * relevance[row] - diversity * max((alike[row, one] for one in chosen), default=0)
            for row in left
        ]
        chosen.append(left[int(np.argmax(worth))])
    return chosen


@pytest.mark.parametrize("diversity", [0.3, 0.8])
def test_hits_are_spread_out_by_their_stored_vectors(there, measured, diversity):
    relevance = np.where(ADMITTED, IMAGES @ ASK[0], -np.inf)
    right = spread(relevance, IMAGES @ IMAGES.T, 12, diversity)
    found = there.search(vector=ASK[0], view="image", where=WHERE, diversity=diversity, k=12)
    assert places(found) == right
    assert [hit.score for hit in found] == pytest.approx(relevance[right], abs=1e-5)

    bits = (1 - 2 * np.unpackbits(CODES[:, None] ^ CODES[None], axis=2).sum(axis=2) / 32).astype(float)
    found = there.search(vector=CODES[5], view="code", diversity=diversity, k=6)
    assert places(found)[0] == 5
    relevances = bits[5]
    for step, hit in enumerate(found):  # equal distances leave the order open, the gain does not
        chosen = places(found[:step])
        gain = [
            (1 - diversity) * relevances[row] - diversity * max((bits[row, one] for one in chosen), default=0)
            for row in range(COUNT)
        ]
        assert gain[int(hit.key[1:])] == pytest.approx(max(np.delete(gain, chosen)))

    squares = -np.square(3 * IMAGES[:, None] - 3 * IMAGES[None]).sum(axis=2)
    near = -np.square(3 * IMAGES - ASK[0]).sum(axis=1)
    found = measured.search(vector=ASK[0], diversity=diversity, k=8)
    assert places(found) == spread(near, squares, 8, diversity)


def test_a_fused_answer_is_spread_out_in_every_view_that_was_asked(there):
    codes = (1 - 2 * np.unpackbits(CODES[:, None] ^ CODES[None], axis=2).sum(axis=2) / 32).astype(float)
    every = there.search(product="p0009", view="code", k=COUNT)
    assert len(every) == COUNT - 1
    found = there.search(product="p0009", keywords="leather", view="code", diversity=0.5, k=5)
    scores = {place: hit.score for hit in there.search(product="p0009", keywords="leather", view="code", k=79)
              for place in places([hit])}  # fmt: skip
    relevance = np.array([scores.get(row, -np.inf) for row in range(COUNT)])
    chosen = []
    for place in places(found):
        gain = [
            0.5 * relevance[row] - 0.5 * max((codes[row, one] for one in chosen), default=0) for row in range(COUNT)
        ]
        assert gain[place] == pytest.approx(max(np.delete(gain, chosen)))
        chosen.append(place)


def test_by_distance_a_product_without_a_vector_is_as_far_as_the_farthest(opened):
    """Its place is neither the first, as a distance of 0 would have it, nor is it alike to every other one."""
    images = 3 * IMAGES[:20]
    images[[3, 4]] = np.nan
    apart = fill(opened, "apart", [product(n, "lamp") for n in range(20)], {"image": images}, metric="l2")
    near = -np.square(images - ASK[0]).sum(axis=1)
    near[[3, 4]] = np.nanmin(near)
    found = apart.search(vector=ASK[0], keywords="lamp", k=20)
    assert [hit.score for hit in found] == pytest.approx(np.sort(near)[::-1] + 1, abs=1e-4)
    assert {3, 4} < set(places(found[-3:]))

    centre = np.nanmean(images, axis=0)
    alike = np.full((20, 20), -4 * np.nanmax(np.square(images - centre).sum(axis=1)))
    there = ~np.isnan(images).any(axis=1)
    alike[np.ix_(there, there)] = -np.square(images[there][:, None] - images[there]).sum(axis=2)
    found = apart.search(vector=ASK[0], keywords="lamp", k=8, diversity=0.3)
    order = places(apart.search(vector=ASK[0], keywords="lamp", k=20))
    right = spread(near[order] + 1, alike[np.ix_(order, order)], 8, 0.3)
    assert places(found) == [order[place] for place in right]


def test_what_is_too_far_is_left_out(there, measured):
    scores = IMAGES @ ASK[0]
    found = there.search(vector=ASK[0], view="image", k=COUNT, min_score=0.2)
    assert places(found) == [row for row in best(scores, np.full(COUNT, True)) if scores[row] >= 0.2]
    squares = np.square(3 * IMAGES - ASK[0]).sum(axis=1)
    found = measured.search(vector=ASK[0], k=COUNT, max_distance=9.0)
    assert places(found) == [row for row in np.argsort(squares) if squares[row] <= 9]
    bits = np.unpackbits(CODES ^ CODES[5], axis=1).sum(axis=1)
    found = there.search(vector=CODES[5], view="code", k=COUNT, max_distance=12)
    assert set(places(found)) == set(np.flatnonzero(bits <= 12).tolist())
    assert there.search(vector=ASK[0], view="image", k=3, min_score=2) == []
    fused = there.search(**BOTH, k=COUNT, min_score=0.5)
    assert fused == [hit for hit in there.search(**BOTH, k=COUNT) if hit.score >= 0.5]


WISHES = [
    {"vector": ASK[1], "view": "image"},
    {"vector": ASK[1], "view": "image", "group_by": "seller"},
    {"vector": ASK[1], "view": "image", "diversity": 0.4},
    {"vector": ASK[1], "view": "image", "min_score": 0.1},
    {"product": "p0009", "view": "image"},
    {"keywords": "red leather"},
    {"keywords": "red leather", "group_by": "seller"},
    {"vector": ASK[1], "keywords": "red leather"},
    {"vector": ASK[1], "keywords": "red leather", "fusion": "rrf"},
    {"vector": ASK[1], "keywords": "red leather", "diversity": 0.4},
    {"vector": ASK[1], "keywords": "red leather", "group_by": "price", "candidates": 80},
    {"product": "p0009", "view": "code", "rerank": "image", "candidates": 30},
]


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: "-".join(wish))
@pytest.mark.parametrize("size", [7])
def test_pages_joined_are_one_long_answer(there, wish, size):
    long = there.search(**wish, k=21, where=WHERE)
    pages = [there.search(**wish, k=size, offset=start, where=WHERE) for start in range(0, 21, size)]
    assert [hit for page in pages for hit in page] == long
    assert len(long) >= 4


def test_products_with_the_same_picture_have_a_place_each_on_the_pages(opened):
    alike = fill(opened, "alike", ROWS[:40], {"image": np.repeat(IMAGES[:8], 5, axis=0)})
    for vector in (IMAGES[3], ASK[2]):
        long = alike.search(vector=vector, k=40)
        pages = [alike.search(vector=vector, k=7, offset=start) for start in range(0, 40, 7)]
        assert [hit for page in pages for hit in page] == long
        assert len({hit.key for hit in long}) == 40
        many = alike.search_many([Question(vector=vector)] * 3, k=7, offset=7)
        assert [{hit.key for hit in answer} for answer in many] == [{hit.key for hit in pages[1]}] * 3


def test_codes_at_the_same_distance_have_a_place_each_on_the_pages(opened):
    near = fill(opened, "near", ROWS[:60], {"code": np.eye(60, 8, dtype=np.uint8) + CODES[:1, :1]})
    for start in (0, 30):  # rows that were replaced lie behind the others
        write(opened, near._existing(), ROWS[start : start + 3], {"code": np.zeros((3, 8), np.uint8) + CODES[0, 0]})
    long = near.search(vector=np.zeros(8, np.uint8) + CODES[0, 0], k=60)
    pages = [near.search(vector=np.zeros(8, np.uint8) + CODES[0, 0], k=7, offset=start) for start in range(0, 60, 7)]
    assert [hit for page in pages for hit in page] == long
    assert len({hit.key for hit in long}) == 60


def test_many_questions_are_answered_as_one_by_one_in_their_order(there):
    questions = [
        *(Question(vector=vector) for vector in ASK),
        Question(keywords="green"),
        Question(product="p0007"),
        Question(vector=ASK[0], keywords="blue"),
        Question(product="p0003"),
        Question(vector=ASK[0]),
    ]

    def one(question, **wish):
        parts = {name: getattr(question, name) for name in ("vector", "keywords", "product")}
        return there.search(**{name: value for name, value in parts.items() if value is not None}, **wish)

    def same(found, alone):
        assert places(found) == places(alone)
        assert [hit.vector_id for hit in found] == [hit.vector_id for hit in alone]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in alone], abs=1e-5)

    for wish in ({}, {"where": WHERE, "k": 3, "offset": 2}, {"group_by": "seller", "k": 4}, {"min_score": 0.1}):
        asked = [one for one in questions if not ("min_score" in wish and one.keywords)]
        answers = there.search_many(asked, **wish)
        assert len(answers) == len(asked)
        for question, found in zip(asked, answers, strict=True):
            same(found, one(question, **wish))
    assert there.search_many([]) == []


def test_many_questions_are_one_question_to_the_backend(there, monkeypatch):
    backend, asked = there._resources.backend, []
    search = backend.search

    def counted(name, queries, *rest):
        asked.append(len(queries))
        return search(name, queries, *rest)

    monkeypatch.setattr(backend, "search", counted)
    there.search_many([Question(vector=vector) for vector in ASK] * 10)
    assert asked == [40]


@pytest.mark.parametrize("rerank", [None, "title"])
def test_the_vectors_of_many_products_are_fetched_together(there, rerank, monkeypatch):
    resources, fetched, statements = there._resources, [], []
    store, fetch, read = resources.store, resources.backend.fetch, type(resources.store)._read
    there.search(vector=ASK[0])
    with monkeypatch.context() as patch:
        patch.setattr(resources.backend, "fetch", lambda name, ids: fetched.append(len(ids)) or fetch(name, ids))
        patch.setattr(type(store), "_read", lambda self: statements.append(1) or read(self))
        asked = [Question(product=f"p{row:04}") for row in (*range(10, 30), 10)]
        there._asked(there._existing(), asked, view="image", rerank=rerank, weights=None)
    assert fetched == [20] * (1 + bool(rerank))
    assert len(statements) < 5  # and not one or more for each product


def test_rows_that_are_no_longer_live_do_not_shorten_an_answer(opened):
    gone = fill(opened, "gone", ROWS[:20], {"image": IMAGES[:20]})
    row = gone._existing()
    nearest = [hit.key for hit in gone.search(vector=ASK[0], k=8)]
    opened._resources.store.mark_deleted(row.id, nearest)
    left = [row for row in best(IMAGES[:20] @ ASK[0], np.full(20, True)) if f"p{row:04}" not in nearest]
    assert places(gone.search(vector=ASK[0], k=6)) == left[:6]
    assert places(gone.search_many([Question(vector=ASK[0])], k=6)[0]) == left[:6]
    assert len(gone.search(keywords="shoe bag", k=20)) == 12
    write(opened, row, ROWS[20:22], {"image": IMAGES[20:22]})
    assert len(gone.search(keywords="shoe bag", k=20)) == 14


def test_an_event_loop_goes_on_while_a_search_runs(there, monkeypatch):
    searching, go_on = threading.Event(), threading.Event()
    search = there._resources.backend.search

    def slow(*arguments):
        searching.set()
        assert go_on.wait(20)
        return search(*arguments)

    async def asked():
        products = embedkit.AsyncCollection(there)
        task = asyncio.create_task(products.search(vector=ASK[0], k=3))
        while not searching.is_set():
            await asyncio.sleep(0.01)
        meanwhile = await products.search(keywords="red", k=3)
        assert not task.done()
        go_on.set()
        with pytest.raises(BadInput, match="k=0"):
            await products.search(keywords="red", k=0)
        many = await products.search_many([Question(vector=ASK[0])], k=3)
        return await task, meanwhile, many, await products.get("p0007"), await products.count()

    monkeypatch.setattr(there._resources.backend, "search", slow)
    found, words, many, one, count = asyncio.run(asked())
    assert found == there.search(vector=ASK[0], k=3)
    assert words == there.search(keywords="red", k=3)
    assert (many, one.key, count) == ([found], "p0007", COUNT)


REFUSED = [
    ({"vector": ASK[0], "fusion": "rrf"}, "there is one part alone"),
    ({"keywords": "red", "fusion": "rrf"}, "there is one part alone"),
    ({"product": "p0001", "keywords": "red", "view": "code", "rerank": "image", "fusion": "rrf"}, "rerank puts"),
    ({"keywords": "red", "diversity": 0.3}, "keywords have none; add a text"),
    ({"vector": ASK[0], "keywords": "red", "fusion": "rrf", "diversity": 0.3}, "'rrf' has ranks alone"),
    ({"vector": ASK[0], "diversity": 1.2}, "diversity=1.2 is outside 0"),
    ({"vector": ASK[0], "diversity": "much"}, "diversity is a number, not str"),
    ({"keywords": "red", "min_score": 0.5}, "depends on all other products"),
    ({"vector": ASK[0], "keywords": "red", "fusion": "rrf", "min_score": 0.5}, "adds up ranks"),
    ({"vector": ASK[0], "min_score": float("nan")}, "min_score=nan is not a number"),
    ({"vector": ASK[0], "max_distance": 0.5}, "measured by 'cosine', where more is nearer; use min_score"),
    ({"vector": ASK[0], "keywords": "red", "max_distance": 3}, "has no single one; use min_score"),
    ({"vector": [1e300] * 16}, "holds NaN or infinity|not finite|infin"),
    ({"vector": ASK[0], "offset": -1}, "offset=-1 is not a number of hits to leave out; give 0 or more"),
    ({"vector": ASK[0], "offset": 20_000}, "offset=20000 and k=10 are more than 16384"),
    ({"vector": ASK[0], "diversity": 0.3, "offset": 95}, "behind the 100 candidates.*candidates=105 or more"),
    ({"vector": ASK[0], "keywords": "red", "group_by": "seller", "offset": 3}, "pages of an answer in groups"),
    ({"vector": ASK[0], "group_by": 3}, "group_by is an attribute"),
    ({"keywords": "red", "weights": {"image": 0.7}}, "image is not asked by, only keywords; ask by it too"),
    ({"keywords": " - "}, "hold no word"),
    ({"keywords": ""}, "text to search by is empty"),
    ({"keywords": " ".join(map(str, range(65)))}, "65 different keywords are more than 64"),
    ({"keywords": "red", "rerank": "image"}, "Keywords have no vector and cannot rerank"),
    ({"keywords": "red", "candidates": 50}, "candidates counts what"),
    ({}, "There is nothing to search by.*keywords"),
]


@pytest.mark.parametrize(("wish", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_does_not_go_together_is_refused_in_a_sentence(there, wish, message):
    with pytest.raises(BadInput, match=message):
        there.search(**wish)


def test_what_else_is_refused(there):
    with pytest.raises(UnknownName, match="no fusion called 'rff'; did you mean 'rrf'"):
        there.search(vector=ASK[0], keywords="red", fusion="rff")
    with pytest.raises(BadInput, match=r"A question is such as Question\(.*, not str"):
        there.search_many(["red shoe"])
    with pytest.raises(DimensionMismatch, match="5 dimensions"):
        there.search_many([Question(vector=ASK[0]), Question(vector=np.ones(5))])
