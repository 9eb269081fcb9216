"""Writes ``embedkit/encoders/probes/effnet-lite0.json`` with the network of the package that published the weights.

Run it from the root when the preprocessing of the offline encoder changes.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch.nn import functional as F

from embedkit.encoders.effnet_weights import effnet_weights
from embedkit.encoders.pooling_options import POOLINGS
from embedkit.encoders.poolings import make_pooling
from embedkit.encoders.preprocess import Preprocess
from embedkit.encoders.probe import pack, probe_pixels


def main() -> None:
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(effnet_weights())).eval()
    recipe = Preprocess()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (recipe.mean, recipe.std))
    pixels = torch.from_numpy(probe_pixels(recipe.size)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        features = network.extract_features((pixels - mean) / std)
        probes = {f"{name}-224": pack(F.normalize(make_pooling(name)(features), dim=1).numpy()) for name in POOLINGS}
    Path("embedkit/encoders/probes/effnet-lite0.json").write_text(json.dumps(probes, indent=1) + "\n")


if __name__ == "__main__":
    main()
