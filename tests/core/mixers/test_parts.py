"""Mixers made of Mamba's parts and steps: VMamba's, SegMamba's and MambaVision's against their originals or plain formulas."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.core.errors import UserError
from polymamba.core.mixers import Mamba, Mamba2
from polymamba.core.mixers.convolutions import GridConvolution
from polymamba.core.mixers.path_parameters import PathParameters, StackedParameters
from polymamba.core.ops.cpu.layer_kernel import LayerKernel
from polymamba.core.ops.selective_scan import selective_scan
from polymamba.core.scans import Grid

GRID = Grid((5, 6))


class Normed(Mamba):
    """SS2D: a norm over what the paths say together, before the gate."""

    scan_gates = False

    def __init__(self, *arguments, parameters="stacked", **options):
        super().__init__(*arguments, axes=2, conv="grid", parameters=parameters, **options)
        self.out_norm = nn.LayerNorm(self.d_inner)

    def finish(self, y, given):
        return super().finish(self.out_norm(y), given)


class HalfMixed(Mamba):
    """MambaVision's: both halves convolved, not causally, one of them scanned, then both side by side."""

    scan_gates = False

    def __init__(self, d_model, **options):
        conv = partial(GridConvolution, layer="conv1d_x")
        super().__init__(d_model, expand=0.5, conv=conv, conv_bias=False, **options)
        self.conv1d_z = nn.Conv1d(self.d_inner, self.d_inner, 3, groups=self.d_inner, bias=False)
        self.out_proj = nn.Linear(d_model, d_model)

    def project_in(self, x):
        x, z = super().project_in(x)
        return x, F.silu(F.conv1d(z.mT, self.conv1d_z.weight, padding="same", groups=self.d_inner)).mT

    def finish(self, y, given):
        return self.out_proj(torch.cat([y, given.gate], -1))


def test_vmamba_matches_the_original(golden):
    made = Normed(32, d_state=1, expand=1, conv_bias=False, gate=False, scan="cross").eval()
    original = {"x_proj_weight": "x_proj.weight", "dt_projs_weight": "dt_projs.weight"}
    shapes = golden.meta_of("vmamba_ss2d_v05_noz")["state"]
    state = {}
    for name, tensor in made.state_dict().items():
        key = original.get(name, name)
        state[name] = golden.value(key, torch.empty(shapes[key])).view_as(tensor)
    made.load_state_dict(state)
    assert len(shapes) == len(state)
    x = golden.seeded(2, 32, 6, 10)
    y, after = made(x.flatten(2).mT, (6, 10))
    assert after is None
    found = golden.compare(
        "vmamba_ss2d_v05_noz", y.mT.reshape(2, 32, 6, 10), made, lambda name: original.get(name, name)
    )
    assert max(found["errors"]) < 1e-5
    assert not found["missing"] + found["extra"]
    assert found["parameters"] == (3552, 3552)


def test_segmamba_matches_the_original(golden):
    suffixed = partial(PathParameters, suffixes=("", "b", "s"))
    made = golden.fill(Mamba(32, scan="bidirectional+column", axes=2, parameters=suffixed))
    found = golden.compare("segmamba_mixer_v3_n4_L48", made(golden.seeded(2, 48, 32), (4, 12))[0], made)
    assert max(found["errors"]) < 1e-5
    assert not found["missing"] + found["extra"] + found["shapes"]


@pytest.mark.parametrize("conv", ["grid", "none"])
@pytest.mark.parametrize("scan", ["cross", "skip", "raster"])
@pytest.mark.parametrize("extra", [(), (13,)])
def test_stacked_parameters_are_those_of_the_paths(scan, conv, extra):
    """In float64, gradients too; a scan whose paths share the tokens gives each path its own."""
    torch.manual_seed(0)
    options = {"d_state": 3, "scan": scan, "axes": 2, "conv": conv}
    stacked, separate = (Mamba(8, parameters=kind, **options).double() for kind in ("stacked", "separate"))
    paths, inner = stacked.paths, stacked.d_inner
    ends = separate.path_parameters.ends
    state = {name: value for name, value in stacked.state_dict().items() if name in separate.state_dict()}
    for path, end in enumerate(ends):
        rows = slice(path * inner, (path + 1) * inner)
        state |= {f"A{end}_log": stacked.A_logs[rows], f"D{end}": stacked.Ds[rows]}
        state |= {
            f"x_proj{end}.weight": stacked.x_proj_weight[path],
            f"dt_proj{end}.weight": stacked.dt_projs_weight[path],
        }
        state[f"dt_proj{end}.bias"] = stacked.dt_projs_bias[path]
    separate.load_state_dict({name: value.detach() for name, value in state.items()})
    x = torch.randn(2, 30 + len(extra), 8, dtype=torch.float64)
    found, expected = (mixer(x, Grid((5, 6), extra))[0] for mixer in (stacked, separate))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(found)
    for y in (found, expected):
        (y * weight).sum().backward()
    for name, parts in (("A_logs", "A{}_log"), ("Ds", "D{}"), ("x_proj_weight", "x_proj{}.weight")):
        own = torch.cat([separate.get_parameter(parts.format(end)).grad for end in ends])
        torch.testing.assert_close(getattr(stacked, name).grad.flatten(0, -2 if own.dim() > 1 else -1), own)
    assert stacked.dt_projs_bias.grad.shape == (paths, inner)


