"""Recipes: what TOML holds comes back, what cannot be is refused, and those that come along can be built."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedkit.training.recipe as module
from embedkit.encoders.effnet_torch import backbone as effnet
from embedkit.encoders.torchvision_models import backbone as torchvision
from embedkit.errors import ConfigError, UnknownName
from embedkit.specs import parse_spec
from embedkit.training.datasets.registry import find_dataset
from embedkit.training.losses.build import build_loss
from embedkit.training.losses.contract import PairLoss
from embedkit.training.losses.joint import build_joint_loss
from embedkit.training.recipe import Augment, TrainingRecipe, list_recipes, read_recipe
from tests.conftest import WITHOUT_TORCH

NAMES = (
    "cifar10-dlbhc",
    "cub200-margin",
    "ebay-margin",
    "emoji-captions",
    "emoji-dcmh",
    "emoji-hashnet",
    "emoji-npair",
    "emoji-ntxent",
    "emoji-vsepp-gru",
    "flickr30k-vsepp",
    "inshop-proxyanchor",
    "lfw-arcface",
    "market1501-batchhard",
    "nuswide-hashnet",
    "openmoji-codes",
    "openmoji-sketch",
    "sop-npair",
    "street2shop",
    "veri-batchhard",
)
FOLDER = Path(module.__file__).with_name("recipes")
KINDS = {bool: st.booleans(), int: st.integers(-(2**63), 2**63 - 1), float: st.floats(allow_nan=False), str: st.text()}


def any_of(cls, **more):
    """Instances with any values of the right types."""
    plain = {one.name: KINDS[type(getattr(cls(), one.name))] for one in dataclasses.fields(cls) if one.name not in more}
    return st.builds(cls, **plain, **more)


def changed(**values):
    return dataclasses.replace(TrainingRecipe(), **values)


@given(any_of(TrainingRecipe, augment=any_of(Augment)))
def test_a_recipe_comes_back_from_toml_as_it_was(recipe):
    values = module.tomllib.loads(recipe.as_toml())
    assert TrainingRecipe.from_dict(values) == recipe
    assert values == recipe.as_dict()


@given(any_of(TrainingRecipe, augment=any_of(Augment)))
def test_no_value_gives_anything_but_a_recipe_or_an_error_of_ours(recipe):
    try:
        checked = recipe.checked()
    except (ConfigError, UnknownName):
        return
    assert sum(bool(budget) for budget in (checked.epochs, checked.minutes, checked.steps)) == 1


def test_a_recipe_that_is_written_is_read_back_from_its_file(tmp_path):
    recipe = changed(data='räder "neu"\\\n', minutes=2.0, augment=Augment(crop=0.5, flip=False), title="a # b")
    (tmp_path / "mine.toml").write_text(recipe.as_toml(), encoding="utf-8")
    assert read_recipe(str(tmp_path / "mine.toml")) == recipe


def test_every_character_below_256_and_line_ends_of_all_kinds_come_back():
    text = "".join(map(chr, range(256))) + "\u2028\u2029\ufeff\U0001f34e\r\n\"\"\"'''"
    assert TrainingRecipe.from_dict(module.tomllib.loads(changed(title=text).as_toml())).title == text


def test_settings_that_are_left_out_keep_their_defaults_and_whole_numbers_may_stand_for_any():
    recipe = TrainingRecipe.from_dict({"epochs": 3, "augment": {"crop": 1, "rotate": 15}})
    assert recipe == changed(epochs=3.0, augment=Augment(crop=1.0, rotate=15.0))
    assert isinstance(recipe.epochs, float)
    assert TrainingRecipe.from_dict({}) == TrainingRecipe()


def test_without_a_budget_it_is_20_epochs():
    assert TrainingRecipe().checked().epochs == 20
    for budget in ({"epochs": 2.0}, {"minutes": 4.0}, {"steps": 7}):
        assert changed(**budget).checked() == changed(**budget)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bach": 3}, r"no setting 'bach' \(in mine\.toml\); did you mean batch"),
        ({"augment": {"flop": True}}, r"no setting 'augment\.flop' \(in mine\.toml\); did you mean flip"),
        ({"zzz": 3}, r"'zzz'.*known: data, data_name, task"),
        ({"augment": True}, r"'augment' \(in mine\.toml\) is not a table; write \[augment\]"),
        ({"batch": "64"}, r"'batch' \(in mine\.toml\) is '64', not a whole number"),
        ({"batch": 64.0}, "'batch'.*64.0, not a whole number"),
        ({"batch": True}, "'batch'.*True, not a whole number"),
        ({"epochs": True}, "'epochs'.*True, not a number"),
        ({"rate": "fast"}, "'rate'.*'fast', not a number"),
        ({"rate": 10**400}, "'rate'.*not a number"),
        ({"compile": 1}, "'compile'.*1, not true or false"),
        ({"loss": ["npair"]}, "'loss'.*not a text in quotes"),
        ({"augment": {"crop": "all"}}, r"'augment\.crop'.*'all', not a number"),
    ],
)
def test_a_setting_that_is_unknown_or_of_another_type_is_named_with_its_file(values, message):
    with pytest.raises(ConfigError, match=message):
        TrainingRecipe.from_dict(values, source="mine.toml")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": -1e-4}, "rate = -0.0001 is not a number of 0 to"),
        ({"rate": math.nan}, "rate = nan"),
        ({"minutes": math.inf}, "minutes = inf"),
        ({"batch": 1}, "batch = 1"),
        ({"dim": -1}, "dim = -1"),
        ({"dim": 1}, "dim = 1 .*0"),
        ({"ema": 1.0}, "ema = 1 "),
        ({"frozen": 1.5}, "frozen = 1.5"),
        ({"holdout": 1.0}, "holdout = 1 "),
        ({"seed": -1}, "seed = -1"),
        ({"augment": Augment(crop=0.0)}, r"augment\.crop = 0 "),
        ({"augment": Augment(erase=2.0)}, r"augment\.erase = 2 "),
        ({"sampler": "pk"}, "sampler = 'pk' is not one of balanced, class, domains, pairs"),
        ({"precision": "int8"}, "precision = 'int8' is not one of fp32, bf16, fp16"),
        ({"encoder": ""}, "encoder is empty"),
        ({"loss": "npair("}, r"'npair\(' is no loss"),
        ({"miner": "(x"}, "is no miner"),
        ({"epochs": 2.0, "minutes": 4.0}, "epochs and minutes are both set"),
        ({"patience": 3}, "patience needs holdout"),
        ({"patience": 3, "holdout": 0.1, "validate": 0}, "patience needs holdout > 0 and validate > 0"),
        ({"memory_after": 5}, "no memory"),
        ({"sampler": "pairs", "per_class": 4}, "takes 2 pictures of a class"),
        ({"sampler": "domains", "per_class": 3}, "as many sketches as pictures.*per_class = 3 cannot be"),
        ({"batch": 8, "per_class": 5}, "A batch of 8 does not hold two classes of per_class = 5"),
        ({"batch": 8, "pieces": 9}, "A batch of 8 cannot be cut into pieces = 9"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        changed(**values).checked()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "near"),
    [({"loss": "n-pair"}, "npair"), ({"data_name": "cub2000"}, "cub200"), ({"loss": "magin"}, "margin")],
)
def test_a_misspelt_name_gets_the_nearest_known_ones(values, near):
    with pytest.raises(UnknownName, match=near):
        changed(**values).checked()


@pytest.mark.parametrize(
    "values",
    [
        {"patience": 3, "holdout": 0.1},
        {"dim": 0},
        {"frozen": 1.0},
        {"memory": 4096, "memory_after": 100},
        {"sampler": "pairs", "per_class": 2},
        {"batch": 10, "per_class": 5, "pieces": 10},
        {"loss": "margin(beta=1.2)", "miner": "distance-weighted(cutoff=0.5)"},
    ],
)
def test_what_can_be_is_let_through(values):
    assert changed(**values, steps=1).checked() == changed(**values, steps=1)


def test_a_recipe_that_is_not_there_names_the_nearest_and_a_file_says_so():
    with pytest.raises(UnknownName, match="cub200-margin"):
        read_recipe("cub-margin")
    with pytest.raises(ConfigError, match=r"no recipe file 'mine\.toml'.*sop-npair"):
        read_recipe("mine.toml")
    with pytest.raises(ConfigError, match=r"no recipe file '\.\./x'"):
        read_recipe("../x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"batch = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"batch = '64'", r"'batch' \(in '.*mine\.toml'\)"),
        (b"rate = -1", r"mine\.toml' is not valid: rate = -1"),
        (b"loss = 'nper'", r"mine\.toml' is not valid: .*npair"),
    ],
)
def test_a_file_at_fault_is_named(tmp_path, text, message):
    (tmp_path / "mine.toml").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(str(tmp_path / "mine.toml"))


def test_the_recipes_of_the_brief_come_along_and_lie_among_the_examples():
    assert list_recipes() == NAMES
    examples = Path(__file__).parents[3] / "examples" / "recipes"
    assert sorted(path.stem for path in examples.glob("*.toml")) == list(NAMES)
    assert examples.resolve() == FOLDER.resolve()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_comes_along_can_be_built(name):
    recipe = read_recipe(name)
    if recipe.task == "image-text":
        loss = build_joint_loss(recipe.loss, dim=16, classes=8)
    else:
        loss = build_loss(recipe.loss, dim=16, classes=8, miner=recipe.miner)
    per_class = recipe.per_class or loss.per_class
    assert recipe.batch % per_class == 0
    assert not recipe.memory or isinstance(loss, PairLoss)
    find_dataset(recipe.data_name)
    assert recipe.title
    assert recipe.paper
    assert recipe.figure


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_of_a_recipe_is_one_that_torch_trains(name):
    spec = parse_spec(read_recipe(name).encoder)
    if spec.name == "torchvision":  # without its weights, which would have to be fetched
        spec = dataclasses.replace(spec, options={**spec.options, "weights": "none"})
        assert torchvision(spec).probe().shape[1] == 2048
    else:
        assert effnet(spec).probe().shape[1] == 1280


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_of_a_recipe_is_explained_above_it(name):
    title, *blocks = (FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n\n")
    assert [line.partition(" = ")[0] for line in title.splitlines()] == ["title", "paper", "figure"]
    for block in blocks:
        assert block.startswith("# "), block
        assert "\n" in block, block


def test_a_recipe_is_read_where_torch_is_not_installed():
    code = f"""{WITHOUT_TORCH}
from embedkit.training.recipe import read_recipe, list_recipes
for name in list_recipes():
    read_recipe(name).checked()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
