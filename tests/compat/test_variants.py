"""Every variant of mamba_ssm's mixers against loops over named weights: names, outputs, gradients, caches, decoding."""

from __future__ import annotations

import published_mixers as loops
import pytest
import torch

from polymamba.compat import modules
from polymamba.compat.generation import InferenceParams

WIDTH = 32
HEADS = {"d_state": 8, "headdim": 8}
VARIANTS = {
    "mamba": ("Mamba", "mamba", {}),
    "mamba, biased, narrow": ("Mamba", "mamba", {"bias": True, "conv_bias": False, "d_conv": 2, "dt_rank": 5}),
    "mamba, three taps": ("Mamba", "mamba", {"d_conv": 3, "d_state": 7, "expand": 3, "dt_init": "constant"}),
    "mamba2": ("Mamba2", "mamba2", HEADS),
    "mamba2, groups": ("Mamba2", "mamba2", HEADS | {"ngroups": 4, "chunk_size": 16}),
    "mamba2, beside an mlp": (
        "Mamba2", "mamba2", HEADS | {"d_ssm": 32, "D_has_hdim": True, "bias": True, "ngroups": 2, "chunk_size": 7},
    ),
    "mamba2, gate after norm": ("Mamba2", "mamba2", HEADS | {"norm_before_gate": True, "ngroups": 2, "d_conv": 3}),
    "mamba2, no norm": ("Mamba2", "mamba2", HEADS | {"rmsnorm": False, "conv_bias": False, "dt_limit": (0.01, 0.05)}),
    "mamba2, mlp and no norm": ("Mamba2", "mamba2", HEADS | {"rmsnorm": False, "d_ssm": 16, "expand": 1, "d_conv": 2}),
    "simple": ("Mamba2Simple", "mamba2", HEADS),
    "simple, learned states": (
        "Mamba2Simple", "mamba2", HEADS | {"learnable_init_states": True, "ngroups": 2, "bias": True, "dt_limit": (0.0, 0.1)},
    ),
    "simple, one norm": (
        "Mamba2Simple", "mamba2", HEADS | {"learnable_init_states": True, "ngroups": 2, "use_mem_eff_path": False},
    ),
    "mamba3": ("Mamba3", "mamba3", HEADS),
    "mamba3, all states turn": ("Mamba3", "mamba3", HEADS | {"rope_fraction": 1.0, "ngroups": 4, "chunk_size": 5}),
    "mamba3, normed": ("Mamba3", "mamba3", HEADS | {"is_outproj_norm": True, "A_floor": 0.8, "ngroups": 2}),
    "mamba3, softplus": ("Mamba3", "mamba3", HEADS | {"A_activation": "softplus", "rotation": "halves"}),
    "mamba3, rank 1": ("Mamba3", "mamba3", HEADS | {"is_mimo": True, "mimo_rank": 1}),
    "mamba3, rank 2": ("Mamba3", "mamba3", HEADS | {"is_mimo": True, "mimo_rank": 2, "rope_fraction": 1.0, "ngroups": 2}),
    "mamba3, rank 4": ("Mamba3", "mamba3", HEADS | {"is_mimo": True, "is_outproj_norm": True, "rotation": "pairs"}),
    "mamba3, odd states": ("Mamba3", "mamba3", {"d_state": 14, "headdim": 16, "rope_fraction": 0.5, "expand": 1}),
}  # fmt: skip
CACHED = [name for name, (kind, _, _) in VARIANTS.items() if kind != "Mamba2Simple"]


def made(variant: str, **more):
    kind, _, options = VARIANTS[variant]
    torch.manual_seed(0)
    layer = getattr(modules, kind)(WIDTH, **options, **more)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer


