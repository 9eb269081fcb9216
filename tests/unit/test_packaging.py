"""What is installed, what is imported, and what is not."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

import embedkit
from tests.conftest import WITHOUT_TORCH

HEAVY = (
    "torch",
    "faiss",
    "pymilvus",
    "vearch",
    "requests",
    "transformers",
    "sqlalchemy",
    "onnxruntime",
    "openvino",
    "numpy",
    "PIL",
    "pyarrow",
)


def imported_by(code):
    script = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("code", ["import embedkit", "import embedkit_cli.app"])
def test_heavy_packages_wait_until_they_are_needed(code):
    assert not imported_by(code) & set(HEAVY)


def test_ingest_and_search_run_without_torch(catalog, tmp_path):
    """A finder refuses every import of the `train` extra; the whole main job must not notice."""
    code = f"""{WITHOUT_TORCH}
import embedkit
with embedkit.connect(backend='faiss:///{tmp_path}/f', home={str(tmp_path)!r}) as kit:
    products = kit.collection('products')
    assert products.ingest({str(catalog)!r}).encoded == 24
    assert products.search(text='blue shoe 8', k=1)[0].key == 'p08'
try:
    embedkit.describe_encoder('torchvision:resnet50')
except embedkit.EmbedkitError as error:
    assert "pip install 'embedkit-search[train]'" in str(error)
else:
    raise SystemExit('no error')
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_public_face_is_what_it_says():
    assert len(set(embedkit.__all__)) == len(embedkit.__all__)
    for name in embedkit.__all__:
        assert getattr(embedkit, name) is not None


def test_a_wheel_installs_two_packages_and_nothing_else(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), "."],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"embedkit", "embedkit_cli"}
    for needed in (
        "embedkit/py.typed",
        "embedkit/encoders/assets/minilm-tokenizer.json",
        "embedkit/encoders/probes/effnet-lite0.json",
        "embedkit/metadata/migrations/versions/v0001_first.py",
        "embedkit/training/recipes/emoji-npair.toml",
        "embedkit/training/plots/map_template.html",
        "embedkit_cli/templates/sheet.html",
    ):
        assert needed in names
