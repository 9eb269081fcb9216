"""Vectors that users have already become a collection, whatever they lie in."""

from __future__ import annotations

import json

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymilvus import DataType, MilvusClient
from typer.testing import CliRunner

from embedkit import plugins
from embedkit.errors import (
    BadRecord,
    BadSource,
    CollectionExists,
    CollectionNotFound,
    DimensionMismatch,
    EncoderMismatch,
)
from embedkit_cli.app import app
from tests.conftest import picture
from tests.killed import run
from tests.plain_encoder import PlainEncoder, install

COUNT, DIM = 300, 32


@pytest.fixture(autouse=True)
def _plain(monkeypatch):
    install(monkeypatch.setattr)
    monkeypatch.setattr("embedkit.living.given._PAGE", 128)  # so that there are several pages
    yield
    plugins._table.cache_clear()


@pytest.fixture(scope="module")
def vectors():
    made = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


KEYS = [f"sku {number:04}" for number in range(COUNT)]


def holds(collection, vectors, keys=KEYS, k=5):
    """Every vector under its key, and the nearest those that NumPy finds."""
    resources = collection._resources
    row = resources.store.collection(collection.name, resources.backend_url)
    ids = resources.store.vector_ids_of(row.id, keys)
    view = row.views[0]
    fetched = resources.backend.fetch(view.physical, np.array([ids[key][view.name] for key in keys]))
    np.testing.assert_allclose(fetched.vectors, vectors, atol=1e-6)
    asked = vectors[7]
    order = np.argsort(-(vectors @ asked), kind="stable")
    assert [hit.key for hit in collection.search(vector=asked, k=k)] == [keys[place] for place in order[:k]]
    assert collection.count() == len(keys)
    assert collection.verify().ok
    return True


def test_a_parquet_file_with_titles_and_attributes(kit, vectors, tmp_path):
    table = pa.table(
        {
            "sku": KEYS,
            "name": [f"thing {number}" for number in range(COUNT)],
            "price": [None if number == 3 else float(number) for number in range(COUNT)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM),
        }
    )
    pq.write_table(table, tmp_path / "v.parquet")
    report = kit.import_vectors(tmp_path / "v.parquet", collection="taken")
    assert (report.imported, report.dim, report.encoder) == (COUNT, DIM, "")
    taken = kit.collection("taken")
    assert holds(taken, vectors)
    found = taken.get("sku 0004")
    assert (found.title, found.attributes) == ("thing 4", {"price": 4.0})
    assert taken.search(product="sku 0004", where="price < 10", k=3)
    assert kit.import_vectors(tmp_path / "v.parquet", collection="taken").skipped == COUNT, "again, and nothing to do"


@pytest.mark.parametrize("form", ["ids.npy", "keys.csv", "keys.parquet"])
def test_an_npy_file_and_its_keys(kit, vectors, tmp_path, form):
    np.save(tmp_path / "v.npy", vectors.astype(np.float16))
    keys = [f"{number:04}" for number in range(COUNT)]
    if form == "ids.npy":
        np.save(tmp_path / form, np.array(keys))
    elif form == "keys.csv":
        (tmp_path / form).write_text("id,colour\n" + "".join(f"{key},red\n" for key in keys))
    else:
        pq.write_table(pa.table({"id": keys}), tmp_path / form)
    kit.import_vectors(tmp_path / "v.npy", keys=tmp_path / form, collection="taken")
    halves = vectors.astype(np.float16).astype(np.float32)
    assert holds(kit.collection("taken"), halves / np.linalg.norm(halves, axis=1, keepdims=True), keys)
    if form == "keys.csv":
        assert kit.collection("taken").count(where="colour == 'red'") == COUNT


def test_codes(kit, tmp_path):
    codes = np.random.default_rng(0).integers(0, 256, (300, 8), dtype=np.uint8)
    np.save(tmp_path / "codes.npy", codes)
    np.save(tmp_path / "ids.npy", np.arange(300) + 5)
    report = kit.import_vectors(tmp_path / "codes.npy", keys=tmp_path / "ids.npy", collection="codes", view="code")
    assert (report.dim, report.metric) == (64, "hamming")
    bits = np.unpackbits(codes ^ codes[7], axis=1).sum(axis=1)
    found = kit.collection("codes").search(vector=codes[7], k=5)
    assert [hit.key for hit in found] == [str(5 + place) for place in np.argsort(bits, kind="stable")[:5]]


