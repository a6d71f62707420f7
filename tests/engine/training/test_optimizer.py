import pytest
import torch
from torch import nn

from polymamba.engine.command_line.config import OptimizerSettings
from polymamba.engine.training.optimizer import build_optimizer, factor, parameter_groups


def settings(**changes):
    values = {"name": "adamw", "lr": 0.1, "weight_decay": 0.05, "schedule": "cosine", "warmup": 0.1, "final_lr": 0.01}
    return OptimizerSettings(**{**values, **changes})


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.A_log = nn.Parameter(torch.zeros(4, 2))
        self.position = nn.Parameter(torch.zeros(1, 3, 4))
        self.marked = nn.Parameter(torch.zeros(2, 2))
        self.marked._no_weight_decay = True
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    def no_weight_decay(self):
        return {"position"}


def test_parameter_groups():
    decayed, kept = parameter_groups(Model())
    assert set(decayed) == {"linear.weight"}
    assert set(kept) == {"linear.bias", "norm.weight", "norm.bias", "A_log", "position", "marked"}


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_groups_get_their_decay(name, kind):
    optimizer, _ = build_optimizer(Model(), settings(name=name, momentum=0.9), 100)
    assert isinstance(optimizer, kind)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]


def test_warm_up_then_cosine():
    values = [factor(step, settings(), 100) for step in range(101)]
    assert values[0] == pytest.approx(1 / 11)
    assert values[:11] == sorted(values[:11])
    assert values[10] == 1.0
    assert values[55] == pytest.approx(0.01 + 0.99 * 0.5)
    assert values[100] == pytest.approx(0.01)


def test_constant_and_warm_up_in_steps():
    values = [factor(step, settings(schedule="constant", warmup=3), 100) for step in range(6)]
    assert values == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
