"""What the settings take from file and environment, and what they never show."""

from __future__ import annotations

import re

import pytest

import embedkit
from embedkit.errors import BadInput, ConfigError
from embedkit_cli.main import main


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_line_of_a_new_config_file_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["embedkit", "init", "--backend", "faiss:///vectors"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    file = tmp_path / "embedkit.toml"
    file.write_text(re.sub(r"(?m)^# (?=\[|\w+ = )", "", file.read_text()))
    settings = embedkit.connect().settings
    assert (settings.keywords, settings.map["key"], settings.views["title"]) == (["brand"], "sku", "minilm")
    assert settings.for_collection("shoes").index == "hnsw(m=16)"


def test_a_variable_that_is_empty_counts_as_not_set(tmp_path, monkeypatch):
    (tmp_path / "embedkit.toml").write_text('backend = "faiss:///mine"\nhome = "here"\n')
    for name in ("BACKEND", "HOME", "KEYWORDS", "INGEST__BATCH_SIZE"):
        monkeypatch.setenv(f"EMBEDKIT_{name}", "")
    settings = embedkit.connect().settings
    assert (settings.backend, settings.store) == ("faiss:///mine", "sqlite:///here/embedkit.db")


def test_settings_show_no_password(tmp_path):
    (tmp_path / "embedkit.toml").write_text(
        'backend = "milvus://me:Zq7@db/x"\nstore = "postgresql://me:Zq8@db/x"\nbackend_options.token = "Zq9"\n'
    )
    settings = embedkit.connect().settings
    assert "Zq" not in repr(settings) + str(settings)
    assert "milvus://me:***@db/x" in repr(settings)
    assert settings.backend == "milvus://me:Zq7@db/x"


@pytest.mark.parametrize("given", [{"config": 3}, {"backend": 3}, {"home": 3}])
def test_what_a_kit_is_opened_by_is_a_text_or_a_path(given):
    with pytest.raises(BadInput, match="not int"):
        embedkit.connect(**given)


def test_a_file_may_begin_as_editors_of_windows_save_it(tmp_path):
    (tmp_path / "embedkit.toml").write_text('backend = "faiss:///mine"\n', encoding="utf-8-sig")
    assert embedkit.connect().settings.backend == "faiss:///mine"
    (tmp_path / "embedkit.toml").write_bytes(b'backend = "faiss:///\xff"\n')
    with pytest.raises(ConfigError, match=r"'embedkit.toml' cannot be read: 'utf-8'"):
        embedkit.connect()


def test_what_fails_to_close_keeps_nothing_else_open(monkeypatch):
    kit = embedkit.connect(backend="faiss:///mine")
    backend, store = kit._resources.backend, kit._resources.store
    shut, close = [], store.close
    monkeypatch.setattr(store, "close", lambda: shut.append("store") or close())
    monkeypatch.setattr(backend, "close", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kit.close()
    assert shut == ["store"]
