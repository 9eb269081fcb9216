"""The text of an index spec, what it becomes in FAISS and Milvus, and what is refused, with the nearest there is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedkit.backends.contract import CollectionSpec, IndexSpec, SearchParams
from embedkit.backends.faiss import indexes
from embedkit.backends.faiss.capabilities import CAPABILITIES as FAISS
from embedkit.backends.indexes import CODES, FAMILIES, Part, nearest_shapes
from embedkit.backends.milvus import schema
from embedkit.backends.milvus.capabilities import LITE, SERVER
from embedkit.backends.milvus.layout import layout_of
from embedkit.backends.milvus.schema import index_arguments
from embedkit.backends.validation import checked_spec
from embedkit.backends.vearch.capabilities import CAPABILITIES as VEARCH
from embedkit.errors import BadInput, ConfigError, UnsupportedByBackend

names = st.sampled_from(["m", "bits", "nlist", "ef_construction"])
values = st.integers(-5, 10**9) | st.just("auto") | st.floats(allow_nan=False, allow_infinity=False)
params = st.dictionaries(names, values, max_size=3)


@st.composite
def specs(draw):
    """Specs as `parse` makes them: a fast scan is called by its name."""
    codes = draw(st.none() | st.builds(Part, st.sampled_from(CODES), params))
    if codes is not None and codes.name == "pq" and codes.params.get("bits") == 4:
        codes = Part("pq", {})
    rotation = draw(st.none() | st.builds(Part, st.just("opq"), params))
    family = draw(st.sampled_from(FAMILIES))
    return IndexSpec(family, draw(params), codes, rotation, draw(st.sampled_from(["", "flat", "fp16"])))


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(spec=specs())
def test_the_text_of_a_spec_is_read_back_as_that_spec(spec):
    assert IndexSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("hnsw(m=32,ef_construction=200)", "hnsw(m=32, ef_construction=200)"),
        ("ivf(nlist=auto)+pq(m=16)+refine", "ivf(nlist=auto) + pq(m=16) + refine(flat)"),
        ("opq(m=16) + ivf + pq(m=16, bits=4)", "opq(m=16) + ivf + pq4fs(m=16)"),
        ("flat + sq8", "sq8"),
        (" multihash( tables = 4 ) ", "multihash(tables=4)"),
        ("flat", "flat"),
    ],
)
def test_there_is_one_text_for_one_index(text, canonical):
    assert str(IndexSpec.parse(text)) == canonical


def test_specs_stored_by_earlier_versions_are_read():
    assert IndexSpec.parse("ivf(nlist=1024)") == IndexSpec("ivf", {"nlist": 1024})
    assert IndexSpec.parse("hnsw(m=16, ef_construction=100)").params == {"m": 16, "ef_construction": 100}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ivf + pqq(m=16)", "no part 'pqq' .* did you mean pq"),
        ("ivf + refine(flat) + pq", "'pq' stands at a wrong place"),
        ("ivf + hnsw", "'hnsw' stands at a wrong place"),
        ("ivf + pq + pq", "'pq' stands at a wrong place"),
        ("ivf +", "is no index; write for example"),
        ("hnsw(m)", "'m' in the index 'hnsw\\(m\\)' is not option=value"),
        ("hnsw(m=1, m=2)", "occurs twice"),
        ("hnsw:x", "is no part of an index"),
        ("", "is no index"),
    ],
)
def test_a_text_that_is_no_spec_is_told_apart(text, message):
    with pytest.raises(ConfigError, match=message):
        IndexSpec.parse(text)


@pytest.mark.parametrize(
    ("text", "factory"),
    [
        ("hnsw", "HNSW16,Flat"),
        ("hnsw(m=32) + sq8", "HNSW32,SQ8"),
        ("nsg", "NSG32,Flat"),
        ("ivf(nlist=auto)", "IVF400,Flat"),
        ("ivf(nlist=64) + pq(m=16)", "IVF64,PQ16x8"),
        ("ivf(nlist=64, coarse=hnsw) + pq", "IVF64_HNSW32,PQ16x8"),
        ("opq(m=16) + ivf(nlist=64) + pq(m=16, bits=4) + refine(flat)", "OPQ16_64,IVF64,PQ16x4fs"),
        ("opq(m=8, dim=32) + ivf(nlist=64) + pq(m=8)", "OPQ8_32,IVF64,PQ8x8"),
        ("imi(bits=6) + pq(m=16)", "IMI2x6,PQ16x8"),
        ("ivf(nlist=64) + rabitq", "RR64,IVF64,RaBitQ"),
        ("rq(m=8)", "RQ8x8"),
        ("lsq(m=8)", "LSQ8x8"),
        ("prq(splits=2, m=4)", "PRQ2x4x8"),
        ("fp16", "SQfp16"),
        ("polysemous(m=8)", "PQ8x8"),
    ],
)
def test_a_spec_becomes_a_factory_string_of_faiss(text, factory):
    assert indexes.plan(IndexSpec.parse(text), 64, "l2", 10_000).factory == factory


@pytest.mark.parametrize(
    ("text", "rows", "message"),
    [
        ("ivf(nlist=5000)", 300, "nlist=5000 .* is more than the 300 vectors"),
        (
            "ivf + pq(m=10)",
            300,
            "m=10 .* does not cut the 64 dimensions into equal pieces; the nearest that do: 4, 8, 16",
        ),
        ("pq4fs(m=48)", 300, "the nearest that do: .*64"),
        ("opq(m=8, dim=32) + pq(m=64)", 300, "m=64 .* does not cut the 32 dimensions"),
        ("pq(m=16)", 200, "learns from 256 vectors or more, and there are 200"),
        ("nsg", 150, "learns from 200 vectors or more, and there are 150; choose hnsw"),
        ("imi(bits=10)", 300, "learns from 1024 vectors or more"),
        ("opq + pq4fs", 255, "learns from 256 vectors or more"),
        ("hnsw(mm=3)", 300, "no option 'mm'; did you mean m"),
        ("ivf + pq(bit=5)", 300, "no option 'bit'; did you mean bits"),
        ("sq8(bits=8)", 300, "no option 'bits'"),
        ("hnsw(m=1000)", 300, "m=1000 .* is not a whole number of 2 to 128"),
        ("ivf(coarse=tree)", 300, "coarse=tree .* is not one of flat, hnsw"),
    ],
)
def test_parameters_that_do_not_fit_are_said_in_a_sentence(text, rows, message):
    with pytest.raises(ConfigError, match=message):
        indexes.check(IndexSpec.parse(text), 64, "cosine", rows)


@pytest.mark.parametrize("text", ["nsg", "opq + pq4fs", "opq + ivf + pq4fs", "opq + imi + pq4fs", "imi + pq"])
def test_of_as_many_rows_as_it_says_an_index_is_built(text):
    spec = IndexSpec.parse(text)
    rows = indexes.plan(spec, 8, "l2", 0).needs
    vectors = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    assert indexes.built(spec, "l2", vectors).ntotal == rows


def test_a_graph_that_would_never_be_done_is_refused():
    """FAISS looks for links for ever among many groups of equal vectors; a single one does no harm."""
    vectors = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    vectors[:35] = vectors[0]
    assert indexes.built(IndexSpec("nsg"), "l2", vectors).ntotal == 400
    vectors[:330] = np.repeat(vectors[:330:55], 55, axis=0)
    with pytest.raises(
        ConfigError, match=r"330 of the 400 vectors have 32 others or more that equal them.*choose hnsw"
    ):
        indexes.built(IndexSpec("nsg"), "l2", vectors)


def test_a_metric_that_an_index_lacks_is_refused():
    with pytest.raises(UnsupportedByBackend, match=r"'nsg' for the metric 'ip'.*it takes 'cosine' and 'l2'"):
        indexes.check(IndexSpec("nsg"), 64, "ip", 300)


@pytest.mark.parametrize(
    ("able", "kind", "text", "message"),
    [
        (FAISS, "float", "hsnw", "the nearest it has is 'hnsw'"),
        (FAISS, "float", "diskann", "the nearest it has is 'hnsw'"),
        (FAISS, "float", "cagra", "the nearest it has is 'hnsw'"),
        (FAISS, "float", "multihash", "the nearest it has is 'flat'"),
        (FAISS, "binary", "hnsw + pq", "the nearest it has is 'hnsw'"),
        (SERVER, "float", "opq + ivf + pq", "the nearest it has is 'ivf \\+ pq'"),
        (SERVER, "float", "nsg", "the nearest it has is 'hnsw'"),
        (LITE, "float", "ivf + pq", "the nearest it has is 'ivf"),
        (LITE, "float", "hnsw + sq8 + refine(flat)", "cannot refine by 'flat'"),
        (FAISS, "float", "ivf + pq + refine(fp16)", r"cannot refine by 'fp16' \(it has refine\(flat\), .*kept anyway"),
        (VEARCH, "float", "ivf + pq + refine(fp16)", r"cannot refine by 'fp16' \(leave refine out, .*kept anyway"),
        (SERVER, "float", "hnsw + sq8 + refine(sq8)", r"it has refine\(flat\) and refine\(fp16\)\)"),
        (LITE, "float", "hnsw + sq8 + refine(fp16)", r"cannot refine by 'fp16' \(leave refine out\)"),
    ],
)
def test_what_a_backend_lacks_it_says_with_the_nearest_it_has(able, kind, text, message):
    metric = "hamming" if kind == "binary" else "cosine"
    with pytest.raises(UnsupportedByBackend, match=message):
        checked_spec(CollectionSpec("c", 64, metric, kind, IndexSpec.parse(text)), able)


def test_there_is_nothing_to_refine_where_the_vectors_are_kept():
    with pytest.raises(ConfigError, match="keeps the vectors themselves"):
        checked_spec(CollectionSpec("c", 64, index=IndexSpec.parse("hnsw + refine(flat)")), FAISS)


def test_a_name_that_nobody_knows_has_no_nearest():
    assert nearest_shapes("xyzzy", FAISS.index_families) == []


def test_every_family_of_faiss_has_a_plan():
    for shape in FAISS.index_families:
        assert indexes.plan(IndexSpec.parse(shape), 64, "cosine", 10_000).factory


@pytest.mark.parametrize(
    ("text", "native", "params"),
    [
        ("flat", "FLAT", {}),
        ("hnsw(m=32)", "HNSW", {"M": 32, "efConstruction": 200}),
        ("ivf(nlist=auto)", "IVF_FLAT", {"nlist": 400}),
        ("ivf(nlist=64) + sq8", "IVF_SQ8", {"nlist": 64}),
        ("ivf + pq(m=16, bits=6)", "IVF_PQ", {"nlist": 400, "m": 16, "nbits": 6}),
        ("ivf(nlist=64) + pq4fs + refine(flat)", "SCANN", {"nlist": 64, "with_raw_data": "true"}),
        ("ivf(nlist=64) + rabitq + refine(flat)", "IVF_RABITQ", {"nlist": 64, "refine": "true", "refine_type": "FP32"}),
        ("ivf(nlist=64) + rabitq + refine(fp16)", "IVF_RABITQ", {"nlist": 64, "refine": "true", "refine_type": "FP16"}),
        ("hnsw + sq8", "HNSW_SQ", {"M": 16, "efConstruction": 200, "sq_type": "SQ8"}),
        ("hnsw + pq(m=8)", "HNSW_PQ", {"M": 16, "efConstruction": 200, "m": 8, "nbits": 8}),
        ("diskann", "DISKANN", {}),
        ("cagra(m=32)", "GPU_CAGRA", {"graph_degree": 32, "intermediate_graph_degree": 128}),
    ],
)
def test_a_spec_becomes_the_index_params_of_milvus(text, native, params):
    spec = CollectionSpec("c", 64, index=IndexSpec.parse(text))
    made = index_arguments(spec, layout_of("float", SERVER), 10_000)
    assert (made["index_type"], made["params"]) == (native, params)
    for_lite = index_arguments(spec, layout_of("float", SERVER), 10_000, lite=True)
    assert for_lite["params"] == {**params, "params": params}  # Lite reads them from one text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ivf(nlist=5000)", "is more than the 300 vectors"),
        ("ivf + pq(m=10)", "the nearest that do: 4, 8, 16"),
        ("hnsw(m=100)", "not a whole number of 4 to 64"),
        ("diskann(ef=3)", "no option 'ef'"),
    ],
)
def test_milvus_is_not_asked_for_what_cannot_be(text, message):
    with pytest.raises(ConfigError, match=message):
        index_arguments(CollectionSpec("c", 64, index=IndexSpec.parse(text)), layout_of("float", SERVER), 300)


def test_milvus_refines_where_it_keeps_the_vectors():
    spec = CollectionSpec("c", 64, index=IndexSpec.parse("ivf + pq + refine(flat)"))
    with pytest.raises(UnsupportedByBackend, match="it does by ivf \\+ pq4fs"):
        index_arguments(spec, layout_of("float", SERVER), 300)


def test_milvus_has_no_half_precision_beside_its_fast_scan():
    spec = CollectionSpec("c", 64, index=IndexSpec.parse("ivf + pq4fs + refine(fp16)"))
    with pytest.raises(UnsupportedByBackend, match=r"refine 'ivf \+ pq4fs' by 'fp16': .* write refine\(flat\)"):
        index_arguments(spec, layout_of("float", SERVER), 300)


@pytest.mark.parametrize("refine", ["", " + refine(flat)", " + refine(fp16)"])
def test_what_milvus_refines_by_is_read_back(refine):
    """A server of 2.6 tells the parameters as it was given them, as texts."""
    spec = CollectionSpec("c", 64, index=IndexSpec.parse(f"hnsw(m=32) + sq8{refine}"))
    made = index_arguments(spec, layout_of("float", SERVER), 300)
    told = {name: str(value) for name, value in made["params"].items()}
    assert schema._index_of("hnsw + sq8", {"index_type": made["index_type"], **told}) == spec.index


def test_the_knobs_of_an_index_are_those_it_heeds():
    assert IndexSpec("flat").knobs() == ()
    assert IndexSpec("hnsw").knobs(rescores=True) == ("ef",)
    assert IndexSpec.parse("ivf + pq").knobs(rescores=True) == ("nprobe", "k_factor")
    assert IndexSpec.parse("ivf + pq").knobs() == ("nprobe",)
    assert IndexSpec.parse("polysemous").knobs(rescores=True) == ("ht", "k_factor")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nprob": 3}, "no parameter 'nprob'; did you mean nprobe"),
        ({"ef": 0}, "ef=0 of a search is not a whole number"),
        ({"ef": "many"}, "not a whole number of 1 to 1000000"),
        ({"ef": 1.5}, "not a whole number"),
        ({"ef": True}, "not a whole number"),
    ],
)
def test_parameters_of_a_search_are_named_and_checked(given, message):
    with pytest.raises(BadInput, match=message):
        SearchParams.of(given)


def test_what_is_asked_goes_over_what_was_tuned():
    assert SearchParams(ef=200).over({"ef": 100, "k_factor": 4}) == SearchParams(ef=200, k_factor=4)
