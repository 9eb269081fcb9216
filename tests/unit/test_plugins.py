"""Names are found, near misses are named, and a name is taken once."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from embedkit import plugins
from embedkit.errors import ConfigError, MissingExtra, UnknownName


def test_every_built_in_can_be_loaded():
    for group, rows in plugins.BUILT_IN.items():
        for row in rows:
            if row.extra == "":
                assert plugins.load(group, row.name) is not None


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownName, match=r"millvus.*did you mean 'milvus'"):
        plugins.find("backends", "millvus")


def test_third_parties_register_by_entry_point_but_take_no_name(monkeypatch):
    points = [EntryPoint("mine", "tests.conftest:picture", "embedkit.encoders")]
    monkeypatch.setattr(plugins, "entry_points", lambda **_: points)
    plugins._table.cache_clear()
    assert plugins.load("encoders", "mine").__name__ == "picture"
    points.append(EntryPoint("minilm", "somewhere:else", "embedkit.encoders"))
    plugins._table.cache_clear()
    with pytest.raises(ConfigError, match="minilm"):
        plugins.names("encoders")
    plugins._table.cache_clear()


def test_a_missing_package_names_the_line_that_installs_it():
    with pytest.raises(MissingExtra, match=r"pip install 'embedkit-search\[s3\]'"):
        plugins.require("no_such_package_at_all", "s3", needed_for="Reading s3://")
