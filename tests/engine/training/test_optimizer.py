import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.engine.command_line.config import OptimizerSettings
from polymamba.engine.training.optimizer import build_optimizer, factor, layer_scales, parameter_groups


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


def test_polynomial_as_nnunet():
    values = [factor(step, settings(schedule="polynomial", warmup=0, final_lr=0), 1000) for step in (0, 250, 999, 1000)]
    assert values == pytest.approx([1.0, 0.75**0.9, 0.001**0.9, 0.0])


class Layered(nn.Module):
    """Two layers and what is before and behind them, as timm's models say it."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(2, 2), nn.Linear(2, 2)
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem", "blocks": [(r"^layers\.(\d+)", None)]}


def test_layer_decay_is_a_power_of_the_layers_behind():
    scales = layer_scales(Layered(), 0.5)
    expected = {"stem": 0.125, "layers.0": 0.25, "layers.1": 0.5, "head": 1.0}
    assert scales == {f"{name}.{end}": scale for name, scale in expected.items() for end in ("weight", "bias")}
    optimizer, schedule = build_optimizer(Layered(), settings(layer_decay=0.5, warmup=0), 10)
    rates = {round(group["lr"] / 0.1, 6) for group in optimizer.param_groups}
    assert rates == {0.125, 0.25, 0.5, 1.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 8
    optimizer.step()
    for _ in range(10):
        schedule.step()
    assert {round(group["lr"] / 0.1, 6) for group in optimizer.param_groups} == {
        round(each * 0.01, 6) for each in (0.125, 0.25, 0.5, 1.0)
    }
    with pytest.raises(UserError, match="does not say its layers"):
        build_optimizer(Model(), settings(layer_decay=0.5), 10)
