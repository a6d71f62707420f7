"""A mixer's layers count with what they say when called: hooks, wrappers, other forwards, each held to changed weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

from polymamba.core.explanation import hidden_attention
from polymamba.core.linear import CONVOLUTION, is_plain
from polymamba.core.mixers.attention import Attention
from polymamba.core.mixers.mamba import Mamba
from polymamba.core.mixers.mamba2 import Mamba2
from polymamba.core.mixers.mamba3 import Mamba3
from polymamba.core.mixers.s4d import S4D
from polymamba.core.moe import MixtureOfExperts
from polymamba.core.ops.cpu.layer_kernel import LayerKernel
from polymamba.core.stack import ResidualBlock, final_norm, run_stack

GRID = (2, 4)
MIXERS = {
    "mamba": lambda: Mamba(8, d_state=3, norms="learned", bias=True),
    "mamba, both ways": lambda: Mamba(8, d_state=3, scan="bidirectional", axes=2, norms="learned"),
    "mamba, shared": lambda: Mamba(8, d_state=3, scan="bidirectional", axes=2, parameters="shared"),
    "mamba, decays": lambda: Mamba(8, d_state=3, scan="bidirectional", axes=2, parameters="decay"),
    "mamba, tokens shared out": lambda: Mamba(8, d_state=3, scan="skip", axes=2, norms="weightless"),
    "mamba, on the grid": lambda: Mamba(8, d_state=3, scan="cross", axes=2, conv="grid"),
    "mamba2": lambda: Mamba2(8, d_state=4, headdim=4, bias=True),
    "mamba2, both ways": lambda: Mamba2(8, d_state=4, headdim=4, d_ssm=8, scan="bidirectional", axes=2),
    "mamba3": lambda: Mamba3(8, d_state=4, headdim=4, is_outproj_norm=True, is_mimo=True, mimo_rank=2),
    "s4d": lambda: S4D(8, d_state=3),
    "attention": lambda: Attention(8, 2, d_conv=3, mlp_dim=256, qkv_bias=True),
}  # fmt: skip
CAUSAL = ["mamba", "mamba2", "mamba3", "s4d", "attention"]
SCALE = 1.25


class LoRA(nn.Module):
    """A wrapper that has nothing of what it stands for but the result."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        self.base = base
        self.a = nn.Parameter(0.3 * torch.randn(2, base.in_features, dtype=base.weight.dtype))
        self.b = nn.Parameter(0.3 * torch.randn(base.out_features, 2, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


class Scaled(nn.Linear):
    def forward(self, x):
        return SCALE * super().forward(x)


def made(name: str, dtype=torch.float64) -> nn.Module:
    torch.manual_seed(0)
    mixer = MIXERS[name]().to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer


def layers(mixer: nn.Module, *kinds) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in mixer.named_children() if not kinds or isinstance(m, kinds)]


def tokens(dtype=torch.float64) -> torch.Tensor:
    return torch.randn(2, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(1))


def answers(name: str, mixer: nn.Module, seq_idx=None) -> list[torch.Tensor]:
    """The output, a state's first tensor, hidden attention and, where it is causal, the same in two pieces."""
    x, grid = tokens(), GRID if name not in CAUSAL else None
    y, state = mixer(x, grid, seq_idx=seq_idx)
    found = [y, hidden_attention(mixer, x, grid, seq_idx)]
    if state is not None and seq_idx is None:
        first, after = mixer(x[:, :3])
        second, after = mixer(x[:, 3:], state=after)
        torch.testing.assert_close(torch.cat([first, second], 1), y)
        found += [t for t in after if t is not None]
    return found


def assert_same(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def scale(layer: nn.Module, bias: bool = True) -> None:
    with torch.no_grad():
        layer.weight.mul_(SCALE)
        if bias and getattr(layer, "bias", None) is not None:
            layer.bias.mul_(SCALE)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("packed", [False, True])
def test_what_a_forward_hook_makes_of_an_answer_counts(name, packed):
    if packed and name == "mamba, on the grid":
        pytest.skip("packed sequences cannot be convolved on a grid")
    seq_idx = torch.tensor([[0, 0, 1, 1, 1, 1, 2, 2], [-1, 0, 0, 0, -1, 3, 3, -1]]) if packed else None
    mixer = made(name)
    for each, layer in layers(mixer):
        expected = copy.deepcopy(mixer)
        scale(dict(layers(expected))[each])
        hook = layer.register_forward_hook(lambda module, given, said: SCALE * said)
        found = answers(name, mixer, seq_idx)
        hook.remove()
        assert_same(found, answers(name, expected, seq_idx))


@pytest.mark.parametrize("name", MIXERS)
def test_what_is_listened_to_is_called(name):
    mixer = made(name)
    heard = set()
    names = {layer: of for of, layer in layers(mixer)}
    listen = register_module_forward_hook(lambda module, given, said: heard.add(names.get(module)))
    expected = mixer(tokens(), None if name in CAUSAL else GRID)[0]
    listen.remove()
    assert heard - {None} == set(names.values())
    heard.clear()
    for layer in names:
        layer.register_full_backward_hook(lambda module, *_: heard.add(names[module]))
        layer.register_forward_pre_hook(lambda module, given: tuple(SCALE * t for t in given))
        layer.register_forward_hook(lambda module, given, said: said / SCALE)
    found = mixer(tokens().requires_grad_(), None if name in CAUSAL else GRID)[0]
    found.square().sum().backward()
    assert heard == set(names.values())
    assert found.shape == expected.shape


@pytest.mark.parametrize("name", MIXERS)
def test_lora_is_merged_weights_for_answers_and_gradients(name):
    mixer, plain = made(name), made(name)
    grid = None if name in CAUSAL else GRID
    for each, layer in layers(mixer, nn.Linear):
        setattr(mixer, each, LoRA(layer))
    added = dict(layers(mixer, LoRA))
    merged = {f"{each}.weight": l.base.weight + l.b @ l.a for each, l in added.items()}
    expected = torch.func.functional_call(plain, merged, (tokens(), grid))[0]
    wanted = [p for layer in added.values() for p in (layer.a, layer.b)]
    gradients = torch.autograd.grad(expected.square().sum(), wanted)
    found = mixer(tokens(), grid)[0]
    torch.testing.assert_close(found, expected)
    assert_same(torch.autograd.grad(found.square().sum(), wanted), gradients)
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    assert mixer.flops(grid or (8,)) == plain.flops(grid or (8,))
    hidden_attention(mixer, tokens(), grid)


@pytest.mark.parametrize("name", MIXERS)
def test_reparametrised_and_pruned_weights(name):
    mixer, expected = made(name), made(name)
    for (each, layer), (_, other) in zip(layers(mixer), layers(expected), strict=True):
        if not isinstance(layer, (nn.Linear, *CONVOLUTION)):
            continue
        if each.startswith("in_proj"):
            setattr(mixer, each, copy.deepcopy(layer))
            getattr(mixer, each).__class__ = Scaled
            scale(other)
        elif each.startswith(("x_proj", "conv")):
            parametrizations.weight_norm(layer)
            with torch.no_grad():
                layer.parametrizations.weight.original0.mul_(SCALE)
            scale(other, bias=False)
        else:
            # Old pruning computes the weight in a hook, from parameters that may have moved since.
            prune.l1_unstructured(layer, "weight", 0.5)
            with torch.no_grad():
                layer.weight_orig.mul_(SCALE)
                other.weight.mul_(SCALE * layer.weight_mask)
    assert_same(answers(name, mixer), answers(name, expected))


@pytest.mark.parametrize("name", CAUSAL)
def test_decoding_calls_them_too(name, monkeypatch):
    """Layer kernels read weights past the modules, and must decline."""
    x = tokens(torch.float32)
    with torch.no_grad():
        for each, _ in layers(made(name)):
            mixer, expected = made(name, torch.float32), made(name, torch.float32)
            scale(dict(layers(expected))[each])
            dict(layers(mixer))[each].register_forward_hook(lambda module, given, said: SCALE * said)
            monkeypatch.setattr(LayerKernel, "decode", pytest.fail)
            state, rows = None, []
            for t in range(4):
                y, state = mixer(x[:, t : t + 1], state=state)
                rows.append(y)
            monkeypatch.undo()
            torch.testing.assert_close(torch.cat(rows, 1), expected(x[:, :4])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
@pytest.mark.parametrize("part", ["norm", "mixer", "drop_path", "in_proj"])
def test_a_stack_of_one_token_calls_what_is_listened_to(name, part):
    torch.manual_seed(0)
    blocks = [ResidualBlock(made(name, torch.float32), nn.RMSNorm(8, 1e-5)) for _ in range(2)]
    x, last, heard = tokens(torch.float32), nn.RMSNorm(8), []
    with torch.no_grad():
        expected = final_norm(run_stack(blocks, x[:, :1]), last)
        listened = [block.get_submodule("mixer.in_proj" if part == "in_proj" else part) for block in blocks]
        for module in listened:
            module.register_forward_hook(lambda *_: heard.append(1))
        found = final_norm(run_stack(blocks, x[:, :1]), last)
    torch.testing.assert_close(found, expected)
    assert heard


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated.*")
@pytest.mark.parametrize("name", MIXERS)
def test_dynamic_quantisation_is_close(name):
    mixer, x, grid = made(name, torch.float32), tokens(torch.float32), None if name in CAUSAL else GRID
    with torch.no_grad():
        expected = mixer(x, grid)[0]
        quantised = torch.ao.quantization.quantize_dynamic(mixer, {nn.Linear}, torch.qint8)
        found = quantised(x, grid)[0]
        assert any("quantized" in type(m).__module__ for m in quantised.modules())
        assert 0 < (found - expected).norm() < 0.1 * expected.norm()
        if name in CAUSAL:
            first, state = quantised(x[:, :1])
            torch.testing.assert_close(first, quantised(x[:, :2])[0][:, :1], rtol=0.1, atol=0.05)
            assert quantised(x[:, 1:2], state=state)[0].isfinite().all()


def test_what_is_plain():
    layer = nn.Linear(3, 3)
    assert is_plain(layer)
    assert not is_plain(Scaled(3, 3))
    for register in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        hook = getattr(layer, f"register_{register}")(lambda *_: None)
        assert not is_plain(layer)
        hook.remove()
        assert is_plain(layer)
    layer.forward = lambda x: x
    assert not is_plain(layer)
    assert not is_plain(parametrizations.weight_norm(nn.Linear(3, 3)))


def test_a_routers_hook_counts():
    experts = MixtureOfExperts(8, 16, 4, capacity_factor=None).double()
    x = tokens()
    other = copy.deepcopy(experts)
    scale(other.router)
    experts.router.register_forward_hook(lambda module, given, said: SCALE * said)
    torch.testing.assert_close(experts(x), other(x))
    torch.testing.assert_close(experts.balance_loss, other.balance_loss)
    experts.router = LoRA(experts.router)
    assert experts(x).shape == x.shape
    assert experts.flops(8) == other.flops(8)
