"""Deep adversarial metric learning: a network that makes hard negatives, trained along with the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from embedkit.errors import ConfigError
from embedkit.specs import SpecText
from embedkit.training.losses.contract import Loss, PairLoss, nothing
from embedkit.training.losses.contrastive import Contrastive
from embedkit.training.losses.lifted import Lifted
from embedkit.training.losses.npair import NPair
from embedkit.training.losses.triplets import Triplet
from embedkit.training.pairs import Batch, distances, mean_of, squared_distances, unit

__all__ = ["DAML", "Generator", "daml"]

BASES = ("contrastive", "lifted", "npair", "triplet")


class Generator(nn.Module):
    """Three layers that turn the features of anchor, positive and negative into a synthetic negative."""

    def __init__(self, features: int, hidden: int = 512) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3 * features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, features),
        )

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        made: Tensor = self.layers(torch.cat([anchor, positive, negative], dim=1))
        return made


class DAML(Loss):
    """Duan 2018: J = J_gen + λ J_m, λ₁ = 1, λ₂ = 50, λ = 1.

    J_gen = J_hard + λ₁ J_reg + λ₂ J_adv: the synthetic negative x̃ is to be near its anchor, ‖x̃ - x‖²; near the
    negative it was made from, ‖x̃ - x⁻‖²; and to fool the metric, max(0, D²(x̃, x) - D²(x, x⁺) - α). It moves the
    generator only. J_m is the base loss with x̃ in the place of the negatives, and moves the embedding only.

    The generator works on features, before the embedding layer. A trainer that sees `takes_features` calls
    `attach(layer, features)` once and then hands in features; without it features and embeddings are one. The paper
    first trains the metric, then the generator, then both; here the base loss on real negatives goes on all the
    while, and J_m joins after `warmup` steps. Every positive pair has `negatives` synthetic ones.

    On triplets `daml` takes λ = 0.1: J_adv is content once x̃ lies within the margin, so every synthetic triplet costs
    something for ever, and with λ = 1 what they all pull together, the positives, outweighs the real negatives.
    """

    takes_features = True
    steps: Tensor

    def __init__(
        self,
        dim: int,
        base: PairLoss,
        *,
        weight: float = 1.0,
        regular: float = 1.0,
        adversarial: float = 50.0,
        alpha: float = 0.2,
        negatives: int = 2,
        warmup: int = 100,
    ) -> None:
        super().__init__()
        self.base, self.normalise, self.per_class = base, base.normalise, base.per_class
        self.weight, self.regular, self.adversarial, self.alpha = weight, regular, adversarial, alpha
        self.negatives, self.warmup = negatives, warmup
        self.generator = Generator(dim)
        self.register_buffer("steps", torch.tensor(0))
        self._layer: tuple[nn.Module, ...] = ()  # in a tuple, so that its parameters do not become ours

    def relate(self, concepts: Tensor) -> None:
        super().relate(concepts)
        self.base.relate(concepts)

    def attach(self, layer: nn.Module, features: int) -> None:
        """Work on `features` numbers that `layer` turns into embeddings."""
        self._layer = (layer,)
        self.generator = Generator(features).to(self.steps.device)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Features, where a layer is attached."""
        if embeddings.dtype in (torch.float16, torch.bfloat16):
            embeddings = embeddings.float()
        features = self.prepare(embeddings, labels) if not self._layer else embeddings
        embedded = self.prepare(self._embed(features), labels)
        real: Tensor = self.base(embedded, labels)
        anchor, positive, negative = self._tuples(Batch.of(embedded, labels, alike=self.alike))
        if not len(anchor):
            return real + nothing(embedded)
        if self.training:
            self.steps += 1
        fixed = features.detach()
        owner = torch.arange(len(anchor), device=anchor.device).repeat_interleave(self.negatives)
        near, far = fixed[anchor[owner]], fixed[negative.flatten()]
        made = self.generator(near, fixed[positive[owner]], far)
        generated = self._generation(made, near, far, embedded.detach(), anchor[owner], positive[owner])
        if self.steps <= self.warmup and self.training:
            return real + generated
        synthetic = self._embed(made.detach()).view(len(anchor), self.negatives, -1)
        return real + generated + self.weight * self.metric(embedded[anchor], embedded[positive], synthetic)

    def _embed(self, features: Tensor, *, frozen: bool = False) -> Tensor:
        if self._layer and frozen:
            state = {name: value.detach() for name, value in self._layer[0].named_parameters()}
            features = functional_call(self._layer[0], state, (features,))
        elif self._layer:
            features = self._layer[0](features)
        return unit(features) if self.normalise else features

    def _tuples(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The ordered positive pairs, and for each of them `negatives` negatives drawn at random."""
        anchor, positive = (batch.positive & batch.negative.any(1, keepdim=True)).nonzero(as_tuple=True)
        if not len(anchor):
            return anchor, positive, anchor
        drawn = torch.multinomial(batch.negative[anchor].float(), self.negatives, replacement=True)
        return anchor, positive, drawn

    def _generation(
        self, made: Tensor, near: Tensor, far: Tensor, embedded: Tensor, anchor: Tensor, positive: Tensor
    ) -> Tensor:
        hard = (made - near).square().sum(1)
        regular = (made - far).square().sum(1)
        reached = (self._embed(made, frozen=True) - embedded[anchor]).square().sum(1)
        wanted = (embedded[anchor] - embedded[positive]).square().sum(1)
        adversarial = (reached - wanted - self.alpha).clamp_min(0)
        return (hard + self.regular * regular + self.adversarial * adversarial).mean()

    def metric(self, anchor: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        """J_m: the base loss of pairs ``(p, d)``, ``(p, d)`` against their own negatives ``(p, k, d)``."""
        if isinstance(self.base, NPair):
            similar = (negatives @ anchor[:, :, None]).squeeze(2) - (anchor * positive).sum(1, keepdim=True)
            return F.softplus((self.base.scale_of(anchor) * similar).logsumexp(1)).mean()
        here = anchor[:, None]
        near, far = squared_distances(here, positive[:, None]).flatten(), squared_distances(here, negatives).squeeze(1)
        if isinstance(self.base, Triplet):
            cost = (self.base.margin + near[:, None] - far).clamp_min(0)
            return mean_of(cost, cost > 0)
        far = distances(here, negatives).squeeze(1)
        if isinstance(self.base, Contrastive):
            short = (self.base.margin - far).clamp_min(0)
            return (near + short.square().sum(1)).mean() / 2
        assert isinstance(self.base, Lifted)
        scale = self.base.scale
        both = scale * torch.cat([far, distances(positive[:, None], negatives).squeeze(1)], dim=1)
        cost = (self.base.margin - both).logsumexp(1) + scale * distances(here, positive[:, None]).flatten()
        return cost.clamp_min(0).square().mean() / 2


def daml(spec: SpecText, *, dim: int, classes: int) -> DAML:
    """``daml(base=npair, weight=1, regular=1, adversarial=50, alpha=0.2, negatives=2, warmup=100, margin=…)``.

    `base` is contrastive, triplet, lifted or npair; `margin` that of the first three; `weight` is λ, 0.1 on triplets.
    """
    spec.only("base", "weight", "regular", "adversarial", "alpha", "negatives", "warmup", "margin")
    base = _base(spec)
    return DAML(
        dim,
        base,
        weight=spec.number("weight", 0.1 if isinstance(base, Triplet) else 1.0, 0.0, 1e6),
        regular=spec.number("regular", 1.0, 0.0, 1e6),
        adversarial=spec.number("adversarial", 50.0, 0.0, 1e6),
        alpha=spec.number("alpha", 0.2, 0.0, 1e6),
        negatives=spec.whole_number("negatives", 2, 1, 1000),
        warmup=spec.whole_number("warmup", 100, 0, 10**9),
    )


def _base(spec: SpecText) -> PairLoss:
    name = spec.choice("base", "npair", BASES)
    if name == "npair":
        if "margin" in spec.options:
            raise ConfigError(f"margin in the loss {spec.text!r} has no meaning for base=npair")
        return NPair()
    if name == "triplet":
        return Triplet(spec.number("margin", 0.2, 0.0, 4.0))
    if name == "lifted":
        return Lifted(spec.number("margin", 1.0, 0.0, 1e6))
    return Contrastive(spec.number("margin", 1.0, 0.0, 1e6))
