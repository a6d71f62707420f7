"""Whole mixers of transformers' Mamba, FalconMamba and Mamba-2 on this core's operators: same parameters, same caches.

A mixer's forward takes the mixer's arguments and returns (batch, length, channels), or None for a case that it does not know: then
the mixer's own code runs. Tokens stay (batch, length, channels) throughout, where the mixers' own code turns them around.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from ..core.linear import is_bare, is_plain
from ..core.ops.backends import KERNEL_DTYPES
from ..core.ops.causal_conv1d import causal_conv1d
from ..core.ops.decoding import decodes
from ..core.ops.linear import linear
from ..core.ops.mamba2_decode import Mamba2Weights, mamba2_decode
from ..core.ops.mamba_decode import MambaWeights, mamba_decode
from ..core.ops.selective_scan import selective_scan


def mamba_forward(mixer: nn.Module, x: Tensor, cache_params=None, attention_mask=None, **more) -> Tensor | None:
    """MambaMixer's and FalconMambaMixer's forward."""
    # The mixer itself reads the step's projection without calling it.
    if not _known(mixer, x, more) or not is_plain(mixer.dt_proj) or mixer.dt_proj.bias is None:
        return None
    if cache_params is None:
        return _mamba_tokens(mixer, x, None, attention_mask)
    if cache_params.is_recording_past(mixer.layer_idx):
        return None
    states = _states(cache_params, mixer.layer_idx)
    known = [state is not None for state in states]
    if not any(known):
        return _mamba_tokens(mixer, x, cache_params, attention_mask)
    if not all(known) or attention_mask is not None or not decodes(x):
        return None
    m, linears, norms = mixer, (mixer.in_proj, mixer.x_proj, mixer.out_proj), _norms(mixer)
    if not all(map(is_plain, linears)) or any(norm._parameters or not is_bare(norm) for norm in norms):
        return None
    epsilons = {norm.eps for norm in norms} or {0.0}
    if len(epsilons) > 1:
        return None
    weights = MambaWeights(
        m.in_proj.weight, m.in_proj.bias, m.conv1d.weight, m.conv1d.bias, m.x_proj.weight, m.dt_proj.weight, m.dt_proj.bias,
        m.A_log, m.D, m.out_proj.weight, m.out_proj.bias, (None,) * 3 if norms else None, *epsilons,
    )  # fmt: skip
    return _step(mamba_decode, x, weights, states)


def mamba2_forward(mixer: nn.Module, x: Tensor, cache_params=None, attention_mask=None, **more) -> Tensor | None:
    """Mamba2Mixer's forward at one token of a cache; longer pieces are its own code, which calls this core's operators."""
    if cache_params is None or attention_mask is not None or not _known(mixer, x, more) or not decodes(x):
        return None
    m, states = mixer, _states(cache_params, mixer.layer_idx)
    if (
        cache_params.is_recording_past(m.layer_idx)
        or any(state is None for state in states)
        or not (is_plain(m.in_proj) and is_plain(m.out_proj) and is_bare(m.norm))
        or type(m.norm).__name__ != "MambaRMSNormGated"
    ):
        return None
    weights = Mamba2Weights(
        m.in_proj.weight, m.in_proj.bias, m.conv1d.weight, m.conv1d.bias, m.dt_bias, m.A_log, m.D, m.norm.weight,
        m.out_proj.weight, m.out_proj.bias, m.head_dim, m.n_groups, m.intermediate_size // m.norm.group_size, False,
        m.norm.variance_epsilon,
    )  # fmt: skip
    return _step(mamba2_decode, x, weights, states)


def headed(own):
    """A language model's forward, during which its head multiplies by this core's product."""

    @functools.wraps(own)
    def run(self, *arguments, **named):
        head = getattr(self, "lm_head", None)
        if not isinstance(head, nn.Linear) or not is_plain(head) or torch.compiler.is_compiling():
            return own(self, *arguments, **named)
        head.forward = lambda x: linear(x, head.weight, head.bias)
        try:
            return own(self, *arguments, **named)
        finally:
            vars(head).pop("forward", None)

    return run


def _mamba_tokens(mixer: nn.Module, x: Tensor, cache, mask: Tensor | None) -> Tensor:
    """Many tokens from the beginning of the sequences; a cache is told where they end."""
    m, length = mixer, x.shape[1]
    u, z = _product(m.in_proj, _masked(x, mask)).chunk(2, dim=-1)
    if cache is not None:
        u = cache.update_conv_state(u.transpose(1, 2), m.layer_idx, conv_kernel_size=m.conv_kernel_size).transpose(1, 2)
    u = causal_conv1d(u, m.conv1d.weight.squeeze(1), m.conv1d.bias, "silu")[:, -length:]
    u = _masked(u, mask)
    step, B, C = _product(m.x_proj, u).split([m.time_step_rank, m.ssm_state_size, m.ssm_state_size], dim=-1)
    if norms := _norms(m):
        step, B, C = (norm(t) for norm, t in zip(norms, (step, B, C), strict=True))
    y, state = selective_scan(
        u, linear(step, m.dt_proj.weight), -torch.exp(m.A_log.float()), B, C, m.D.float(), z, m.dt_proj.bias.float(), True,
        return_final_state=True,
    )  # fmt: skip
    if cache is not None:
        cache.update_recurrent_state(state, m.layer_idx)
    return _product(m.out_proj, y)


def _product(layer: nn.Module, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias) if is_plain(layer) else layer(x)


def _step(step, x: Tensor, weights: tuple, states: tuple[Tensor, Tensor]) -> Tensor | None:
    """One token; the cache's own tensors move on, whatever their dtype."""
    single = tuple(state.float() for state in states)
    found = step(x, weights, single, in_place=True)
    if found is None:
        return None
    for kept, state in zip(states, single, strict=True):
        if kept is not state:
            kept.copy_(state)
    return found[0]


def _states(cache, layer: int) -> tuple[Tensor | None, Tensor | None]:
    """Of the convolution and of the scan; None before the first token."""
    return cache.get_conv_state(layer, state_idx=0), cache.get_recurrent_state(layer, state_idx=0)


def _known(mixer: nn.Module, x: Tensor, more: dict) -> bool:
    return (
        not more
        and x.dtype in KERNEL_DTYPES
        and mixer.activation in ("silu", "swish")
        and is_plain(mixer.conv1d, (nn.Conv1d,))
        and x.dtype == mixer.conv1d.weight.dtype
        and is_bare(mixer)
        and not hasattr(mixer.config if hasattr(mixer, "config") else mixer, "_is_quantized")
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled(x.device.type)
    )


def _norms(mixer: nn.Module) -> list[nn.Module]:
    """FalconMamba's, over the step, B and C."""
    return [getattr(mixer, f"{name}_layernorm") for name in ("dt", "b", "c")] if hasattr(mixer, "dt_layernorm") else []


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else (x * mask[:, :, None]).to(x.dtype)
