"""What core computes depends on the tensors it is given, never on PyTorch's default dtype or default device."""

from contextlib import contextmanager
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.core import initialisation, packing
from polymamba.core.explanation import explain, hidden_attention
from polymamba.core.linear import applied
from polymamba.core.mixers import MIXERS, walk
from polymamba.core.mlp import GatedMLP
from polymamba.core.moe import MixtureOfExperts, balance_loss
from polymamba.core.ops.causal_conv1d import causal_conv1d, causal_conv1d_decode
from polymamba.core.ops.linear import linear
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.ops.state_space_duality import cpu as duality
from polymamba.core.ops.state_space_duality import state_space_duality
from polymamba.core.ops.trapezoidal_scan import trapezoidal_scan
from polymamba.core.scans import Grid, get
from polymamba.core.scans.modes import MODES
from polymamba.core.scans.scan import ORDERS
from polymamba.core.stack import ResidualBlock, final_norm, make_norm, run_stack

PLACE = {"dtype": torch.float32, "device": "cpu"}
DEFAULTS = ["float16", "bfloat16", "float64", "meta", "with meta"]
OPTIONS = {
    "mamba": {"d_state": 4},
    "mamba2": {"d_state": 8, "headdim": 8, "ngroups": 2},
    "mamba3": {"d_state": 8, "headdim": 8},
    "s4d": {"d_state": 4},
    "attention": {"num_heads": 2, "num_heads_kv": 1, "rotary_fraction": 1.0, "d_conv": 2},
}


@contextmanager
def default(name: str):
    """Another default dtype or device, and nothing kept from calls before."""
    before = torch.get_default_dtype()
    for kept in (walk.walk, duality._places):
        kept.cache_clear()
    ORDERS._kept.clear()
    try:
        if name == "with meta":
            with torch.device("meta"):
                yield
        elif name == "meta":
            torch.set_default_device("meta")
            yield
        else:
            torch.set_default_dtype(getattr(torch, name))
            yield
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(before)


class Numbers:
    """Draws float32 tensors on the CPU that want a gradient, and gives the gradients."""

    def __init__(self):
        self.generator, self.drawn = torch.Generator("cpu").manual_seed(0), []

    def __call__(self, *shape: int, low: float | None = None) -> torch.Tensor:
        draw = torch.randn if low is None else torch.rand
        self.drawn.append((draw(*shape, generator=self.generator, **PLACE) + (low or 0)).requires_grad_())
        return self.drawn[-1]

    def results(self, *outputs: torch.Tensor, parameters=()) -> list[torch.Tensor]:
        return [*outputs, *torch.autograd.grad(sum(out.square().sum() for out in outputs), [*self.drawn, *parameters])]


def ints(values: list) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64, device="cpu")


SEQUENCES = [[0] * 5 + [3] * 6 + [-1] * 2, [7] * 13]
BACKWARDS = [list(range(13)), list(range(12, -1, -1))]


def seeded(make, *arguments, **options) -> nn.Module:
    torch.manual_seed(0)
    return make(*arguments, **options, **PLACE)


def scan_case(backend):
    n = Numbers()
    x, z, delta, B, C = n(2, 13, 6), n(2, 13, 6), n(2, 13, 6), n(2, 13, 3), n(2, 13, 3)
    y, state = selective_scan(
        x, delta, -n(2, 6, 3, low=0.1), B, C, n(6), z, n(6), True, ints(BACKWARDS), ints(SEQUENCES), n(2, 2, 6, 3), True,
        backend=backend,
    )  # fmt: skip
    return n.results(y, state)


def convolution_case(backend):
    n = Numbers()
    arguments = (n(2, 13, 6), n(2, 6, 4), n(2, 6), "silu", ints(BACKWARDS), ints(SEQUENCES), n(2, 2, 6, 3), True)
    return n.results(*causal_conv1d(*arguments, backend=backend))


def duality_case(backend, steps=13):
    n = Numbers()
    y, state = state_space_duality(
        n(2, steps, 4, 3), n(2, steps, 4), -n(4, low=0.1), n(2, steps, 2, 5), n(2, steps, 2, 5), n(4), n(2, steps, 4, 3), n(4),
        True, seq_idx=ints(SEQUENCES)[:, :steps], initial_state=n(2, 4, 3, 5), return_final_state=True, backend=backend,
    )  # fmt: skip
    return n.results(y, state)


