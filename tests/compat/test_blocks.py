"""mamba_ssm's blocks, attention and backbone: its names, its calls, its caches, and the answers of the core's language model."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from polymamba.compat import modules
from polymamba.compat.blocks import MHA, Block, GatedMLP, MixerModel, create_block
from polymamba.compat.generation import InferenceParams
from polymamba.compat.norms import RMSNorm
from polymamba.core.errors import UserError
from polymamba.domains.nlp.checkpoint_configs import arguments_of
from polymamba.domains.nlp.models.language_model import LanguageModel

HEADS = {"headdim": 8, "d_state": 8}
ATTENTION = {"num_heads": 4, "num_heads_kv": 2, "head_dim": 6, "causal": True, "d_conv": 4, "rotary_emb_dim": 4}
CONFIGS = {
    "mamba": {"ssm_cfg": {"d_state": 8}},
    "mamba2 and mlp": {"ssm_cfg": {"layer": "Mamba2", "chunk_size": 16, **HEADS}, "d_intermediate": 100},
    "mamba3, layer norm": {"ssm_cfg": {"layer": "Mamba3", **HEADS}, "rms_norm": False},
    "hybrid": {
        "ssm_cfg": {"layer": "Mamba2", **HEADS}, "attn_layer_idx": [1], "attn_cfg": {**ATTENTION, "mlp_dim": 100},
        "d_intermediate": 64,
    },
}  # fmt: skip


def tokens(length: int = 9, channels: int = 16) -> torch.Tensor:
    return torch.randn(2, length, channels, generator=torch.Generator().manual_seed(1))


def ids(length: int = 9) -> torch.Tensor:
    return torch.randint(0, 50, (2, length), generator=torch.Generator().manual_seed(0))


def backbone(kind: str, **more) -> MixerModel:
    torch.manual_seed(0)
    config = {"d_intermediate": 0, "rms_norm": True, "residual_in_fp32": True, **CONFIGS[kind], **more}
    model = MixerModel(d_model=16, n_layer=3, vocab_size=56, **config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_backbone_is_the_language_models(kind):
    model, lm = (
        backbone(kind),
        LanguageModel(**arguments_of({"d_model": 16, "n_layer": 3, "vocab_size": 50, **CONFIGS[kind]})),
    )
    assert {f"backbone.{name}" for name in model.state_dict()} | {"lm_head.weight"} == set(lm.state_dict())
    lm.backbone.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(ids()), lm.hidden(ids())[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("begin", ["made by the call", "allocated"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_pieces_with_caches_say_what_the_whole_says(kind, begin):
    model, params, found = backbone(kind), InferenceParams(9, 2), []
    if begin == "allocated":
        params.key_value_memory_dict = model.allocate_inference_cache(2, 9)
    with torch.no_grad():
        for piece in ids().split([4, 1, 3, 1], 1):
            found.append(model(piece, inference_params=params))
            params.seqlen_offset += piece.shape[1]
        torch.testing.assert_close(torch.cat(found, 1), model(ids()), rtol=1e-4, atol=1e-5)
    assert set(params.key_value_memory_dict) == {0, 1, 2}


def test_a_block_of_ones_own():
    """As published code calls it, with and without an MLP; the stream is add, norm, mix."""
    norm = partial(RMSNorm, eps=1e-5)
    block = Block(16, partial(modules.Mamba, layer_idx=0), norm_cls=norm, fused_add_norm=True, residual_in_fp32=True)
    assert {name.split(".")[0] for name in block.state_dict()} == {"norm", "mixer"}
    x, before = tokens(), tokens().flip(1)
    hidden, residual = block(x, before)
    torch.testing.assert_close(residual, x + before)
    torch.testing.assert_close(hidden, block.mixer(F.rms_norm(x + before, (16,), block.norm.weight, 1e-5)))
    assert block(x)[1] is not None
    torch.testing.assert_close(block(x)[1], x)
    block = Block(16, partial(modules.Mamba, layer_idx=0), nn.Identity)
    assert isinstance(block.norm, nn.LayerNorm)
    assert block.mlp is None
    block = create_block(16, 64, {"layer": "Mamba2", **HEADS}, layer_idx=1)
    hidden, residual = block(x)
    mixed = x + block.mixer(block.norm(x))
    torch.testing.assert_close(residual, mixed)
    value, gate = block.mlp.fc1(block.norm2(mixed)).chunk(2, -1)
    torch.testing.assert_close(hidden, block.mlp.fc2(value * F.silu(gate)))
    assert block.mlp.fc1.weight.shape == (256, 16)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_with_an_mlp_beside_it(causal):
    torch.manual_seed(0)
    layer, x = MHA(16, 4, num_heads_kv=2, mlp_dim=300, causal=causal), tokens()
    assert layer.in_proj.weight.shape == (32 + 512, 16)
    assert layer.out_proj.weight.shape == (16, 16 + 256)
    q, k, v, value, gate = layer.in_proj(x).split([16, 8, 8, 256, 256], -1)
    q, k, v = (t.unflatten(-1, (-1, 4)).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 2
    if causal:
        scores = scores.masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), -torch.inf)
    y = (scores.softmax(-1) @ v.repeat_interleave(2, 1)).transpose(1, 2).flatten(2)
    expected = layer.out_proj(torch.cat([y, value * F.silu(gate)], -1))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_attentions_cache_is_upstreams():
    layer, x = MHA(16, **ATTENTION, layer_idx=2), tokens()
    params = InferenceParams(12, 2)
    with torch.no_grad():
        whole = layer(x)
        found = layer(x[:, :5], inference_params=params)
        pairs, conv = params.key_value_memory_dict[2]
        assert pairs.shape == (2, 12, 2, 2, 6)
        assert conv.shape == (2, 48, 4)
        assert not pairs[:, 5:].any()
        params.seqlen_offset = 5
        rest = layer(x[:, 5:], inference_params=params)
    torch.testing.assert_close(torch.cat([found, rest], 1), whole, rtol=1e-4, atol=1e-5)
    assert pairs[:, :9].abs().sum(-1).min() > 0


def test_errors():
    with pytest.raises(UserError, match="Mamba1"):
        create_block(16, ssm_cfg={"layer": "Mamba4"})
    with pytest.raises(UserError, match="SiLU"):
        GatedMLP(16, activation=F.gelu)
    with pytest.raises(UserError, match="layer_idx"):
        MHA(16, 4, causal=True)(tokens(), InferenceParams(9, 2))
