"""mamba_ssm's modules: the core's answers, with upstream's caches; the forks' bidirectional layers."""

from __future__ import annotations

import pytest
import torch

from polymamba.compat import modules
from polymamba.compat.generation import InferenceParams
from polymamba.core import mixers
from polymamba.core.errors import UserError

MAKE = {
    "Mamba": {"d_model": 16, "d_state": 4},
    "Mamba2": {"d_model": 16, "d_state": 8, "headdim": 8},
    "Mamba3": {"d_model": 16, "d_state": 8, "headdim": 8},
}


def made(name: str, **options):
    torch.manual_seed(0)
    return getattr(modules, name)(**MAKE[name], **options)


def tokens(length: int = 12, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, length, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", MAKE)
def test_answers_as_the_core_does(name):
    layer = made(name)
    core = mixers.get(name.lower())(**MAKE[name])
    core.load_state_dict(layer.state_dict())
    assert torch.equal(layer(tokens()), core(tokens())[0])


def test_what_published_code_reads_off_a_layer():
    common = ("d_model", "d_state", "expand", "d_inner", "layer_idx")
    convolved = ("d_conv", "activation", "act", "conv1d", "A_log", "D")
    for name, more in (
        ("Mamba", (*convolved, "dt_rank", "use_fast_path", "x_proj", "dt_proj")),
        ("Mamba2", (*convolved, "headdim", "d_ssm", "ngroups", "nheads", "dt_limit", "chunk_size", "rmsnorm", "norm")),
        ("Mamba3", ("headdim", "nheads", "mimo_rank", "num_bc_heads", "num_rope_angles", "A_floor", "is_mimo")),
    ):
        layer = made(name, layer_idx=1)
        assert [each for each in (*common, *more) if not hasattr(layer, each)] == []
        assert layer.d_inner == layer.expand * layer.d_model


@pytest.mark.parametrize("pieces", [[1] * 12, [5, 1, 1, 4, 1]])
@pytest.mark.parametrize("name", MAKE)
def test_pieces_with_a_cache_say_what_the_whole_says(name, pieces):
    layer, x = made(name, layer_idx=3), tokens()
    cache, found = InferenceParams(max_seqlen=12, max_batch_size=2), []
    for piece in x.split(pieces, 1):
        found.append(layer(piece, inference_params=cache))
        cache.seqlen_offset += piece.shape[1]
    torch.testing.assert_close(torch.cat(found, 1), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MAKE)
def test_steps_move_the_cache_on_in_place(name):
    layer, x = made(name), tokens(5)
    cache = layer.allocate_inference_cache(2, 5)
    found = [layer.step(x[:, t : t + 1], *cache)[0] for t in range(5)]
    torch.testing.assert_close(torch.cat(found, 1), layer(x), rtol=1e-4, atol=1e-5)
    assert all(bool(t.any()) for t in cache)


@pytest.mark.parametrize("name", MAKE)
def test_a_layer_with_a_cache_needs_a_number(name):
    with pytest.raises(UserError, match="layer_idx"):
        made(name)(tokens(), inference_params=InferenceParams(12, 2))


@pytest.mark.parametrize("name", ["Mamba2", "Mamba3"])
def test_packed_rows_are_kept_apart(name):
    layer, x = made(name), tokens(12, 1)
    packed = layer(x, cu_seqlens=torch.tensor([0, 5, 12]))
    apart = torch.cat([layer(x[:, :5]), layer(x[:, 5:])], 1)
    torch.testing.assert_close(packed, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["Mamba2", "Mamba3"])
def test_a_packed_prompt_begins_a_row_of_the_cache_for_each_sequence(name):
    layer, x, cu = made(name, layer_idx=0), tokens(12, 1), torch.tensor([0, 5, 6, 12])
    params, apart = InferenceParams(20, 3), [InferenceParams(20, 1) for _ in range(3)]
    more = tokens(1, 3)
    with torch.no_grad():
        found = layer(x, cu_seqlens=cu, inference_params=params)
        expected = [layer(x[:, b:e], inference_params=each) for b, e, each in zip(cu, cu[1:], apart, strict=False)]
        torch.testing.assert_close(found, torch.cat(expected, 1))
        for each in [params, *apart]:
            each.seqlen_offset = 12
        found = layer(more, cu_seqlens=cu, inference_params=params)
        expected = [layer(more[row : row + 1], inference_params=each) for row, each in enumerate(apart)]
    torch.testing.assert_close(found, torch.cat(expected))
    for kept, *rows in zip(
        params.key_value_memory_dict[0], *(each.key_value_memory_dict[0] for each in apart), strict=True
    ):
        torch.testing.assert_close(kept, torch.cat(rows))


def test_flat_tokens():
    layer, x = made("Mamba2"), tokens()
    assert torch.equal(layer(x.flatten(0, 1), seqlen=12), layer(x).flatten(0, 1))


def one_direction(layer, x, end: str, out: bool = True) -> torch.Tensor:
    """The mixer without bidirection that has this direction's parameters."""
    single = made("Mamba")
    names = {"A_log": f"A{end}_log", "D": f"D{end}"}
    state = layer.state_dict()
    for name in single.state_dict():
        head, _, tail = name.partition(".")
        shared = head in ("in_proj", "out_proj")
        names.setdefault(name, name if shared else f"{head}{end}.{tail}")
    single.load_state_dict({name: state[there] for name, there in names.items()})
    return single(x)


@pytest.mark.parametrize("halved", [False, True])
def test_v2_is_the_sum_of_both_directions(halved):
    layer, x = made("Mamba", bimamba_type="v2", if_divide_out=halved), tokens()
    both = one_direction(layer, x, "") + one_direction(layer, x.flip(1), "_b").flip(1)
    torch.testing.assert_close(layer(x), both / 2 if halved else both, rtol=1e-4, atol=1e-5)


def test_v3_adds_the_direction_from_slice_to_slice():
    layer, x = made("Mamba", bimamba_type="v3", nslices=3), tokens()
    across = x.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
    back = one_direction(layer, across, "_s").unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2)
    three = one_direction(layer, x, "") + one_direction(layer, x.flip(1), "_b").flip(1) + back
    torch.testing.assert_close(layer(x), three, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="nslices"):
        layer(tokens(11))


def test_v1_has_a_second_decay_only_and_layer_scale_multiplies():
    layer, plain = made("Mamba", bimamba_type="v1", init_layer_scale=0.5), made("Mamba")
    assert set(layer.state_dict()) - set(plain.state_dict()) == {"A_b_log", "gamma"}
    scaled = layer(tokens())
    layer.gamma.data.fill_(1.0)
    torch.testing.assert_close(scaled, layer(tokens()) / 2)


def test_errors():
    with pytest.raises(UserError, match="bimamba_type"):
        made("Mamba", bimamba_type="v4")
    with pytest.raises(UserError, match="backwards"):
        made("Mamba", bimamba_type="v2", layer_idx=0)(tokens(), InferenceParams(12, 2))
    with pytest.raises(UserError, match="process_group"):
        made("Mamba2", process_group=object())