def trapezoidal_case(backend):
    n = Numbers()
    steps = (-n(2, 13, 4, low=0.1), n(2, 13, 4, low=0.1), n(2, 13, 4, low=0.0))
    given = (n(2, 13, 2, 4, 3), *steps, n(2, 13, 2, 1, 5), n(2, 13, 2, 1, 5), n(4), ints(BACKWARDS), ints(SEQUENCES))
    return n.results(trapezoidal_scan(*given, backend=backend))


@torch.no_grad()
def one_token_case(backend):
    n = Numbers()
    x, state, taps = n(3, 1, 6), n(3, 6, 4), n(6, 5)
    found = causal_conv1d(x, taps, n(6), "silu", initial_state=state, return_final_state=True, backend=backend)
    moved = state.clone()
    stepped = causal_conv1d_decode(x, taps, None, None, moved)
    B = n(3, 1, 4)
    scanned = selective_scan(
        x,
        x,
        -n(6, 4, low=0.1),
        B,
        B,
        n(6),
        x,
        n(6),
        True,
        initial_state=state,
        return_final_state=True,
        backend=backend,
    )
    return [*found, stepped, moved, *scanned, linear(x, n(7, 6), n(7))]


def mixer_case(name, **options):
    n, mixer = Numbers(), seeded(MIXERS[name], 16, **OPTIONS[name], **options)
    grid = Grid((3, 4), extra=(6,)) if options else None
    y, state = mixer(n(2, 13, 16), grid)
    packed, _ = mixer(n(2, 13, 16), grid, None, ints(SEQUENCES) if options.get("conv") != "grid" else None)
    found = n.results(y, packed, parameters=mixer.parameters())
    if state is not None:
        with torch.no_grad():
            for length in (1, 2):
                y, state = mixer(n(2, length, 16), None, state)
                found += [y, *(t for t in state if t is not None)]
    return found


def stack_case():
    torch.manual_seed(0)
    n, layers = Numbers(), []
    for name in OPTIONS:
        mlp = MixtureOfExperts(16, 8, 3, top_k=2, **PLACE) if name == "mamba" else GatedMLP(16, 8, **PLACE)
        mixer, norms = (
            MIXERS[name](16, **OPTIONS[name], **PLACE),
            [make_norm(kind, 16, **PLACE) for kind in ("rms", "layer")],
        )
        layers.append(ResidualBlock(mixer, norms[0], mlp, norms[1]))
    layers, norm = nn.ModuleList(layers), make_norm("rms", 16, **PLACE)
    initialisation.scale_output_projections(layers, 5)
    y = final_norm(run_stack(layers, n(2, 13, 16), seq_idx=ints(SEQUENCES)), norm)
    found = n.results(y, balance_loss(layers)[None], parameters=layers.parameters())
    layers.eval()
    with torch.no_grad():
        start = run_stack(layers, n(2, 5, 16))
        found += [start.hidden, final_norm(run_stack(layers, n(2, 1, 16), states=start.states), norm)]
    return found


@torch.no_grad()
def decoding_case(name):
    n = Numbers()
    torch.manual_seed(0)
    layers = [
        ResidualBlock(MIXERS[name](16, **OPTIONS[name], **PLACE), make_norm("rms", 16, **PLACE)) for _ in range(3)
    ]
    result = run_stack(layers, n(2, 4, 16))
    result = run_stack(layers, n(2, 1, 16), states=result.states)
    return [result.hidden, result.residual, *(t for state in result.states for t in state if t is not None)]


def explanation_case(name):
    n, mixer = Numbers(), seeded(MIXERS[name], 16, **OPTIONS[name])
    return [hidden_attention(mixer, n(2, 13, 16), seq_idx=ints(SEQUENCES))]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            ResidualBlock(MIXERS[name](16, **OPTIONS[name], **PLACE), make_norm("rms", 16, **PLACE)) for name in OPTIONS
        )
        self.norm, self.head = make_norm("rms", 16, **PLACE), torch.nn.Linear(16, 3, **PLACE)

    def forward(self, x):
        return applied(self.head, final_norm(run_stack(self.layers, x), self.norm))


def maps_case():
    x, model = Numbers()(2, 13, 16).detach(), Model()
    score = {"attribution": lambda y: y[:, -1].sum()}
    return [explain(model, x, method=method, score=score.get(method)) for method in ("raw", "rollout", "attribution")]