def test_an_index_says_by_what_its_vectors_are_measured(kit, tmp_path):
    """Long vectors win by inner product and not by cosine, which is what a file without an index is measured by."""
    vectors = np.array([[1, 0], [3, 3], [0, 1]], np.float32)
    index = faiss.IndexFlatIP(2)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "v.index"))
    client = MilvusClient(str(tmp_path / "theirs.db"))
    client.create_collection("shop", dimension=2, metric_type="L2")
    client.insert("shop", [{"id": place, "vector": row} for place, row in enumerate(vectors)])
    client.close()
    kit.import_vectors(tmp_path / "v.index", collection="inner")
    kit.import_vectors(f"milvus:///{tmp_path}/theirs.db", from_collection="shop", collection="euclid")
    best = {name: kit.collection(name).search(vector=[1.0, 0.2], k=1)[0] for name in ("inner", "euclid")}
    assert (best["inner"].key, best["inner"].distance) == ("1", pytest.approx(3.6))
    assert (best["euclid"].key, best["euclid"].distance) == ("0", pytest.approx(0.04))
    other = faiss.IndexFlat(2, faiss.METRIC_L1)
    other.add(vectors)
    faiss.write_index(other, str(tmp_path / "v.index"))
    (warning,) = kit.import_vectors(tmp_path / "v.index", collection="manhattan").warnings
    assert "measured by neither cosine, ip nor l2" in warning


def test_an_option_that_would_be_left_out_is_refused(kit, vectors, tmp_path):
    table = pa.table({"id": KEYS, "emb": vectors.tolist()})
    pq.write_table(table, tmp_path / "v.parquet")
    pq.write_table(pa.Table.from_arrays([*table.columns, table["id"]], ["id", "emb", "id"]), tmp_path / "twice.parquet")
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", np.arange(COUNT))
    keys = tmp_path / "ids.npy"
    for name, given, message in (
        ("v.parquet", {"keys": keys}, "own columns name the products, so --keys does not apply"),
        ("v.npy", {"keys": keys, "vectors": "emb"}, "holds vectors alone, so --vectors does not apply"),
        ("twice.parquet", {}, "two columns 'id'"),
    ):
        with pytest.raises(BadSource, match=message):
            kit.import_vectors(tmp_path / name, collection="taken", **given)
    assert kit.collections() == ()


def test_pictures_beside_the_vectors_are_known_from_another_folder_too(kit, vectors, tmp_path, monkeypatch):
    pq.write_table(pa.table({"id": KEYS, "image": KEYS, "emb": vectors.tolist()}), tmp_path / "v.parquet")
    monkeypatch.chdir(tmp_path)
    kit.import_vectors("v.parquet", collection="taken")
    assert kit.collection("taken").get(KEYS[0]).uri == f"{tmp_path}/{KEYS[0]}"


@pytest.mark.parametrize("kind", ["Flat", "IDMap,Flat", "IDMap2,HNSW8", "IVF8,Flat"])
def test_a_faiss_index_with_its_ids(kit, vectors, tmp_path, kind):
    index = faiss.index_factory(DIM, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    named = "IDMap" in kind
    if named:
        index.add_with_ids(vectors, np.arange(COUNT) + 1_000)
    else:
        index.add(vectors)
    faiss.write_index(index, str(tmp_path / "v.index"))
    report = kit.import_vectors(tmp_path / "v.index", collection="taken", index="hnsw" if kind == "Flat" else "flat")
    assert (report.warnings, report.metric) == ((), "ip")
    first = 1_000 if named else 0
    assert holds(kit.collection("taken"), vectors, [str(first + row) for row in range(COUNT)], k=3)


def test_a_faiss_index_that_keeps_codes_only_says_so(kit, vectors, tmp_path):
    index = faiss.index_factory(DIM, "SQ4", faiss.METRIC_L2)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "v.index"))
    report = kit.import_vectors(tmp_path / "v.index", collection="taken")
    assert "IndexScalarQuantizer: its vectors are what it keeps" in report.warnings[0]
    assert report.metric == "l2"


