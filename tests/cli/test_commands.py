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


def test_failed_records_give_exit_code_3_and_are_listed(run, catalog):
    (catalog / "img" / "03.png").write_bytes(b"broken")
    assert last(run("ingest", catalog, code=3))["failed"] == 1
    failures = last(run("failures", "--json"))["failures"]
    assert [(row["key"], row["stage"]) for row in failures] == [("p03", "decode")]
    assert "known format" in run("failures").stdout
    picture(3).save(catalog / "img" / "03.png")
    assert last(run("ingest", "--retry-failed"))["encoded"] == 1


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
    ],
)
def test_an_error_is_one_line_with_the_next_step(run, arguments, code, message):
    done = run(*arguments, code=code)
    assert message in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1


def test_an_encoder_fitted_to_a_catalog_searches_it(run, catalog, tmp_path):
    spec = "effnet-lite0(size=96, pooling=netvlad, clusters=4, dim=16)"
    assert last(run("export", spec, "model", "--fit", catalog, "--json"))["dim"] == 16
    run("ingest", catalog, "--encoder", f"image={tmp_path / 'model'}")
    hits = last(run("search", "--image", catalog / "img" / "05.png", "--json"))["hits"]
    assert hits[0]["key"] == "p05"


def test_bad_filters_point_at_the_place(run, catalog):
    run("ingest", catalog)
    done = run("search", "-t", "x", "-w", "price < < 3", code=1)
    assert done.stderr.splitlines()[-1].index("^") == done.stderr.splitlines()[-2].index("< 3")


def test_settings_come_from_file_environment_and_options(run, tmp_path):
    run("init", EMBEDKIT_BACKEND="")
    run("init", code=1)
    assert last(run("config", "--json"))["backend"] == "faiss:///faiss"
    assert last(run("config", "--backend", "milvus://me:secret@db/x", "--json"))["backend"] == "milvus://me:***@db/x"
    (tmp_path / "embedkit.toml").write_text("bakend = 'x'\n")
    assert "backend" in run("config", code=1).stderr
    (tmp_path / "embedkit.toml").write_text("[ingest]\nbatch_size = 'many'\n")
    assert "ingest.batch_size" in run("config", code=1).stderr


def test_ctrl_c_keeps_what_was_done(run, tmp_path):
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
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    assert json.loads(out.strip().splitlines()[-1])["interrupted"] is True
    assert last(run("ingest", folder))["failed"] == 0
    assert last(run("status", "-c", "products", "--json"))["products"] == 400
    assert last(run("verify", "--json"))["ok"] is True


def test_the_demo_in_small(run):
    report = last(run("demo", "--limit", "60", "--json", "--backend", "faiss:///demo-vectors"))
    assert report["pictures"] == 60
    assert report["encoded"] == 60
    assert Path(report["page"]).name == "demo.html"


def test_shell_completion_is_offered(run):
    assert "complete" in run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
