"""Variations of pictures: what follows from the seed, what each does, and what leaves a picture as it is."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from embedkit.training.augment import Augmenter, step_seed
from embedkit.training.recipe import Augment

NOTHING = {"flip": False, "crop": 1.0, "colour": 0.0, "rotate": 0.0, "erase": 0.0}
EVERYTHING = Augment(flip=True, crop=0.3, colour=1.0, rotate=30.0, erase=1.0)


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (64, 12, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def varied(pixels, seed=1, **options):
    return Augmenter(Augment(**{**NOTHING, **options}))(pixels, seed=seed)


def test_without_any_variation_pixels_stay_as_they_are(pixels):
    assert torch.equal(varied(pixels), pixels.float())


def test_the_same_seed_gives_the_same_pixels_whatever_torch_drew_before(pixels):
    first = Augmenter(EVERYTHING)(pixels, seed=3)
    torch.rand(5)
    assert torch.equal(Augmenter(EVERYTHING)(pixels, seed=3), first)
    assert not torch.equal(Augmenter(EVERYTHING)(pixels, seed=4), first)


def test_variation_leaves_the_random_numbers_of_torch_alone(pixels):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Augmenter(EVERYTHING)(pixels, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_values_stay_within_a_byte_and_the_shape_as_it_was(pixels):
    for extreme in (pixels, torch.zeros_like(pixels), torch.full_like(pixels, 255)):
        made = Augmenter(EVERYTHING)(extreme, seed=5)
        assert made.shape == pixels.shape
        assert made.dtype == torch.float32
        assert 0 <= made.min() <= made.max() <= 255


def test_a_flip_mirrors_about_half_of_the_pictures_exactly(pixels):
    made = varied(pixels, flip=True)
    mirrored = [torch.equal(new, old.flip(1)) for new, old in zip(made, pixels.float(), strict=True)]
    same = [torch.equal(new, old) for new, old in zip(made, pixels.float(), strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 20 < sum(mirrored) < 44


def test_a_crop_shows_a_part_of_the_picture_enlarged():
    ramp = torch.arange(100, dtype=torch.uint8).expand(64, 100, 100).unsqueeze(3).expand(-1, -1, -1, 3)
    made = varied(ramp, crop=0.25)[:, 50, :, 0]
    slopes = made[:, 1:] - made[:, :-1]
    assert (slopes >= -1e-3).all()  # never mirrored
    covered = made[:, -1] - made[:, 0]
    assert covered.max() <= 99
    assert covered.min() > 0.25**0.5 * (3 / 4) ** 0.5 * 99 - 3  # the least area, at the narrowest ratio of its sides


@pytest.mark.parametrize("size", [(41, 41), (41, 61)], ids=["square", "wide"])
def test_a_turn_keeps_the_middle_and_every_distance_from_it(size):
    height, width = size
    rows, columns = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    blob = (255 * torch.exp(-(rows**2 + columns**2) / 100)).to(torch.uint8)[None, :, :, None].expand(32, -1, -1, 3)
    assert (varied(blob, rotate=180) - blob).abs().max() < 6  # what is round looks the same, but for the rounding
    bar = (255 * (rows.abs() <= 2)).to(torch.uint8)[None, :, :, None].expand(32, -1, -1, 3)
    assert ((varied(bar, rotate=180) - bar).abs() > 128).float().mean() > 0.05  # a bar does not


def test_colour_leaves_black_black_and_grey_without_colour():
    grey = torch.full((8, 4, 4, 3), 100, dtype=torch.uint8)
    made = varied(grey, colour=0.5)
    assert torch.allclose(made, made[..., :1].expand_as(made), atol=1e-3)
    assert len(made.flatten(1).mean(1).unique()) == 8
    assert not varied(torch.zeros_like(grey), colour=0.5).any()


def test_erasing_blanks_one_rectangle_of_every_chosen_picture(pixels):
    made = varied(pixels, erase=1.0)
    for new, old in zip(made, pixels.float(), strict=True):
        rows, columns = torch.nonzero((new != old).any(2), as_tuple=True)
        assert len(rows)
        part = new[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.allclose(part, old.mean((0, 1)).expand_as(part), atol=1e-3)
    assert torch.equal(varied(pixels, erase=0.0), pixels.float())


def test_seeds_of_steps_and_processes_differ():
    seeds = {step_seed(seed, step, shard) for seed in range(4) for step in range(50) for shard in range(4)}
    assert len(seeds) == 4 * 50 * 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    gaps = [later - earlier for earlier, later in pairwise(step_seed(0, step) for step in range(50))]
    assert len(set(gaps)) > 40  # neighbours are no fixed distance apart


def test_training_pictures_may_be_smaller_than_what_is_judged():
    pixels = torch.full((3, 40, 40, 3), 77, dtype=torch.uint8)
    made = Augmenter(Augment(flip=False, crop=1.0, colour=0.0, size=24))(pixels, seed=0)
    assert made.shape == (3, 24, 24, 3)
    assert torch.allclose(made, torch.tensor(77.0))


def test_smaller_pictures_have_the_texture_of_those_that_are_judged():
    """Noise of every fineness, as photos have it, 224 to 96, beside the bicubic resize by which encoders judge."""
    random, noise = np.random.default_rng(0), 0.0
    for side in (1, 2, 4, 8):
        noise += np.kron(random.normal(size=(4, 224 // side, 224 // side, 3)), side * np.ones((1, side, side, 1)))
    pixels = np.clip(128 + 6 * noise, 0, 255).astype(np.uint8)
    judged = [np.asarray(Image.fromarray(one).resize((96, 96), Image.Resampling.BICUBIC)) for one in pixels]
    expected = np.stack(judged).astype(np.float64)
    made = varied(torch.from_numpy(pixels), size=96).numpy()
    assert np.abs(made - expected).mean() < 5
    rough, wanted = (np.abs(np.diff(one, axis=1)).mean() for one in (made, expected))
    assert rough == pytest.approx(wanted, rel=0.08)


def test_a_picture_that_shrinks_by_little_is_read_once_for_each_pixel():
    ramp = torch.arange(120, dtype=torch.uint8).expand(2, 120, 120).unsqueeze(3).expand(-1, -1, -1, 3)
    for size in (80, 40):  # 1.5 to 1, and 3 to 1 as the mean of 2 x 2
        expected = (torch.arange(size) + 0.5) * 120 / size - 0.5
        assert torch.allclose(varied(ramp, size=size)[0, 5, :, 0], expected, atol=1e-3)
