"""The compose files keep the specification, fit together, and name settings and extras that there are.

No container runs in the tests.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from compose_spec import PyCompose

from embedkit.backends.url import parse_url
from embedkit.config import BackendSettings, Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
FILES = ("compose.yml", "milvus.yml", "vearch.yml")


def text_of(file):
    """With the variables of the shell put in, as compose does it."""
    text = (ROOT / "docker" / file).read_text()
    return re.sub(r"\$\{\w+(?::([-?])([^}]*))?\}", lambda found: found[2] if found[1] == "-" else "given", text)


def read(file):
    return PyCompose.from_yaml(text_of(file))


def services_of(file):
    return read(file).to_dict()["services"]


@pytest.mark.parametrize("file", FILES)
def test_a_file_keeps_the_compose_specification(file):
    compose = read(file)
    compose.validate()
    assert PyCompose.from_yaml(compose.to_yaml()).service_names() == compose.service_names()


def test_a_misspelt_key_would_be_noticed():
    with pytest.raises(ValueError, match="restrat"):
        PyCompose.from_yaml(text_of("milvus.yml").replace("restart:", "restrat:"))


@pytest.mark.parametrize("file", FILES)
def test_what_services_need_is_there_and_images_are_pinned(file):
    whole = read(file).to_dict()
    for name, service in whole["services"].items():
        assert set(service.get("depends_on") or {}) <= whole["services"].keys(), name
        named = {str(volume).partition(":")[0] for volume in service.get("volumes") or []}
        assert {volume for volume in named if volume[0] not in "./"} <= whole["volumes"].keys(), name
        assert "build" in service or re.search(r":[^:/]*\d", service["image"]), name


@pytest.mark.parametrize("file", FILES)
def test_no_password_is_written_down(file):
    for line in (ROOT / "docker" / file).read_text().splitlines():
        name, _, value = line.partition(": ")
        if not line.startswith("#") and ("PASSWORD" in name or "SECRET" in name):
            assert value.startswith("${"), line


def test_the_app_is_given_settings_that_there_are():
    environment = services_of("compose.yml")["app"]["environment"]
    for name in environment:
        section, _, option = name.removeprefix("EMBEDKIT_").lower().partition("__")
        assert section in Settings.model_fields, name
        assert not option or option in BackendSettings.model_fields, name


@pytest.mark.parametrize(
    ("url", "file"), [("milvus://milvus:19530", "milvus.yml"), ("vearch://root@router:9001/shop", "vearch.yml")]
)
def test_the_urls_of_the_read_me_lead_to_services(url, file):
    assert url in (ROOT / "docker/README.md").read_text()
    parsed = parse_url(url)
    assert str(parsed.port) in str(services_of(file)[parsed.host]["ports"])


def test_vearchs_parts_find_each_other():
    config = tomllib.loads((ROOT / "docker/vearch/config.toml").read_text())
    services = services_of("vearch.yml")
    assert [master["address"] for master in config["masters"]] == ["master"]
    assert str(config["masters"][0]["api_port"]) in str(services["master"]["healthcheck"])
    assert str(config["router"]["port"]) in str(services["router"]["ports"])
    for name in ("master", "router", "ps1", "ps2", "ps3"):
        assert "config.toml" in str(services[name]["volumes"]), name


def test_the_image_installs_extras_that_there_are():
    (extras,) = re.findall(r"'/src\[([\w,-]+)\]'", (ROOT / "docker/Dockerfile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    for line in (ROOT / "docker/Dockerfile").read_text().splitlines():
        if line.startswith("COPY"):
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists(), source
