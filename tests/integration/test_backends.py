"""Swapping the backend is one line, and changes no answer."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

import embedkit
from embedkit.backends.contract import CollectionSpec
from embedkit.backends.open import open_backend
from embedkit.errors import BackendUnavailable, ConfigError, DimensionMismatch
from tests.conftest import picture


@pytest.fixture(scope="module")
def big_catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("big")
    for number in range(300):
        picture(number, (64, 64)).save(folder / f"{number:03}.png")
        (folder / f"{number:03}.json").write_text(f'{{"title": "thing number {number}", "price": {number % 50}}}')
    return folder


def test_every_backend_gives_the_same_answers_to_200_queries(big_catalog, tmp_path, milvus_server_url):
    urls = [f"faiss:///{tmp_path}/f", f"milvus:///{tmp_path}/lite.db", milvus_server_url, "oracle://x"]
    vectors = np.random.default_rng(0).standard_normal((60, 1280)).astype(np.float32)
    encoders = {"image": "effnet-lite0(size=64)", "title": "minilm"}
    answers = []
    for number, url in enumerate(urls):
        with embedkit.connect(backend=url, home=tmp_path / f"h{number}") as kit:
            there = kit.collection(f"swap_{tmp_path.name}".replace("-", "_"))
            assert there.ingest(big_catalog, encoder=encoders).encoded == 300
            found = [there.search(image=big_catalog / f"{n:03}.png", k=10) for n in range(80)]
            found += [there.search(text=f"number {n}", k=10) for n in range(30)]
            found += [there.search(product=f"{n:03}.png", k=10, where="price < 25") for n in range(30)]
            found += [there.search(vector=vector, k=10) for vector in vectors]
            assert there.verify().ok
            answers.append(found)
            there.drop()
    assert len(answers[0]) == 200
    for other in answers[1:]:
        for mine, exact in zip(other, answers[-1], strict=True):
            assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in exact], abs=2e-4)
            clear = [hit.key for hit in exact if hit.score > exact[-1].score + 5e-4]
            assert set(clear) <= {hit.key for hit in mine}


@pytest.mark.parametrize("kind", ["faiss", "lite", "server"])
def test_verify_finds_and_mends_what_differs(kind, tmp_path, catalog, request):
    url = {"faiss": f"faiss:///{tmp_path}/f", "lite": f"milvus:///{tmp_path}/lite.db"}.get(kind)
    url = url or request.getfixturevalue("milvus_server_url")
    name = f"verify_{tmp_path.name}".replace("-", "_")
    with embedkit.connect(backend=url, home=tmp_path / "h") as kit:
        there = kit.collection(name)
        there.ingest(catalog)
        backend, physical = kit._resources.backend, f"{name}_v1_image"
        lost = there.search(image=picture(5), k=1)[0].vector_id
        backend.delete(physical, np.array([lost]))
        backend.upsert(physical, np.array([777_777]), np.ones((1, 1280), np.float32))
        found = there.verify().views["image"]
        assert (found.missing, found.orphaned) == (1, 1)
        assert not there.verify().ok
        assert there.verify(repair=True).repaired
        assert there.ingest(catalog).encoded == 1
        assert there.verify().ok
        assert there.search(image=picture(5), k=1)[0].key == "p05"
        there.drop()


@pytest.mark.parametrize("kind", ["lite", "vearch"])
def test_a_collection_that_another_connection_makes_anew_is_known_anew(kind, tmp_path, request):
    url = f"milvus:///{tmp_path}/lite.db" if kind == "lite" else request.getfixturevalue("clean_vearch_url")
    ids, eights, fours = np.arange(2), np.eye(2, 8, dtype=np.float32), np.eye(2, 4, dtype=np.float32)
    with closing(open_backend(url)) as here, closing(open_backend(url)) as there:
        here.create(CollectionSpec("anew", 8))
        here.upsert("anew", ids, eights)
        assert here.search("anew", eights[:1], 1).ids.tolist() == [[0]]
        there.drop("anew")
        there.create(CollectionSpec("anew", 4))
        here.upsert("anew", ids, fours)
        assert here.search("anew", fours[1:], 1).ids.tolist() == [[1]]
        with pytest.raises(DimensionMismatch, match="holds 4"):
            here.search("anew", eights, 1)


def test_a_backend_that_is_not_there_is_named_without_its_password(tmp_path, catalog):
    url = "milvus://me:secret@127.0.0.1:1"
    with embedkit.connect(backend=url, home=tmp_path) as kit, pytest.raises(BackendUnavailable) as caught:
        kit.collection("p").ingest(catalog)
    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_embedded_milvus_wants_a_folder_of_its_own(tmp_path, catalog):
    (tmp_path / "lite.db").write_text("not a folder")
    url = f"milvus:///{tmp_path}/lite.db"
    with embedkit.connect(backend=url, home=tmp_path) as kit, pytest.raises(ConfigError, match="is a file"):
        kit.collection("p").ingest(catalog)


def test_lite_belongs_to_one_process_at_a_time_and_is_free_once_closed(tmp_path, catalog):
    import subprocess
    import sys

    url = f"milvus:///{tmp_path}/lite.db"
    opened = f"embedkit.connect(backend={url!r}, home={str(tmp_path)!r})"
    code = f"import embedkit; {opened}.collection('p').ingest({str(catalog)!r})"

    def other_process():
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    with embedkit.connect(backend=url, home=tmp_path) as kit:
        kit.collection("p").ingest(catalog)
        with embedkit.connect(backend=url, home=tmp_path) as second:
            assert second.collection("p").verify().ok
        assert kit.collection("p").verify().ok
        done = other_process()
        assert done.returncode != 0
        assert "open in another process" in done.stderr
    done = other_process()
    assert done.returncode == 0, done.stderr
    with embedkit.connect(backend=url, home=tmp_path) as kit:
        assert kit.collection("p").verify().ok