def scans_case():
    found = []
    for name, mode in MODES.items():
        for sizes in ((8,), (8, 8), (8, 8, 8)):
            if len(sizes) in mode.ndims:
                found.append(get(name).order(Grid(sizes, extra=(0,))))
    return found


def packing_case():
    sequences = ints(SEQUENCES)
    number = packing.runs(sequences)
    return [
        packing.seq_idx_from_mask(sequences >= 0), packing.seq_idx_from_lengths(ints([3, 5]), 6, "left"),
        packing.seq_idx_from_cu_seqlens(ints([0, 3, 5]), 7), packing.skip_padding(None, sequences), number,
        packing.places(number), packing.without_padding(torch.ones(2, 13, 2, **PLACE), sequences),
    ]  # fmt: skip


def start_case():
    torch.manual_seed(0)
    bias, weight = torch.empty(64, **PLACE), torch.empty(8, 4, **PLACE)
    initialisation.init_step_bias(bias, 0.001, 0.1, 1e-4)
    initialisation.init_step_projection(weight, "random", 1.0)
    return [bias, weight, initialisation.log_decay(3, 4, torch.device("cpu"))]


CASES = {"one token": (one_token_case, "auto"), "stack": (stack_case,), "maps": (maps_case,), "scans": (scans_case,)}
CASES |= {"packing": (packing_case,), "start": (start_case,)}
for operator in (scan_case, convolution_case, duality_case, trapezoidal_case):
    CASES |= {f"{operator.__name__} {backend}": (operator, backend) for backend in ("cpu", "reference")}
CASES |= {f"{name} mixer": (mixer_case, name) for name in OPTIONS}
CASES |= {f"{name} explained": (explanation_case, name) for name in OPTIONS}
CASES |= {f"{name} decoding": (decoding_case, name) for name in ("mamba", "mamba2")}


CASES |= {
    f"{name} on paths": (partial(mixer_case, scan="bidirectional", axes=2), name)
    for name in OPTIONS
    if name != "attention"
}
CASES["mamba on a grid"] = (partial(mixer_case, scan="bidirectional", axes=2, conv="grid"), "mamba")
CASES["duality of one step"] = (partial(duality_case, steps=1), "cpu")


def compute(case: str) -> list[torch.Tensor]:
    function, *arguments = CASES[case]
    return function(*arguments)


@pytest.fixture(scope="module")
def usual():
    """Results under PyTorch's own defaults, by case; computed once."""
    return {}


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("case", CASES)
def test_results_do_not_depend_on_the_defaults(case, name, usual):
    if case not in usual:
        usual[case] = compute(case)
    with default(name):
        found = compute(case)
    assert len(found) == len(usual[case])
    for one, other in zip(found, usual[case], strict=True):
        assert one.dtype == other.dtype
        assert one.device == other.device
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "tolerance"), [("float16", 2e-2), ("bfloat16", 1e-1), ("float64", 1e-5)])
@pytest.mark.parametrize("mixer", OPTIONS)
def test_a_mixer_made_in_another_default_dtype(mixer, name, tolerance):
    torch.manual_seed(0)
    usual = MIXERS[mixer](16, **OPTIONS[mixer])
    x = torch.randn(2, 13, 16)
    with default(name):
        made = MIXERS[mixer](16, **OPTIONS[mixer])
        assert made.in_proj.weight.dtype == torch.get_default_dtype()
        made.load_state_dict(usual.state_dict())
        given = x.to(torch.get_default_dtype()).requires_grad_()
        y, state = made(given)
        y.float().square().sum().backward()
        with torch.no_grad():
            one, _ = made(given[:, :1], None, state)
    expected, state = usual(x)
    assert relative(y, expected) < tolerance
    assert relative(one, usual(x[:, :1], None, state)[0]) < tolerance
    assert given.grad.isfinite().all()


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("mixer", OPTIONS)
def test_a_mixer_is_made_without_memory_on_the_meta_device(mixer):
    with torch.device("meta"):
        made = MIXERS[mixer](16, **OPTIONS[mixer])
    assert all(parameter.is_meta for parameter in made.parameters())
    usual = seeded(MIXERS[mixer], 16, **OPTIONS[mixer])
    made.load_state_dict(usual.state_dict(), assign=True)
    x = Numbers()(2, 5, 16).detach()
    assert torch.equal(made(x)[0], usual(x)[0])


def test_step_sizes_begin_alike_whatever_the_default():
    usual = start_case()[0]
    step = F.softplus(usual)
    assert 0.0009 < step.min() < step.max() < 0.11
