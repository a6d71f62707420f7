"""Two CPU processes, half a batch each, train a mixer as one process with the whole batch does."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from polymamba.core import mixers

OPTIONS = {
    "mamba": {"d_state": 4},
    "mamba2": {"d_state": 8, "headdim": 8},
    "mamba3": {"d_state": 8, "headdim": 8},
    "s4d": {"d_state": 4},
    "attention": {"num_heads": 2},
}
STEPS = 3


def train(model: torch.nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The weights after a few steps of descent."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        model(x)[0].square().mean().backward()
        optimizer.step()
    return {name.removeprefix("module."): p.detach() for name, p in model.named_parameters()}


def made(name: str) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return mixers.get(name)(16, **OPTIONS[name]), torch.randn(4, 11, 16)


def half(rank: int, name: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model, x = made(name)
    torch.save(train(DistributedDataParallel(model), x.chunk(2)[rank]), f"{folder}/{rank}")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_two_processes_train_as_one(name, tmp_path):
    multiprocessing.spawn(half, (name, str(tmp_path)), nprocs=2)
    expected = train(*made(name))
    for rank in range(2):
        found = torch.load(tmp_path / str(rank), weights_only=True)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6, msg=lambda m, key=key: f"{key}: {m}")
