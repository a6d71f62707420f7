"""What torch.compile makes of a mixer on a card: one graph. Tensors without numbers stand for the card's."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from polymamba.core.mixers import get

OPTIONS = {"mamba": {}, "mamba2": {"d_state": 32, "headdim": 16}, "mamba3": {"d_state": 32, "headdim": 16}}
OPTIONS |= {"s4d": {}, "attention": {"num_heads": 4}}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_mixer_is_one_graph(name):
    graphs = []

    def collect(graph, examples):
        graphs.append(graph)
        return graph.forward

    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            mixer, x = get(name)(64, **OPTIONS[name]), torch.randn(2, 48, 64)
        y, _ = torch.compile(mixer, backend=collect, fullgraph=True)(x)
    assert len(graphs) == 1
    assert y.shape == x.shape
    assert y.device.type == "cuda"
