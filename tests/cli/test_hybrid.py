"""Keywords, fusion, groups, diversity, pages and ranges on the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import embedkit
from embedkit.errors import UnknownName
from embedkit_cli.app import app
from tests.made import fill, product, unit

ROWS = [product(n, f"{('red', 'blue')[n % 2]} shoe {n}", seller="abc"[n % 3], price=n) for n in range(12)]


@pytest.fixture
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDKIT_BACKEND", "faiss:///vectors")
    with embedkit.connect() as kit:
        yield fill(kit, "products", ROWS, {"image": unit(12, 8)})


def called(*arguments, code=0, **given):
    done = CliRunner().invoke(app, [str(one) for one in arguments], **given)
    assert done.exit_code == code, done.output
    return done


def found(*arguments):
    return [hit["key"] for hit in json.loads(called("search", *arguments, "--json").stdout)["hits"]]


def test_every_option_reaches_the_search(there):
    def keys(**asked):
        return [hit.key for hit in there.search(**asked)]

    assert found("--keywords", "red 3") == keys(keywords="red 3")
    assert found("--keywords", "red", "-k", 3, "--offset", 2) == keys(keywords="red", k=3, offset=2)
    assert found("--keywords", "red", "--group-by", "seller", "-w", "price > 2") == keys(
        keywords="red", group_by="seller", where="price > 2"
    )
    both = {"product": "p0004", "keywords": "blue"}
    asked = ["--product", "p0004", "--keywords", "blue"]
    assert found(*asked, "--fusion", "rrf") == keys(**both, fusion="rrf")
    weighed = keys(**both, weights={"keywords": 3.0}, diversity=0.5, candidates=11, min_score=0.1)
    wish = ["--weight", "keywords=3", "--diversity", 0.5, "--candidates", 11, "--min-score", 0.1]
    assert found(*asked, *wish) == weighed
    assert found(*asked) == keys(**both) != weighed


def test_a_page_counts_on_and_its_end_is_told(there, tmp_path):
    page = called("search", "--keywords", "red", "-k", 2, "--offset", 4, "--html", "page.html")
    assert [line.split("\t")[0] for line in page.stdout.splitlines()] == ["#", "5", "6"]
    assert "keywords &#x27;red&#x27;" in (tmp_path / "page.html").read_text()
    assert "Nothing found behind the first 6." in called("search", "--keywords", "red", "--offset", 6).output


def test_what_is_misspelt_or_cannot_be_is_said(there):
    assert isinstance(CliRunner().invoke(app, ["search", "--keywords", "x", "--fusion", "rff"]).exception, UnknownName)
    done = CliRunner().invoke(app, ["search", "--product", "p0004", "--max-distance", "1"])
    assert "more is nearer; use min_score" in str(done.exception)
    told = called("search", "--product", "p0004", "--where", "prise < 9 and seller == 'a'").stderr.splitlines()
    assert told[-1] == "No product of 'products' has the attribute 'prise'; did you mean 'price'?"
    assert called("search", "--keywords", "red", "--where", "price < 0", "--json").stderr == ""
    assert "--keywords or --product" in called("search", code=2).output
