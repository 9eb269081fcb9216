"""The command line as a user meets it: real processes, exit codes, the last line, one-line errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import picture

EMBEDKIT = str(Path(sys.executable).with_name("embedkit"))


@pytest.fixture
def run(tmp_path):
    """Runs a command in an empty folder, on FAISS, and checks that no traceback is shown."""

    def call(*arguments, code=0, **environment):
        done = subprocess.run(
            [EMBEDKIT, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "EMBEDKIT_BACKEND": "faiss:///faiss", **environment},
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return call


def last(done):
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_the_main_job(run, catalog, tmp_path):
    report = last(run("ingest", catalog))
    assert {"seen", "encoded", "skipped", "failed", "deleted", "seconds", "images_per_second"} <= report.keys()
    assert report["encoded"] == 24
    hits = last(run("search", "--image", catalog / "img" / "05.png", "--json"))["hits"]
    assert hits[0]["key"] == "p05"
    assert set(hits[0]) == {"key", "score", "title", "uri", "attributes"}
    found = last(run("search", "-t", "blue shoe 8", "-w", "price < 100", "-k", "3", "--json"))["hits"]
    assert found[0]["key"] == "p08"
    run("search", "--product", "p05", "--html", "out.html")
    assert "data:image/png;base64" in (tmp_path / "out.html").read_text()
    assert last(run("get", "p05", "--json"))["attributes"]["price"] == 25
    assert last(run("status", "-c", "products", "--json"))["products"] == 24
    assert last(run("status", "--json"))["collections"][0]["name"] == "products"
    assert last(run("verify", "--json"))["ok"] is True
    assert last(run("delete", "--where", "price > 50", "--json"))["deleted"] == 13
    assert last(run("delete", "--drop", "--yes", "--json"))["deleted"] == 11
    run("status", "-c", "products", code=1)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="looks at a process that has ended, which this system forgets")
@pytest.mark.parametrize(("given", "rank"), [((), 10), (("--nice", "3"), 3), (("--nice", "0"), 0)])
def test_a_reindex_gives_way_to_searches(run, catalog, tmp_path, given, rank):
    run("ingest", catalog, "--limit", 3)
    environment = {**os.environ, "EMBEDKIT_BACKEND": "faiss:///faiss"}
    process = subprocess.Popen(
        [EMBEDKIT, "reindex", "products", "--index", "hnsw", *given], cwd=tmp_path, env=environment
    )
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == max(rank, os.nice(0))
    assert process.wait() == 0


def test_failed_records_give_exit_code_3_and_are_listed(run, catalog):
    (catalog / "img" / "03.png").write_bytes(b"broken")
    assert last(run("ingest", catalog, code=3))["failed"] == 1
    failures = last(run("failures", "--json"))["failures"]
    assert [(row["key"], row["stage"]) for row in failures] == [("p03", "decode")]
    assert "known format" in run("failures").stdout
    picture(4).save(catalog / "img" / "03.png")
    done = run("ingest", "--retry-failed")
    assert (last(done)["encoded"], last(done)["duplicates"]) == (1, 1)
    assert "1 with the same picture as another product" in done.stderr
    assert "same picture  2" in run("status", "-c", "products").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ingest", "nowhere"], 1, "There is no catalog 'nowhere'"),
        (["ingest"], 2, "SOURCE"),
        (["ingest", ".", "--map", "image"], 2, "NAME=VALUE"),
        (["search", "-t", "x"], 1, "embedkit ingest"),
        (["search"], 2, "--image"),
        (["encoders", "efnet-lite0"], 1, "effnet-lite0"),
        (["status", "--backend", "millvus:///x.db"], 1, "milvus"),
        (["status", "--backend", "nonsense"], 1, "backend URL"),
        (["status", "--config", "none.toml"], 1, "embedkit init"),
        (["delete"], 2, "--where"),
        (["export", "torchvision:resnet5(weights=none)", "out"], 1, "resnet50"),
        (["export", "effnet-lite0(dim=64)", "out"], 1, "--fit"),
        (["export", "effnet-lite0(dim=64)", "out", "--fit", "nowhere"], 1, "no catalog"),
        (["ingest", ".", "--backend", "faiss://vectors/x"], 1, "faiss:///relative/path"),
        (["ingest", "sqlite:///none.db", "--query", "select 1"], 1, "no database file 'none.db'"),
    ],
)
def test_an_error_is_one_line_with_the_next_step(run, arguments, code, message):
    done = run(*arguments, code=code)
    assert message in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1


def test_a_question_that_cannot_be_asked_says_why(run, catalog, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    run("ingest", catalog)
    assert "text.jpg: " in run("search", "--image", "text.jpg", code=1).stderr
    assert "not valid text" in run("search", "--text", "shoe\udcff", code=1).stderr
    with open("/dev/full", "w") as full:
        done = subprocess.run([EMBEDKIT, "encoders"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "full" in done.stderr) == (1, True)
    assert "fault of embedkit" not in done.stderr
    unread, written = os.pipe()
    os.close(unread)  # as `head` does
    with os.fdopen(written, "w") as closed:
        done = subprocess.run([EMBEDKIT, "backends"], stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_source_or_store_that_is_misspelt_leaves_no_empty_database(run, tmp_path):
    run("ingest", "sqlite:///none.db", "--query", "select 1", code=1)
    assert not (tmp_path / "none.db").exists()
    assert "postgresql://" in run("status", code=1, EMBEDKIT_STORE="mysql://me:secret@db/x").stderr
    (tmp_path / "file").write_text("x")
    assert "/file' is a file" in run("ingest", tmp_path, "--backend", "faiss:///file", code=1).stderr


def test_control_characters_of_a_catalog_never_reach_the_terminal(run, tmp_path):
    (tmp_path / "t.csv").write_text('key,title,note\nk\x1b]0;x\x07,"two\nlines\tand \x1b[31mred","\x9b5m"\n')
    run("ingest", "t.csv")
    shown = run("get", "k\x1b]0;x\x07").stdout + run("search", "--text", "red").stdout
    shown += run("get", "none\x1b[2J", code=1).stderr
    assert "\\x1b[31mred" in shown
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert len(run("search", "--text", "red").stdout.splitlines()) == 2
    assert last(run("search", "--text", "red", "--json"))["hits"][0]["title"] == "two\nlines\tand \x1b[31mred"


def test_a_dry_run_tells_the_reasons_itself(run, catalog):
    (catalog / "img" / "03.png").write_bytes(b"broken")
    done = run("ingest", catalog, "--dry-run", code=3)
    assert "03.png: it is not a picture" in done.stderr
    assert "products.jsonl" in done.stderr  # and the row, whatever a picture is called
    assert "embedkit failures" not in done.stderr  # there is nothing to list


def test_advice_names_the_collection(run, catalog):
    (catalog / "img" / "03.png").write_bytes(b"broken")
    run("ingest", catalog, "-c", "shoes", code=3)
    assert "--retry-failed -c shoes" in run("failures", "-c", "shoes").stderr


def test_an_encoder_fitted_to_a_catalog_searches_it(run, catalog, tmp_path):
    spec = "effnet-lite0(size=96, pooling=netvlad, clusters=4, dim=16)"
    assert last(run("export", spec, "model", "--fit", catalog, "--json"))["dim"] == 16
    run("ingest", catalog, "--encoder", f"image={tmp_path / 'model'}")
    hits = last(run("search", "--image", catalog / "img" / "05.png", "--json"))["hits"]
    assert hits[0]["key"] == "p05"


def test_a_delete_for_machines_asks_nothing_and_its_help_says_so(run, catalog):
    run("ingest", catalog)
    assert "With --json, which is for machines, nothing is asked" in " ".join(run("delete", "--help").stdout.split())
    run("delete", "--where", "price < 10", code=1)  # asks, and nobody answers
    assert last(run("delete", "--where", "price < 10", "--json", "--dry-run")) == {"deleted": 0, "found": 2}
    assert last(run("delete", "--where", "price < 10", "--json"))["deleted"] == 2


def test_bad_filters_point_at_the_place(run, catalog):
    run("ingest", catalog)
    done = run("search", "-t", "x", "-w", "price < < 3", code=1)
    assert done.stderr.splitlines()[-1].index("^") == done.stderr.splitlines()[-2].index("< 3")


def test_a_long_filter_is_shown_around_the_fault(run, catalog):
    run("ingest", catalog)
    done = run("search", "-t", "x", "-w", " or ".join(["price < 3"] * 100) + " or price < < 4", code=1)
    text, mark = done.stderr.splitlines()[-2:]
    assert len(text) < 140
    assert text[mark.index("^") :].startswith("< 4")


def test_settings_come_from_file_environment_and_options(run, tmp_path):
    run("init", EMBEDKIT_BACKEND="")
    run("init", code=1)
    assert last(run("config", "--json"))["backend"] == "faiss:///faiss"
    assert last(run("config", "--backend", "milvus://me:secret@db/x", "--json"))["backend"] == "milvus://me:***@db/x"
    (tmp_path / "embedkit.toml").write_text("bakend = 'x'\n")
    assert "backend" in run("config", code=1).stderr
    (tmp_path / "embedkit.toml").write_text("[ingest]\nbatch_size = 'many'\n")
    assert "ingest.batch_size" in run("config", code=1).stderr
    run("init", "--overwrite", "--backend", 'faiss:///a"b')
    assert last(run("config", "--json", EMBEDKIT_BACKEND=""))["backend"] in (
        'faiss:///a"b',
        "milvus:///.embedkit/milvus.db",
    )


def test_a_misspelt_variable_is_no_setting(run):
    assert "EMBEDKIT_STORE" in run("status", code=1, EMBEDKIT_STOR="sqlite:///x.db").stderr
    assert "EMBEDKIT_INGEST__" in run("status", code=1, EMBEDKIT_INGEST="x").stderr
    run("status", EMBEDKIT_PORT="tcp://10.0.0.1:80")  # as Kubernetes sets it for a service of that name


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_service_manager_stop_it_and_what_was_done_is_kept(run, tmp_path, stop):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(400):
        picture(number, (32, 32)).save(folder / f"{number}.png")
    environment = {**os.environ, "EMBEDKIT_BACKEND": "faiss:///faiss", "EMBEDKIT_INGEST__BATCH_SIZE": "8"}
    process = subprocess.Popen(
        [EMBEDKIT, "ingest", str(folder)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    vectors = tmp_path / "faiss" / "products_v1_image" / "vectors-0.f32"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (vectors.exists() and vectors.stat().st_size):
        time.sleep(0.02)
    process.send_signal(stop)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    assert json.loads(out.strip().splitlines()[-1])["interrupted"] is True
    assert last(run("ingest", folder))["failed"] == 0
    assert last(run("status", "-c", "products", "--json"))["products"] == 400
    assert last(run("verify", "--json"))["ok"] is True


@pytest.mark.parametrize(
    ("awaited", "pauses"), [(".embedkit/embedkit.db", [0]), ("faiss/*_image/ids-0.i64", [0, 0.02])]
)
def test_ctrl_c_before_a_run_and_twice_within_it_is_one_word(tmp_path, awaited, pauses):
    for number in range(200):
        picture(number, (32, 32)).save(tmp_path / f"{number}.png")
    process = subprocess.Popen(
        [EMBEDKIT, "ingest", str(tmp_path), "--backend", "faiss:///faiss"],
        cwd=tmp_path,
        env={**os.environ, "EMBEDKIT_INGEST__BATCH_SIZE": "4"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(file.stat().st_size for file in tmp_path.glob(awaited)):
        time.sleep(0.01)
    for pause in pauses:
        time.sleep(pause)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert err.splitlines()[-1] == "error: stopped"
    assert "Traceback" not in err


def test_the_demo_in_small(run):
    report = last(run("demo", "--limit", "60", "--json", "--backend", "faiss:///demo-vectors"))
    assert report["pictures"] == 60
    assert report["encoded"] == 60
    assert Path(report["page"]).name == "demo.html"


def test_shell_completion_is_offered(run):
    assert "complete" in run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
