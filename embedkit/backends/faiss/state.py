"""What the committed rows of a collection are, as this process last read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from embedkit.backends.contract import IndexSpec
from embedkit.backends.faiss import kernel

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["State"]


@dataclass(frozen=True)
class State:
    """What the committed rows are. `ids`: by position, -1 where dead; `alive`: where they are not, None if all are.

    `vectors` may hold rows behind the last one that counts. `seen`: the last numbers of the logs of dead and of
    changed rows that this state knows. `built`: rows that the index was built over, before others were added.
    `admitted`: what the last filters admit of it; whatever is written makes another state, which knows none.
    """

    ids: IdArray
    vectors: VectorArray
    alive: kernel.Mask | None
    generation: int
    index: Any
    index_file: str
    made_of: IndexSpec
    built: int
    seen: tuple[int, int]
    admitted: dict[str, kernel.Admitted] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.ids)

    @property
    def live(self) -> int:
        return self.size if self.alive is None else int(np.count_nonzero(self.alive))

    @property
    def covered(self) -> int:
        """Rows that the index knows."""
        return self.index.ntotal if self.index is not None else 0

    @cached_property
    def order(self) -> kernel.Order | None:
        """None if the ids of the living rows ascend with their positions."""
        return kernel.Order.of(self.ids)