def test_a_folder_of_clip_retrieval(kit, vectors, tmp_path):
    """Two parts, as `clip-retrieval inference` writes them."""
    folder = tmp_path / "embeddings"
    for part, rows in enumerate((slice(0, 200), slice(200, COUNT))):
        for name in ("img_emb", "metadata"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", vectors[rows])
        paths = [f"/pictures/{key}.jpg" for key in KEYS[rows]]
        pq.write_table(
            pa.table({"image_path": paths, "caption": [f"of {path}" for path in paths]}),
            folder / "metadata" / f"metadata_{part}.parquet",
        )
    kit.import_vectors(folder, collection="taken")
    assert holds(kit.collection("taken"), vectors, [f"/pictures/{key}.jpg" for key in KEYS])
    found = kit.collection("taken").get("/pictures/sku 0208.jpg")
    assert (found.uri, found.title) == ("/pictures/sku 0208.jpg", "of /pictures/sku 0208.jpg")
    (folder / "metadata" / "metadata_1.parquet").unlink()
    with pytest.raises(BadSource, match=r"no .*metadata_1\.parquet"):
        kit.import_vectors(folder, collection="other")


def test_of_ten_parts_and_more_of_clip_retrieval_the_numbers_have_zeros_before(kit, vectors, tmp_path):
    for name in ("img_emb", "metadata"):
        (tmp_path / "e" / name).mkdir(parents=True)
    for part in range(12):
        np.save(tmp_path / "e" / "img_emb" / f"img_emb_{part:02}.npy", vectors[25 * part : 25 * part + 25])
        table = pa.table({"image_path": KEYS[25 * part : 25 * part + 25]})
        pq.write_table(table, tmp_path / "e" / "metadata" / f"metadata_{part:02}.parquet")
    kit.import_vectors(tmp_path / "e", collection="taken")
    assert holds(kit.collection("taken"), vectors)


def test_a_milvus_collection_that_others_have_made(kit, vectors, tmp_path):
    client = MilvusClient(str(tmp_path / "theirs.db"))
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("sku", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("emb", DataType.FLOAT_VECTOR, dim=DIM)
    index = client.prepare_index_params()
    index.add_index("emb", index_type="FLAT", metric_type="COSINE")
    client.create_collection("shop", schema=schema, index_params=index)
    client.insert(
        "shop", [{"sku": key, "emb": row, "price": n} for n, (key, row) in enumerate(zip(KEYS, vectors, strict=True))]
    )
    client.close()
    url = f"milvus:///{tmp_path}/theirs.db"
    with pytest.raises(BadSource, match="--from"):
        kit.import_vectors(url, collection="taken")
    with pytest.raises(CollectionNotFound, match="it has shop"):
        kit.import_vectors(url, collection="taken", from_collection="shops")
    kit.import_vectors(url, collection="taken", from_collection="shop")
    assert holds(kit.collection("taken"), vectors)
    assert kit.collection("taken").get("sku 0012").attributes == {"price": 12}


def test_the_encoder_that_made_them_asks_them(kit, catalog, tmp_path):
    encoder = PlainEncoder(1, DIM)
    files = sorted((catalog / "img").glob("*.png"))
    np.save(tmp_path / "v.npy", encoder.encode(np.stack([encoder.prepare(file.read_bytes()) for file in files])))
    rows = "".join(f"{file.stem},{file}\n" for file in files)
    (tmp_path / "keys.csv").write_text(f"key,image\n{rows}")
    arguments = {"keys": tmp_path / "keys.csv", "collection": "taken"}
    with pytest.raises(DimensionMismatch, match=r"holds 32 dimensions .* makes 16"):
        kit.import_vectors(tmp_path / "v.npy", encoder="plain(dim=16)", **arguments)
    assert kit.collections() == ()
    kit.import_vectors(tmp_path / "v.npy", encoder="plain(seed=1)", **arguments)
    taken = kit.collection("taken")
    assert taken.search(image=picture(5), k=1)[0].key == "05"
    assert taken.reindex(encoder={"image": "plain(seed=2)"}).encoded == 24, "its pictures are read"
    assert taken.search(image=picture(5), k=1)[0].key == "05"


def test_without_an_encoder_vectors_and_products_ask(kit, vectors, tmp_path, catalog):
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", np.arange(COUNT))
    kit.import_vectors(tmp_path / "v.npy", keys=tmp_path / "ids.npy", collection="taken")
    taken = kit.collection("taken")
    for call in (lambda: taken.search(image=picture(1)), lambda: taken.ingest(catalog)):
        with pytest.raises(EncoderMismatch, match="imported without an encoder"):
            call()
    assert taken.reindex(index="hnsw").copied == COUNT
    report = taken.reindex(encoder={"image": "plain"})
    assert (report.failed, report.switched) == (COUNT, None)
    assert "does not know where its picture is" in report.lost[0][1]
    assert taken.delete(["3"]) == 1
    assert taken.verify().ok


def test_an_import_that_is_killed_goes_on(kit, vectors, tmp_path, faiss_url):
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", np.array(KEYS))
    arguments = {"source": str(tmp_path / "v.npy"), "keys": str(tmp_path / "ids.npy"), "collection": "taken"}
    for point, calls in (("create_collection", 1), ("commit", 1)):
        where = f"embedkit.metadata.store:MetadataStore.{point}"
        assert not run(faiss_url, tmp_path / "home", "import_vectors", arguments, point=where, calls=calls, name=None)
    kit.import_vectors(**arguments)
    assert holds(kit.collection("taken"), vectors)


def test_an_index_waits_for_more_vectors_wherever_few_of_them_go(kit, vectors, tmp_path, caplog):
    """As in an ingest: what is there can be restored, copied and reindexed, and is searched exactly meanwhile."""
    np.save(tmp_path / "v.npy", vectors[:30])
    np.save(tmp_path / "ids.npy", np.array(KEYS[:30]))
    kit.import_vectors(tmp_path / "v.npy", keys=tmp_path / "ids.npy", collection="few", index="pq(m=8)")
    few = kit.collection("few")
    few.backup(tmp_path / "saved")
    assert kit.restore(tmp_path / "saved", collection="again").restored == 30
    assert few.copy_to(f"faiss:///{tmp_path}/other").copied == 30
    assert few.reindex(index="ivf(nlist=99)").switched
    assert len([record for record in caplog.records if "its index waits for more" in record.message]) == 4
    assert "learns from 256 vectors or more, and there are 30" in caplog.text
    assert holds(kit.collection("again"), vectors[:30], KEYS[:30])
    assert [hit.key for hit in few.search(vector=vectors[7], k=1)] == [KEYS[7]]
    assert (few.index().spec, few.index().covered, few.verify().ok) == ("ivf(nlist=99)", 0, True)


def test_what_cannot_be_imported_says_why(kit, vectors, tmp_path):
    def refused(error, message, source, **arguments):
        with pytest.raises(error, match=message):
            kit.import_vectors(tmp_path / source, **{"collection": "taken", **arguments})

    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "few.npy", np.arange(5))
    np.save(tmp_path / "many.npy", np.arange(COUNT + 1))
    np.save(tmp_path / "twice.npy", np.zeros(COUNT, int))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "broken.npy").write_bytes(b"nothing")
    (tmp_path / "nothing.npy").touch()
    np.savez(tmp_path / "several.npz", v=vectors)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    (tmp_path / "names.csv").write_text("id,name\n" + "".join(f"{key},thing\n" for key in KEYS))
    (tmp_path / "broken.index").write_bytes(b"nothing")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "none.parquet")
    pq.write_table(pa.table({"nobody": ["a"], "v": [[1.0, 2.0]]}), tmp_path / "nobody.parquet")
    pq.write_table(pa.table({"key": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}), tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"key": [""], "v": [[1.0, 2.0]]}), tmp_path / "empty.parquet")
    refused(BadSource, "There is no .* with vectors", "missing.npy")
    refused(BadSource, "--keys", "v.npy")
    refused(BadSource, "keys for 5", "v.npy", keys=tmp_path / "few.npy")
    refused(BadSource, "no readable Parquet", "broken.parquet")
    refused(BadSource, "no npy file", "broken.npy", keys=tmp_path / "few.npy")
    for name in ("nothing.npy", "several.npy"):
        refused(BadSource, "is no npy file of vectors", name, keys=tmp_path / "few.npy")
        refused(BadSource, "is no npy file of ids", "v.npy", keys=tmp_path / name)
    for field in ("title", "image", "attributes"):
        told = f"names.csv has no column 'nme' .*did you mean name.*--map {field}=COLUMN"
        refused(BadSource, told, "v.npy", keys=tmp_path / "names.csv", map={field: "nme"})
    refused(BadSource, "no FAISS index", "broken.index")
    refused(BadSource, r"shape \(3,\)", "flat.npy", keys=tmp_path / "few.npy")
    refused(BadSource, "0 columns of vectors", "none.parquet")
    refused(BadSource, "no column that names each product", "nobody.parquet")
    refused(BadSource, "several lengths", "ragged.parquet")
    refused((BadRecord, BadSource), "empty", "empty.parquet")
    refused(BadSource, "twice", "v.npy", keys=tmp_path / "twice.npy", collection="twice")
    refused(BadSource, "more keys", "v.npy", keys=tmp_path / "many.npy", collection="many")
    assert "taken" not in [info.name for info in kit.collections()]
    kit.import_vectors(tmp_path / "v.npy", keys=_ids(tmp_path, 0), collection="taken")
    (tmp_path / "again").mkdir()
    np.save(tmp_path / "again" / "v.npy", vectors)
    refused(CollectionExists, "not made of these vectors", "again/v.npy", keys=tmp_path / "many.npy")


def _ids(folder, first):
    np.save(folder / "ids.npy", np.arange(COUNT) + first)
    return folder / "ids.npy"


def test_the_command(kit, vectors, tmp_path, monkeypatch):
    kit.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDKIT_BACKEND", "faiss:///faiss")
    np.save("v.npy", vectors)
    _ids(tmp_path, 0)
    done = CliRunner().invoke(app, ["import", "v.npy", "--keys", "ids.npy", "-c", "taken", "--json"])
    assert json.loads(done.stdout)["imported"] == COUNT
    done = CliRunner().invoke(app, ["import", "v.npy", "--keys", "ids.npy", "-c", "taken", "--metric", "near"])
    assert done.exit_code == 2
