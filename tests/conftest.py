"""What every test may ask for: real servers, real pictures, offline encoders."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import uuid
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from PIL import Image

import embedkit
from embedkit import plugins
from embedkit.backends.open import open_backend
from embedkit.testing.servers import milvus_server, postgres_server
from tests.services.vearch import vearch_server


def pytest_configure():
    """A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.

    A slow machine is no failure of a property.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")  # other tests run beside these


def pytest_collection_modifyitems(items):
    """One machine takes one Milvus server at a time: tests with their own come before the shared one starts."""
    items.sort(key=lambda item: item.get_closest_marker("own_server") is None)


@pytest.fixture(scope="session")
def milvus_process(tmp_path_factory):
    with milvus_server(tmp_path_factory.mktemp("milvus")) as server:
        yield server


@pytest.fixture(scope="session")
def milvus_server_url(milvus_process):
    return milvus_process.url


@pytest.fixture(scope="session")
def vearch_process(tmp_path_factory):
    """A router over the Gamma engine."""
    with vearch_server(tmp_path_factory.mktemp("vearch")) as server:
        yield server


@pytest.fixture(scope="session")
def vearch_url(request):
    """Its URL; or that of the cluster of EMBEDKIT_TEST_VEARCH_URL, in a database kept for tests."""
    return os.environ.get("EMBEDKIT_TEST_VEARCH_URL") or request.getfixturevalue("vearch_process").url


@pytest.fixture
def clean_vearch_url(vearch_url):
    """Other tests, and a live cluster, find what was there before."""
    backend = open_backend(vearch_url)
    before = set(backend.list())
    yield vearch_url
    for name in set(backend.list()) - before:
        backend.drop(name)
    backend.close()


@pytest.fixture(scope="session")
def postgres_url():
    """Not below pytest's own folder: it is shut to the server's user whenever another pytest starts beside this one."""
    with tempfile.TemporaryDirectory(prefix="embedkit-postgres-") as folder, postgres_server(Path(folder)) as url:
        yield url


@pytest.fixture
def store_in_postgres(postgres_url):
    """A metadata store that is not there yet, in an empty database."""
    server = sa.make_url(postgres_url)
    name = f"t_{uuid.uuid4().hex[:8]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """A metadata store that is not there yet, in each of the databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/embedkit.db"
    return request.getfixturevalue("store_in_postgres")


@pytest.fixture(scope="session", autouse=True)
def _one_model_cache(tmp_path_factory):
    """Converted models are shared by the tests of one session, and not taken from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


WITHOUT_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in ('torch', 'torchvision', 'transformers'):
            raise ModuleNotFoundError(f'refused: {name}', name=name)
sys.meta_path.insert(0, Refuse())
"""  # the start of a script in which every import of the `train` extra is refused


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A smooth coloured pattern; another one for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def pictures():
    return picture


@pytest.fixture
def catalog(tmp_path):
    """A folder with 24 pictures and a products.jsonl that describes them."""
    folder = tmp_path / "catalog"
    (folder / "img").mkdir(parents=True)
    rows = []
    for number in range(24):
        picture(number).save(folder / "img" / f"{number:02}.png")
        rows.append(
            {
                "key": f"p{number:02}",
                "image": f"img/{number:02}.png",
                "title": f"{('red', 'green', 'blue')[number % 3]} {('shoe', 'bag')[number % 2]} {number}",
                "price": number * 5,
                "brand": ("acme", "zeta")[number % 2],
            }
        )
    write_table(folder, rows)
    return folder


@pytest.fixture
def signs(monkeypatch):
    """The encoder `signs` of 64 bits (`tests/sign_encoder.py`), as a plugin."""
    points = [EntryPoint("signs", "tests.sign_encoder:build", "embedkit.encoders")]
    with monkeypatch.context() as patch:
        patch.setattr(plugins, "entry_points", lambda group: points if group == "embedkit.encoders" else [])
        plugins._table.cache_clear()
        yield
    plugins._table.cache_clear()


@pytest.fixture
def plain(monkeypatch):
    """The encoder `plain` (`tests/plain_encoder.py`), as a plugin."""
    from tests.plain_encoder import install

    install(monkeypatch.setattr)
    yield
    plugins._table.cache_clear()


def write_table(folder, rows):
    (folder / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_table(folder):
    return [json.loads(line) for line in (folder / "products.jsonl").read_text().splitlines()]


@pytest.fixture
def faiss_url(tmp_path):
    return f"faiss:///{tmp_path}/faiss"


@pytest.fixture
def lite_url(tmp_path):
    """A Milvus Lite of the test's own."""
    return f"milvus:///{tmp_path}/lite.db"


@pytest.fixture
def kit(tmp_path, faiss_url):
    with embedkit.connect(backend=faiss_url, home=tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def products(kit):
    return kit.collection("products")
