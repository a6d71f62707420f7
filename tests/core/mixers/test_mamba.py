import copy
import itertools
import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from polymamba.core import scans
from polymamba.core.errors import UserError
from polymamba.core.mixers.mamba import Mamba
from polymamba.core.mixers.path_parameters import PathParameters
from polymamba.core.scans import Grid

DOUBLE = {"dtype": torch.float64}


def mixer(seed=0, d_model=16, d_state=4, **options):
    torch.manual_seed(seed)
    made = Mamba(d_model, d_state=d_state, **options, **DOUBLE)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def tokens(batch, length, d_model=16, seed=1):
    return torch.randn(batch, length, d_model, generator=torch.Generator().manual_seed(seed), **DOUBLE)


def causal_silu_conv(x, weight, bias):
    """(length, channels) through the causal depthwise convolution, written as sums."""
    width = weight.shape[-1]
    rows = []
    for t in range(len(x)):
        row = bias.clone()
        for k in range(width):
            if t - k >= 0:
                row = row + weight[:, 0, width - 1 - k] * x[t - k]
        rows.append(F.silu(row))
    return torch.stack(rows)


def recurrence(x, delta, A, B, C, D):
    state, rows = torch.zeros(A.shape, **DOUBLE), []
    for t in range(len(x)):
        state = torch.exp(delta[t, :, None] * A) * state + delta[t, :, None] * B[t] * x[t, :, None]
        rows.append((state * C[t]).sum(-1) + D * x[t])
    return torch.stack(rows)


def select(x, made, end=""):
    """Step sizes, B and C of one set of parameters."""
    step, B, C = (x @ getattr(made, f"x_proj{end}").weight.T).split([made.dt_rank, made.d_state, made.d_state], -1)
    projection = getattr(made, f"dt_proj{end}")
    return F.softplus(step @ projection.weight.T + projection.bias), B, C


def one_path(made, x, end=""):
    """(length, channels) through one path's convolution, selection and recurrence, without the gate."""
    convolution = getattr(made, f"conv1d{end}")
    x = causal_silu_conv(x, convolution.weight, convolution.bias)
    delta, B, C = select(x, made, end)
    return recurrence(x, delta, -torch.exp(getattr(made, f"A{end}_log")), B, C, getattr(made, f"D{end}"))


def test_matches_the_original_mixer(golden):
    made = golden.fill(Mamba(64))
    assert max(golden.compare("core_mamba1", made(golden.seeded(2, 100, 64))[0])["errors"]) < 1e-5
    result = golden.compare("core_mamba1", made(golden.seeded(2, 100, 64))[0], made)
    assert not (result["missing"])
    assert not (result["extra"])
    assert not (result["shapes"])


def test_matches_the_original_gradients(golden):
    made = golden.fill(Mamba(64))
    x = golden.seeded(2, 50, 64).requires_grad_()
    y, _ = made(x)
    (y * golden.seeded(2, 50, 64, seed=99)).sum().backward()
    named = dict(made.named_parameters())
    gradients = [named[name].grad for name in golden.meta_of("core_mamba1_grad")["gradient_order"]]
    assert len(gradients) == len(named)
    assert max(golden.compare("core_mamba1_grad", [y, x.grad, *gradients])["errors"]) < 1e-5


def test_matches_the_original_bidirectional_mixer(golden):
    made = golden.fill(Mamba(48, scan="bidirectional", merge="mean"))
    result = golden.compare("core_vim_mamba_v2_half", made(golden.seeded(2, 60, 48))[0], made)
    assert max(result["errors"]) < 1e-5
    assert not (result["missing"])
    assert not (result["extra"])
    assert not (result["shapes"])


def test_one_path_is_the_recurrence():
    made, x = mixer(bias=True), tokens(2, 9)
    y, _ = made(x)
    for sample in range(2):
        inner, gate = made.in_proj(x[sample]).chunk(2, -1)
        expected = made.out_proj(one_path(made, inner) * F.silu(gate))
        torch.testing.assert_close(y[sample], expected)


@pytest.mark.parametrize("merge", ["sum", "mean", "none"])
def test_bidirectional_is_two_branches_with_a_flip(merge):
    made, x = mixer(scan="bidirectional", merge=merge), tokens(1, 9)
    inner, gate = made.in_proj(x[0]).chunk(2, -1)
    paths = torch.stack([one_path(made, inner), one_path(made, inner.flip(0), "_b").flip(0)])
    merged = {"sum": paths.sum(0), "mean": paths.mean(0), "none": paths}[merge]
    torch.testing.assert_close(made(x)[0][0], made.out_proj(merged * F.silu(gate)))


