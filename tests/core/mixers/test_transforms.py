"""Whole mixers under forward mode, torch.vmap, torch.func and a second derivative: the float64 reference's answers."""

import copy
import pickle

import pytest
import torch
from torch.autograd import forward_ad
from torch.func import functional_call

from polymamba.core.mixers import get
from polymamba.core.scans import Grid

pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]
HEADS = {"d_state": 4, "headdim": 8}
MIXERS = {
    "mamba": ("mamba", {"d_state": 4}, (4,)),
    "mamba, skip": ("mamba", {"d_state": 4, "scan": "skip", "axes": 2}, Grid.with_class_token((2, 3), "middle")),
    "mamba2": ("mamba2", HEADS | {"scan": "bidirectional"}, (4,)),
    "mamba3": ("mamba3", HEADS | {"is_mimo": True}, (4,)),
    "s4d": ("s4d", {"d_state": 4}, (4,)),
    "attention": ("attention", {"num_heads": 2, "d_conv": 3}, (4,)),
}
STEPS = {
    "mamba": {"d_state": 4},
    "mamba2": HEADS,
    "mamba3": HEADS,
    "s4d": {"d_state": 4},
    "attention": {"num_heads": 2},
}
mixers = pytest.mark.parametrize("case", MIXERS)


def made(case):
    torch.manual_seed(0)
    name, options, grid = MIXERS[case]
    mixer = get(name)(16, **options)
    return (
        mixer,
        correct_one(mixer),
        grid,
        torch.randn(2, Grid(grid).length if isinstance(grid, tuple) else grid.length, 16),
    )


def correct_one(mixer):
    mixer = copy.deepcopy(mixer).double()
    mixer.backend = "reference"
    return mixer


def close(found, expected):
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-3, atol=1e-4)


@mixers
def test_forward_mode_of_tokens_and_parameters(case):
    mixer, correct, grid, x = made(case)
    parameters = {name: p.detach() for name, p in mixer.named_parameters()}
    tangents = {name: torch.randn_like(p) for name, p in parameters.items()}
    doubled = [{name: t.double() for name, t in each.items()} for each in (parameters, tangents)]
    expected = torch.func.jvp(
        lambda x, p: functional_call(correct, p, (x, grid))[0], (x.double(), doubled[0]), (x.double().cos(), doubled[1])
    )[1]
    with torch.no_grad(), forward_ad.dual_level():
        dual = {name: forward_ad.make_dual(parameters[name], tangents[name]) for name in parameters}
        y, _ = functional_call(mixer, dual, (forward_ad.make_dual(x, x.cos()), grid))
        close(forward_ad.unpack_dual(y).tangent, expected)


@pytest.mark.parametrize("name", STEPS)
def test_one_token_has_a_tangent_too(name):
    mixer = get(name)(16, **STEPS[name])
    x = torch.randn(2, 1, 16)
    correct = correct_one(mixer)
    expected = torch.func.jvp(lambda x: correct(x)[0], (x.double(),), (x.double().cos(),))[1]
    with torch.no_grad():
        close(torch.func.jvp(lambda x: mixer(x)[0], (x,), (x.cos(),))[1], expected)
        with forward_ad.dual_level():
            close(forward_ad.unpack_dual(mixer(forward_ad.make_dual(x, x.cos()))[0]).tangent, expected)
        several = torch.stack([x, 2 * x])
        close(torch.vmap(lambda x: mixer(x)[0])(several), torch.stack([mixer(each)[0] for each in several]))


@mixers
def test_vmap_over_tokens_and_sequence_numbers(case):
    mixer, _, grid, x = made(case)
    several, numbers = torch.stack([x, 2 * x, -x]), torch.tensor([0, 0, 1, -1, -1, -1, -1])[: x.shape[1]]
    numbers = torch.stack([numbers, numbers.clamp_min(0), 0 * numbers])[:, None].expand(-1, 2, -1)
    found = torch.vmap(lambda x, n: mixer(x, grid, seq_idx=n)[0])(several, numbers)
    close(
        found, torch.stack([mixer(*each, seq_idx=n)[0] for *each, n in zip(several, [grid] * 3, numbers, strict=True)])
    )


@mixers
def test_the_gradient_of_each_sample(case):
    mixer, _, grid, x = made(case)
    parameters = {name: p.detach() for name, p in mixer.named_parameters()}

    def loss(parameters, x):
        return functional_call(mixer, parameters, (x[None], grid))[0].square().sum()

    found = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for sample, each in enumerate(x):
        expected = torch.autograd.grad(mixer(each[None], grid)[0].square().sum(), list(mixer.parameters()))
        for name, gradient in zip(parameters, expected, strict=True):
            close(found[name][sample], gradient)


@pytest.mark.parametrize("case", [case for case in MIXERS if case != "attention"])
def test_a_gradient_of_a_gradient(case):
    mixer, correct, grid, x = made(case)

    def twice(mixer, x):
        wanted = [x.requires_grad_(), *mixer.parameters()]
        gradients = torch.autograd.grad(mixer(x, grid)[0].square().sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in gradients), wanted)

    for found, expected in zip(twice(mixer, x), twice(correct, x.double()), strict=True):
        assert (found - expected).norm() <= 1e-4 * expected.norm()


@mixers
def test_saved_tensors_elsewhere_and_part_of_the_gradients(case):
    mixer, _, grid, x = made(case)
    everything = torch.autograd.grad(mixer(x, grid)[0].square().sum(), list(mixer.parameters()))
    for wanted, expected in zip(mixer.parameters(), everything, strict=True):
        for parameter in mixer.parameters():
            parameter.requires_grad_(parameter is wanted)
        with torch.autograd.graph.save_on_cpu():
            value = mixer(x, grid)[0].square().sum()
        for keep in (True, False):
            close(torch.autograd.grad(value, wanted, retain_graph=keep)[0], expected)


@mixers
def test_copies_and_inference_mode(case):
    mixer, _, grid, x = made(case)
    expected = mixer(x, grid)[0]
    with torch.inference_mode():
        close(mixer(x, grid)[0], expected)
    for again in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
        close(again(x, grid)[0], expected)


@mixers
@pytest.mark.filterwarnings("ignore")
def test_traced_without_gradients(case):
    mixer, _, grid, x = made(case)

    class Traced(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mixer = mixer

        def forward(self, x):
            return self.mixer(x, grid)[0]

    with torch.no_grad():
        traced = torch.jit.trace(Traced(), x, check_trace=False)
        close(traced(3 * x), mixer(3 * x, grid)[0])
    x.requires_grad_()
    close(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (traced(x), mixer(x, grid)[0])))
