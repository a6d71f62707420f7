"""mamba_ssm's three mixers written as plain loops over named weights, in float64: what every variant of a module is held to.

Nothing here knows the package. Sequences are (batch, length, channels); weights a dict of the published names.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def shapes(kind: str, d: int, **o) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published module's parameters."""
    inner = o.get("expand", 2) * d
    if kind == "mamba":
        states, rank = o.get("d_state", 16), o.get("dt_rank", math.ceil(d / 16))
        found = {
            "A_log": (inner, states), "D": (inner,), "in_proj.weight": (2 * inner, d),
            "conv1d.weight": (inner, 1, o.get("d_conv", 4)), "x_proj.weight": (rank + 2 * states, inner),
            "dt_proj.weight": (inner, rank), "dt_proj.bias": (inner,), "out_proj.weight": (d, inner),
        }  # fmt: skip
        wide, convolved = 2 * inner, inner
    else:
        states, headdim, groups = o["d_state"], o["headdim"], o.get("ngroups", 1)
        part = o.get("d_ssm") or inner
        heads = part // headdim
        if kind == "mamba3":
            rank, angles = (
                o.get("mimo_rank", 4) if o.get("is_mimo") else 1,
                int(states * o.get("rope_fraction", 0.5)) // 2,
            )
            wide = 2 * inner + 2 * states * groups * rank + 3 * heads + angles
            bias, several = (heads, rank, states), (heads, rank, headdim)
            found = {
                "dt_bias": (heads,), "B_bias": bias, "C_bias": bias, "D": (heads,), "in_proj.weight": (wide, d),
                "B_norm.weight": (states,), "C_norm.weight": (states,), "out_proj.weight": (d, inner),
            }  # fmt: skip
            found |= dict.fromkeys(("mimo_x", "mimo_z", "mimo_o"), several) if o.get("is_mimo") else {}
            return found | ({"norm.weight": (inner,)} if o.get("is_outproj_norm") else {})
        convolved = part + 2 * groups * states
        wide = 2 * inner + 2 * groups * states + heads
        found = {
            "dt_bias": (heads,), "A_log": (heads,), "D": (part if o.get("D_has_hdim") else heads,),
            "in_proj.weight": (wide, d), "conv1d.weight": (convolved, 1, o.get("d_conv", 4)), "out_proj.weight": (d, inner),
        }  # fmt: skip
        found |= {"norm.weight": (part,)} if o.get("rmsnorm", True) else {}
        found |= {"init_states": (heads, headdim, states)} if o.get("learnable_init_states") else {}
    found |= {"conv1d.bias": (convolved,)} if o.get("conv_bias", True) else {}
    return found | ({"in_proj.bias": (wide,), "out_proj.bias": (d,)} if o.get("bias") else {})


def mamba(w, x, **o):
    """Output, and the cache after the last token: the last inputs of the convolution (batch, channels, width), the states."""
    A, rank, states = -w["A_log"].exp(), w["dt_proj.weight"].shape[1], w["A_log"].shape[1]
    x, z = _linear(w, "in_proj", x).chunk(2, -1)
    x, last = _convolved(w, x)
    step, B, C = (x @ w["x_proj.weight"].T).split([rank, states, states], -1)
    if o.get("norms", "none") != "none":
        eps = o.get("norm_eps", 1e-6)
        weights = [w.get(f"{name}_layernorm.weight", torch.ones(())) for name in ("dt", "b", "c")]
        step, B, C = (_rms(t, eps) * weight for t, weight in zip((step, B, C), weights, strict=True))
    step = F.softplus(step @ w["dt_proj.weight"].T + w["dt_proj.bias"])
    h, rows = x.new_zeros(x.shape[0], *A.shape), []
    for t in range(x.shape[1]):
        h = (step[:, t, :, None] * A).exp() * h + (step[:, t] * x[:, t])[..., None] * B[:, t, None]
        rows.append((h * C[:, t, None]).sum(-1) + w["D"] * x[:, t])
    return _linear(w, "out_proj", torch.stack(rows, 1) * F.silu(z)), (last, h)