def test_decay_is_the_first_vim_layer():
    """Convolved and projected once, in raster order; the way back has its own decay alone, and nothing is halved."""
    made, x = mixer(scan="bidirectional", parameters="decay"), tokens(1, 9)
    names = {name for name, _ in made.named_parameters()}
    assert "A_b_log" in names
    assert not names & {"D_b", "conv1d_b.weight", "x_proj_b.weight", "dt_proj_b.weight"}
    inner, gate = made.in_proj(x[0]).chunk(2, -1)
    inner = causal_silu_conv(inner, made.conv1d.weight, made.conv1d.bias)
    delta, B, C = select(inner, made)
    forth = recurrence(inner, delta, -torch.exp(made.A_log), B, C, made.D)
    back = recurrence(inner.flip(0), delta.flip(0), -torch.exp(made.A_b_log), B.flip(0), C.flip(0), made.D)
    torch.testing.assert_close(made(x)[0][0], made.out_proj((forth + back.flip(0)) * F.silu(gate)))


def test_shared_parameters_convolve_along_each_path():
    made, x = mixer(scan="bidirectional", parameters="shared"), tokens(1, 9)
    inner, gate = made.in_proj(x[0]).chunk(2, -1)
    both = one_path(made, inner) + one_path(made, inner.flip(0)).flip(0)
    torch.testing.assert_close(made(x)[0][0], made.out_proj(both * F.silu(gate)))


@pytest.mark.parametrize("where", ["none", "front", "middle", "end", "double"])
def test_paths_over_a_grid_are_the_order_of_the_scan(where):
    made, grid = mixer(scan="cross", axes=2), Grid.with_class_token((3, 4), where)
    x = tokens(1, grid.length)
    inner, gate = made.in_proj(x[0]).chunk(2, -1)
    total = torch.zeros_like(inner)
    for end, path in zip(["", "_b", "_c", "_d"], scans.get("cross").order(grid).long(), strict=True):
        total = total.index_add(0, path, one_path(made, inner[path], end))
    torch.testing.assert_close(made(x, grid)[0][0], made.out_proj(total * F.silu(gate)))


@pytest.mark.parametrize("parameters", ["separate", "shared"])
@pytest.mark.parametrize("where", ["none", "middle"])
def test_grid_convolution(parameters, where):
    grid = Grid.with_class_token((3, 5), where)
    made = mixer(scan="bidirectional", parameters=parameters, conv="grid", axes=2)
    x = tokens(2, grid.length)
    inner, gate = made.in_proj(x).chunk(2, -1)
    on_grid = [t for t in range(grid.length) if t not in grid.extra]
    image = inner[:, on_grid].transpose(1, 2).unflatten(2, (3, 5))
    convolved = torch.empty_like(inner)
    convolution = made.conv2d
    image = F.conv2d(image, convolution.weight, convolution.bias, padding=1, groups=inner.shape[-1])
    convolved[:, on_grid] = image.flatten(2).transpose(1, 2)
    for t in grid.extra:
        convolved[:, t] = inner[:, t] * convolution.weight[:, 0, 1, 1] + convolution.bias
    convolved = F.silu(convolved)
    back = "" if parameters == "shared" else "_b"
    for sample in range(2):
        u = convolved[sample]
        forth = recurrence(u, *_inputs(made, u, ""))
        backward = recurrence(u.flip(0), *_inputs(made, u.flip(0), back)).flip(0)
        expected = made.out_proj((forth + backward) * F.silu(gate[sample]))
        torch.testing.assert_close(made(x, grid)[0][sample], expected)


def _inputs(made, x, end):
    delta, B, C = select(x, made, end)
    return delta, -torch.exp(getattr(made, f"A{end}_log")), B, C, getattr(made, f"D{end}")


def test_three_dimensional_grid_convolution_sees_its_neighbours():
    made = mixer(conv="grid", axes=3)
    x = tokens(1, 24).requires_grad_()
    made(x, (2, 3, 4))[0][0, 0].sum().backward()
    reached = {t for t in range(24) if x.grad[0, t].abs().sum() > 0}
    assert reached == {0, 1, 4, 5, 12, 13, 16, 17}