def tokens(length: int = 40, batch: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(batch, length, WIDTH, generator=torch.Generator().manual_seed(seed))


def written_out(variant: str, layer, x):
    """Output, cache and weights of the loops, in float64."""
    _, kind, options = VARIANTS[variant]
    if not options.get("use_mem_eff_path", True):
        options = options | {"norm_groups": 1}
    weights = {name: p.detach().double().requires_grad_() for name, p in layer.named_parameters()}
    x = x.detach().double().requires_grad_()
    y, cache = loops.MIXERS[kind](weights, x, **options)
    return y, cache, [x, *weights.values()]


def error(found, expected) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).norm() / (expected.norm() + 1e-12))


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_shapes_are_the_published_ones(variant):
    _, kind, options = VARIANTS[variant]
    found = {name: tuple(t.shape) for name, t in made(variant).state_dict().items()}
    assert found == loops.shapes(kind, WIDTH, **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients_are_the_loops(variant):
    layer, x = made(variant), tokens().requires_grad_()
    y = layer(x)
    expected, _, inputs = written_out(variant, layer, x)
    assert error(y, expected) < 1e-5
    weight = tokens(seed=2)
    got = torch.autograd.grad((y * weight).sum(), [x, *layer.parameters()])
    wanted = torch.autograd.grad((expected * weight).sum(), inputs)
    names = ["x", *dict(layer.named_parameters())]
    errors = {name: error(a, b) for name, a, b in zip(names, got, wanted, strict=True)}
    assert max(errors.values()) < 2e-5, errors


@pytest.mark.parametrize("length", [1, 3, 40])
@pytest.mark.parametrize("variant", CACHED)
def test_the_cache_after_a_prompt_and_steps_is_the_loops(variant, length):
    """A prompt, then a token at a time: every output, and the tensors that upstream keeps."""
    layer, x = made(variant, layer_idx=0), tokens(length + 6)
    params = InferenceParams(max_seqlen=length + 6, max_batch_size=2)
    with torch.no_grad():
        found = [layer(x[:, :length], inference_params=params)]
        params.seqlen_offset = length
        for t in range(length, length + 3):
            found.append(layer(x[:, t : t + 1], inference_params=params))
            params.seqlen_offset += 1
        cache = params.key_value_memory_dict[0]
        for t in range(length + 3, length + 6):
            y, *moved = layer.step(x[:, t : t + 1], *cache)
            found.append(y)
            assert all(a is b for a, b in zip(moved, cache, strict=True))
    expected, last, _ = written_out(variant, layer, x)
    assert error(torch.cat(found, 1), expected) < 1e-5
    assert [t.shape for t in cache] == [t.shape for t in last]
    if isinstance(layer, modules.Mamba3):
        turn = cache[0].double() - last[0].detach()
        assert float((turn - turn.div(2 * torch.pi).round() * 2 * torch.pi).abs().max()) < 1e-4
        cache, last = cache[1:], last[1:]
    assert max(error(a, b) for a, b in zip(cache, last, strict=True)) < 1e-5


@pytest.mark.parametrize("variant", CACHED)
def test_a_cache_that_begins_anew_forgets(variant):
    layer, x = made(variant, layer_idx=0), tokens(2)
    params = InferenceParams(max_seqlen=9, max_batch_size=2)
    with torch.no_grad():
        layer(tokens(9, seed=3), inference_params=params)
        params.reset(9, 2)
        layer(x, inference_params=params)
    fresh = InferenceParams(max_seqlen=9, max_batch_size=2)
    with torch.no_grad():
        layer(x, inference_params=fresh)
    for found, expected in zip(params.key_value_memory_dict[0], fresh.key_value_memory_dict[0], strict=True):
        assert torch.equal(found, expected)


def test_a_step_takes_tokens_without_a_length():
    layer, x = made("mamba3, rank 2"), tokens(4)
    cache = layer.allocate_inference_cache(2, 4)
    with torch.no_grad():
        found = torch.stack([layer.step(x[:, t], *cache)[0] for t in range(4)], 1)
    assert error(found, written_out("mamba3, rank 2", layer, x)[0]) < 1e-5


def test_learned_states_begin_every_row_and_get_gradients():
    layer = made("simple, learned states")
    x = tokens(5)
    number = torch.tensor([0, 0, 0, 1, 1]).expand(2, -1)
    packed = layer(x, seq_idx=number)
    torch.testing.assert_close(packed[:, :3], layer(x[:, :3]))
    without = made("simple, learned states")
    with torch.no_grad():
        without.init_states.zero_()
    torch.testing.assert_close(packed[:, 3:], without(x[:, 3:]))
    packed.sum().backward()
    assert layer.init_states.grad.abs().min() > 0