def mamba2(w, x, begin=None, **o):
    """As `mamba`; begin: states before the first token."""
    heads, groups, states = len(w["A_log"]), o.get("ngroups", 1), o["d_state"]
    part = heads * o["headdim"]
    x = _linear(w, "in_proj", x)
    beside = (x.shape[-1] - 2 * part - 2 * groups * states - heads) // 2
    gate, value, z, xbc, step = x.split([beside, beside, part, part + 2 * groups * states, heads], -1)
    xbc, last = _convolved(w, xbc)
    u, B, C = xbc.split([part, groups * states, groups * states], -1)
    u = u.unflatten(-1, (heads, -1))
    B, C = (t.unflatten(-1, (groups, states)).repeat_interleave(heads // groups, 2) for t in (B, C))
    step = F.softplus(step + w["dt_bias"]).clamp(*o.get("dt_limit", (0.0, math.inf)))
    D = w["D"].view(heads, -1)
    h = w.get("init_states") if begin is None else begin
    h = x.new_zeros(len(x), heads, o["headdim"], states) if h is None else h.expand(len(x), -1, -1, -1)
    rows = []
    for t in range(x.shape[1]):
        decay = (-step[:, t] * w["A_log"].exp()).exp()[..., None, None]
        h = decay * h + (step[:, t, :, None] * u[:, t])[..., None] * B[:, t, :, None]
        rows.append((h * C[:, t, :, None]).sum(-1) + D * u[:, t])
    y = torch.stack(rows, 1).flatten(2)
    first = o.get("norm_before_gate", False)
    y = y if first else y * F.silu(z)
    if "norm.weight" in w:
        y = (
            _rms(y.unflatten(-1, (o.get("norm_groups", groups), -1)), o.get("norm_eps", 1e-5)).flatten(-2)
            * w["norm.weight"]
        )
    y = y * F.silu(z) if first else y
    return _linear(w, "out_proj", torch.cat([F.silu(gate) * value, y], -1)), (last, h)


def mamba3(w, x, **o):
    """Output, and the cache: angles, states, the last turned B (batch, rank, heads, states), the last input (batch, heads, p)."""
    heads, states, groups, rank = len(w["D"]), o["d_state"], o.get("ngroups", 1), w["B_bias"].shape[1]
    mimo, inner, wide = "mimo_x" in w, w["out_proj.weight"].shape[1], states * groups * rank
    angles = int(states * o.get("rope_fraction", 0.5)) // 2
    sizes = [inner, inner, wide, wide, heads, heads, heads, angles]
    z, u, B, C, step, a, lam, turn = _linear(w, "in_proj", x).split(sizes, -1)
    z, u = (t.unflatten(-1, (heads, -1)) for t in (z, u))
    B, C = (
        (_rms(t.unflatten(-1, (rank, groups, states)), 1e-5) * w[f"{name}_norm.weight"]).repeat_interleave(
            heads // groups, 3
        )
        + w[f"{name}_bias"].transpose(0, 1)
        for t, name in ((B, "B"), (C, "C"))
    )
    heavy = torch.where(a >= 0, 1 + a, 1 / (1 - a.clamp_max(0)))
    rate = (F.softplus(a) if o.get("A_activation") == "softplus" else heavy).clamp_min(o.get("A_floor", 1e-4))
    step, lam = F.softplus(step + w["dt_bias"]), lam.sigmoid()
    theta = (step[..., None] * (math.pi * turn.tanh())[:, :, None]).cumsum(1)[:, :, None]
    pairs = o.get("rotation") or ("halves" if mimo else "pairs")
    first = torch.arange(angles) * (2 if pairs == "pairs" else 1)
    second = first + (1 if pairs == "pairs" else states // 2)
    B, C = (_turned(t, theta, first, second) for t in (B, C))
    ones = torch.ones(heads, rank, o["headdim"], dtype=x.dtype)
    rows_in, gates, rows_out = (w.get(name, ones).transpose(0, 1) for name in ("mimo_x", "mimo_z", "mimo_o"))
    v = u[:, :, None] * rows_in
    h, before, rows = x.new_zeros(len(x), heads, o["headdim"], states), 0, []
    for t in range(x.shape[1]):
        now = torch.einsum("brhp,brhn->bhpn", v[:, t], B[:, t])
        alpha, gamma, beta = (
            k[..., None, None]
            for k in ((-step * rate)[:, t].exp(), (lam * step)[:, t], ((1 - lam) * step * (-step * rate).exp())[:, t])
        )
        h = alpha * h + beta * before + gamma * now
        before = now
        y = torch.einsum("bhpn,brhn->brhp", h, C[:, t]) + w["D"][:, None] * v[:, t]
        y = _rms(y, 1e-5) * w["norm.weight"].view(heads, -1) if "norm.weight" in w else y
        rows.append((y * F.silu(z[:, t, None] * gates) * rows_out).sum(1))
    out = _linear(w, "out_proj", torch.stack(rows, 1).flatten(2))
    return out, (theta[:, -1, 0], h, B[:, -1], u[:, -1])


MIXERS = {"mamba": mamba, "mamba2": mamba2, "mamba3": mamba3}


def _linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def _rms(x, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _convolved(w, x):
    weight = w["conv1d.weight"][:, 0]
    width = weight.shape[1]
    padded = F.pad(x, (0, 0, width, 0))
    y = sum(padded[:, 1 + k : 1 + k + x.shape[1]] * weight[:, k] for k in range(width)) + w.get("conv1d.bias", 0)
    return F.silu(y), padded[:, -width:].transpose(1, 2)


def _turned(keys, theta, first, second):
    a, b = keys[..., first], keys[..., second]
    keys = keys.index_copy(-1, first, a * theta.cos() - b * theta.sin())
    return keys.index_copy(-1, second, a * theta.sin() + b * theta.cos())