def test_without_convolution_and_gate():
    made, x = mixer(conv="none", gate=False), tokens(1, 7)
    u = F.silu(made.in_proj(x[0]))
    torch.testing.assert_close(made(x)[0][0], made.out_proj(recurrence(u, *_inputs(made, u, ""))))
    assert not any("conv" in name for name, _ in made.named_parameters())


@pytest.mark.parametrize("options", [{}, {"d_conv": 2}, {"d_conv": 1}, {"conv": "none"}, {"gate": False}])
def test_pieces_with_the_state_carried_equal_the_whole(options):
    made, x = mixer(**options), tokens(2, 23).requires_grad_()
    whole, end = made(x)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        cuts = sorted({0, 23, *torch.randint(1, 23, (6,), generator=generator).tolist()})
        state, pieces = None, []
        for begin, stop in itertools.pairwise(cuts):
            piece, state = made(x[:, begin:stop], state=state)
            pieces.append(piece)
        carried = torch.cat(pieces, 1)
        torch.testing.assert_close(carried, whole)
        torch.testing.assert_close(state, end)
    expected, found = (torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for y in (whole, carried))
    torch.testing.assert_close(found, expected)


def test_one_token_at_a_time_equals_the_whole():
    made, x = mixer(), tokens(2, 12)
    state, rows = None, []
    for t in range(12):
        y, state = made(x[:, t : t + 1], state=state)
        rows.append(y)
    torch.testing.assert_close(torch.cat(rows, 1), made(x)[0])


def test_states_are_float32_where_the_tokens_are_not():
    made = Mamba(16, d_state=4, backend="reference").bfloat16()
    _, state = made(tokens(1, 5).bfloat16())
    assert state.ssm.dtype == torch.float32


def test_a_state_needs_one_raster_path():
    state = mixer()(tokens(1, 4))[1]
    for options in ({"scan": "reverse"}, {"scan": "bidirectional"}, {"conv": "grid"}):
        made = mixer(**options)
        y, none = made(tokens(1, 4))
        assert y.shape == (1, 4, 16)
        assert none is None
        with pytest.raises(UserError, match="raster"):
            made(tokens(1, 4), state=state)


@pytest.mark.parametrize("options", [{}, {"scan": "bidirectional"}, {"scan": "bidirectional", "parameters": "decay"}])
def test_packed_sequences_equal_separate_ones(options):
    made, lengths = mixer(**options), [5, 1, 7]
    parts = [tokens(1, length, seed=length) for length in lengths]
    seq_idx = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    packed, _ = made(torch.cat(parts, 1), seq_idx=seq_idx)
    torch.testing.assert_close(packed, torch.cat([made(part)[0] for part in parts], 1))


def test_packing_is_refused_with_a_grid_convolution():
    with pytest.raises(UserError, match="packed"):
        mixer(conv="grid")(tokens(1, 4), seq_idx=torch.zeros(1, 4, dtype=torch.long))


@pytest.mark.parametrize("where", ["none", "middle", "double"])
@pytest.mark.parametrize("conv", ["path", "grid", "none"])
@pytest.mark.parametrize("parameters", ["separate", "shared"])
def test_paths_that_share_the_tokens_out_equal_the_dense_computation(parameters, conv, where):
    grid = Grid.with_class_token((5, 3), where)
    made = mixer(scan="skip", axes=2, parameters=parameters, conv=conv, merge="mean")
    assert scans.get("skip").disjoint(2)
    x = tokens(2, grid.length).requires_grad_()
    found = made(x, grid)[0]
    dense = copy.deepcopy(made)
    dense.shares_tokens = lambda: False
    expected = dense(x, grid)[0]
    torch.testing.assert_close(found, expected)
    weight = tokens(2, grid.length, seed=5)
    inputs = [x, *made.parameters()]
    expected = torch.autograd.grad((expected * weight).sum(), [x, *dense.parameters()])
    torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), inputs), expected)


