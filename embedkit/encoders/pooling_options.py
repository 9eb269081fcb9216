"""What a spec string says about pooling, read without torch: ``pooling=netvlad, clusters=8, dim=512``."""

from __future__ import annotations

from dataclasses import dataclass

from embedkit.errors import ConfigError
from embedkit.specs import SpecText

__all__ = ["POOLINGS", "POOLING_OPTIONS", "PoolingOptions"]

POOLINGS = ("avg", "max", "gem", "rmac")  # they work without being fitted
POOLING_OPTIONS = ("pooling", "clusters", "dim")
_CLUSTERS = 16


@dataclass(frozen=True, slots=True)
class PoolingOptions:
    """`clusters`: the centres of NetVLAD. `dim`: what a whitening reduces to; 0 is none."""

    name: str
    clusters: int = _CLUSTERS
    dim: int = 0

    @classmethod
    def of(cls, spec: SpecText, *, default: str = "avg", known: tuple[str, ...] = POOLINGS) -> PoolingOptions:
        """Raises ConfigError. NetVLAD is always known beside `known`."""
        name = spec.choice("pooling", default, (*known, "netvlad"))
        if "clusters" in spec.options and name != "netvlad":
            raise ConfigError(f"clusters={spec.options['clusters']} in {spec.text!r} needs pooling=netvlad")
        dim = spec.whole_number("dim", 2, 2, 8192) if "dim" in spec.options else 0
        return cls(name, spec.whole_number("clusters", _CLUSTERS, 2, 1024), dim)

    @property
    def fitted(self) -> bool:
        """Whether it is of no use before it was fitted to pictures."""
        return self.name == "netvlad" or self.dim > 0

    def unfitted(self, spec: SpecText) -> str:
        """The name of a pooling that works as it is. Raises ConfigError for one that must be fitted first."""
        if self.fitted:
            raise ConfigError(
                f"{spec.text!r} is fitted to your pictures when it is written out; "
                f"run: embedkit export {spec.text!r} FOLDER --fit PICTURES"
            )
        return self.name