@pytest.mark.parametrize("merge", ["sum", "mean", "none"])
@pytest.mark.parametrize("scan", ["cross", "skip"])
def test_the_gate_may_come_behind_a_norm(scan, merge):
    torch.manual_seed(0)
    made = Normed(8, d_state=3, scan=scan, merge=merge).double()
    x = torch.randn(2, 30, 8, dtype=torch.float64)
    given = made.select(x, GRID)
    assert given.z is None
    y = selective_scan(*given[:6], None, given.delta_bias, True, given.order, merge=merge, backend="reference")
    gate = made.in_proj(x).chunk(2, -1)[1]
    expected = made.out_proj(made.out_norm(y) * F.silu(gate[:, None] if merge == "none" else gate))
    torch.testing.assert_close(made(x, GRID)[0], expected, rtol=1e-10, atol=1e-12)


def test_both_halves_convolved_and_side_by_side():
    torch.manual_seed(0)
    made = HalfMixed(16, d_state=3).double()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    u, z = made.in_proj(x).chunk(2, -1)
    u, z = (
        F.silu(F.conv1d(t.mT, layer.weight, padding="same", groups=8)).mT
        for t, layer in ((u, made.conv1d_x), (z, made.conv1d_z))
    )
    step, B, C = made.x_proj(u).split([1, 3, 3], -1)
    y = selective_scan(u, made.dt_proj(step), -made.A_log.exp(), B, C, made.D, delta_softplus=True, backend="reference")
    torch.testing.assert_close(made(x)[0], made.out_proj(torch.cat([y, z], -1)), rtol=1e-10, atol=1e-12)
    # Each half sees the token behind.
    other = x.clone()
    other[:, 5] += 1
    assert ((made(x)[0] - made(other)[0]).abs().amax((0, 2)) > 0).nonzero()[0] == 4


class Doubled(PathParameters):
    def read(self, mixer, x):
        delta, B, C = super().read(mixer, x)
        return delta, 2 * B, C


class Tripled(Mamba):
    def finish(self, y, given):
        return 3 * super().finish(y, given)


class Tripled2(Mamba2):
    def mix_tokens(self, given, call):
        y, after = super().mix_tokens(given, call)
        return 3 * y, after


class Named(Mamba):
    def extra_repr(self):
        return "named"


@pytest.mark.parametrize("make", [
    partial(Mamba, 8, parameters=Doubled), partial(Tripled, 8), partial(Tripled2, 8, headdim=4),
    partial(Mamba, 8, parameters="stacked"), partial(Mamba, 8, conv="none"),
])  # fmt: skip
def test_what_a_kernel_does_not_know_is_not_decoded_by_it(make, monkeypatch):
    monkeypatch.setattr(LayerKernel, "decode", pytest.fail)
    mixer, x, state, rows = make(), torch.randn(2, 4, 8), None, []
    with torch.no_grad():
        for t in range(4):
            y, state = mixer(x[:, t : t + 1], state=state)
            rows.append(y)
        torch.testing.assert_close(torch.cat(rows, 1), mixer(x)[0], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("merge", ["sum", "none"])
def test_a_subclass_has_its_say_along_paths_too(merge):
    torch.manual_seed(0)
    plain, tripled = (
        kind(8, headdim=4, scan="bidirectional", merge=merge, rmsnorm=False) for kind in (Mamba2, Tripled2)
    )
    tripled.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 8)
    torch.testing.assert_close(tripled(x)[0], 3 * plain(x)[0])


def test_a_subclass_that_computes_the_same_is_decoded(monkeypatch):
    monkeypatch.setattr(LayerKernel, "decode", lambda *_: (x, (x, x)))
    x = torch.randn(1, 1, 8)
    with torch.no_grad():
        assert Named(8)(x)[0] is x
        assert Tripled(8)(x)[0] is not x


def test_parts_that_do_not_go_together():
    with pytest.raises(UserError, match="stacked parameters have no learned norms"):
        Mamba(8, scan="cross", axes=2, parameters="stacked", norms="learned")
    with pytest.raises(UserError, match="each path needs a suffix"):
        Mamba(8, scan="cross", axes=2, parameters=partial(PathParameters, suffixes=("", "b")))
    with pytest.raises(UserError, match="other parameters per path"):
        Mamba(8, scan="cross", axes=2).load_state_dict(
            Mamba(8, scan="cross", axes=2, parameters="stacked").state_dict()
        )
    assert Mamba(8, parameters=StackedParameters).path_parameters.name == "stacked"