@pytest.mark.parametrize("parameters", ["separate", "shared", "decay"])
@pytest.mark.parametrize("conv", ["path", "grid", "none"])
@pytest.mark.parametrize("scan", ["raster", "cross", "skip"])
def test_every_parameter_gets_a_gradient(parameters, conv, scan):
    made = mixer(scan=scan, parameters=parameters, conv=conv, axes=2, bias=True)
    made(tokens(2, 13), Grid.with_class_token((3, 4), "middle"))[0].square().sum().backward()
    idle = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_zigzag_layer_walks_one_path():
    scan = scans.get("zigzag").layer(3)
    made, x = mixer(scan=scan, axes=2), tokens(1, 12)
    assert made.paths == 1
    path = scan.order((3, 4))[0].long()
    raster = mixer()
    raster.load_state_dict(made.state_dict())
    expected = torch.empty_like(x)
    expected[:, path] = raster(x[:, path])[0]
    torch.testing.assert_close(made(x, (3, 4))[0], expected)


def test_parameter_names_with_other_suffixes():
    suffixed = partial(PathParameters, suffixes=["", "b", "s"])
    names = set(mixer(scan="slices", axes=3, parameters=suffixed).state_dict())
    assert {"A_log", "A_b_log", "A_s_log", "D_s", "conv1d_s.weight", "x_proj_s.weight", "dt_proj_s.bias"} <= names
    with pytest.raises(UserError, match="suffix"):
        Mamba(16, scan="bidirectional", parameters=partial(PathParameters, suffixes=[""]))


def test_initial_values():
    torch.manual_seed(0)
    made = Mamba(64, scan="bidirectional", dtype=torch.bfloat16, dt_min=0.01, dt_max=0.2)
    assert made.A_b_log.dtype == made.D.dtype == torch.float32
    assert made.in_proj.weight.dtype == torch.bfloat16
    torch.testing.assert_close(made.A_log[5].exp(), torch.arange(1.0, 17.0))
    step = F.softplus(Mamba(64, dt_min=0.01, dt_max=0.2).dt_proj.bias)
    assert 0.0099 < step.min() < 0.02
    assert 0.15 < step.max() < 0.2001
    assert made.dt_rank == 4
    assert made.dt_proj.weight.abs().max() <= 0.5
    assert all(p._no_weight_decay for p in (made.A_log, made.A_b_log, made.D, made.D_b))
    assert made.dt_proj_b.bias._no_reinit


def test_constant_step_projection_and_floor():
    made = Mamba(32, dt_init="constant", dt_scale=0.5, dt_min=1e-6, dt_max=1e-5, dt_init_floor=1e-3)
    torch.testing.assert_close(made.dt_proj.weight, torch.full((64, 2), 0.5 * 2**-0.5))
    torch.testing.assert_close(F.softplus(made.dt_proj.bias), torch.full((64,), 1e-3))
    with pytest.raises(UserError, match="dt_init"):
        Mamba(32, dt_init="ones")


def test_wrong_options_and_grids():
    with pytest.raises(UserError, match="separate"):
        Mamba(16, parameters="seperate")
    with pytest.raises(UserError, match="odd"):
        Mamba(16, conv="grid", d_conv=4)
    with pytest.raises(UserError, match="10 tokens"):
        mixer(scan="bidirectional")(tokens(1, 10), (3, 4))
    with pytest.raises(UserError, match="axes"):
        mixer(scan="cross", axes=3)(tokens(1, 12), (3, 4))


def test_a_checkpoint_of_other_paths_is_named():
    saved = mixer(scan="bidirectional").state_dict()
    for options in ({"scan": "raster"}, {"scan": "cross", "axes": 2}, {"scan": "bidirectional", "parameters": "decay"}):
        with pytest.raises(UserError, match="another scan"):
            mixer(**options).load_state_dict(saved)
    mixer(scan="raster").load_state_dict(saved, strict=False)
    mixer(scan="reverse+raster").load_state_dict(saved)


def test_a_missing_outer_projection_is_reported_by_torch():
    saved = mixer().state_dict()
    del saved["out_proj.weight"]
    with pytest.raises(RuntimeError, match="out_proj"):
        mixer().load_state_dict(saved)


def test_flops_count_each_projection_once():
    made = Mamba(32, d_state=16)
    inner, rank, length = 64, 2, 10
    linear = 32 * 2 * inner + inner * (rank + 32) + rank * inner + inner * 32
    assert made.flops((length,)) == length * (2 * linear + 2 * 4 * inner + 9 * inner * 16)
    skip, cross = (Mamba(32, scan=scan, axes=2).flops((4, 4)) for scan in ("skip", "cross"))
    assert skip == Mamba(32).flops((16,))
    assert cross > 2 * skip
    assert math.isclose(Mamba(32, conv="none").flops((8,)), Mamba(32).flops((8,)) - 2 * 4 * inner * 8)
