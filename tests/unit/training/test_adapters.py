"""Low-rank adapters: where they start, what of a network they move, and that a run folder holds a plain network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from embedkit.errors import ConfigError
from embedkit.training.adapters import LowRank, adapter_parameters, add_adapters, merge_adapters


class Network(nn.Module):
    """A convolution, one by groups, attention and a linear layer."""

    def __init__(self):
        super().__init__()
        self.plain, self.grouped = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.attention, self.linear = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 12)

    def forward(self, pixels):
        tokens = self.grouped(self.plain(pixels)).flatten(2).mT
        return self.linear(self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


PIXELS = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


def test_an_adapter_is_hu_2021_a_product_beside_the_matrix():
    weight, adapter = torch.randn(6, 2, 3, 3), LowRank(torch.randn(6, 2, 3, 3), 2)
    assert torch.equal(adapter(weight), weight), "it starts at nothing"
    nn.init.normal_(adapter.b)
    expected = weight.reshape(6, 18) + adapter.b @ adapter.a
    torch.testing.assert_close(adapter(weight).reshape(6, 18), expected)


def test_training_starts_from_the_network_as_it_is_and_a_merged_one_gives_what_was_trained(network):
    before, names = network(PIXELS), set(network.state_dict())
    start = copy.deepcopy(network.state_dict())
    assert add_adapters(network, 2) == 4, "plain convolution, linear layer, both matrices of attention"
    torch.testing.assert_close(network(PIXELS), before)
    for parameter in adapter_parameters(network):
        nn.init.normal_(parameter)
    trained = network(PIXELS)
    assert not torch.allclose(trained, before, atol=1e-2)
    merge_adapters(network)
    torch.testing.assert_close(network(PIXELS), trained)
    assert set(network.state_dict()) == names
    moved = {name: after - start[name] for name, after in network.state_dict().items() if (after != start[name]).any()}
    assert set(moved) == {"plain.weight", "linear.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    for name, change in moved.items():
        assert torch.linalg.matrix_rank(change.flatten(1), tol=1e-4) == 2, name


def test_a_network_without_a_matrix_that_becomes_smaller_is_refused(network):
    with pytest.raises(ConfigError, match="no matrix that lora = 64 would make smaller"):
        add_adapters(network, 64)
