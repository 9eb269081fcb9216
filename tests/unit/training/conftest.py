"""Pictures to train on."""

from __future__ import annotations

import pytest

from tests.conftest import picture


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Sixteen classes of four pictures: a pattern, in four brightnesses."""
    root = tmp_path_factory.mktemp("shop")
    for place in range(16):
        folder = root / f"thing {place:02}"
        folder.mkdir()
        for copy in range(4):
            picture(place, (64, 64)).point(lambda value, copy=copy: value * (8 - copy) // 8).save(
                folder / f"{copy}.png"
            )
    return root
