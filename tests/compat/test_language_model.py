"""mamba_ssm's language model: names, caches, generation, files."""

from __future__ import annotations

import pytest
import torch

from polymamba.compat.generation import InferenceParams
from polymamba.compat.language_model import MambaConfig, MambaLMHeadModel, load_config_hf, load_state_dict_hf

SMALL = {"d_model": 16, "n_layer": 2, "vocab_size": 50}


def model(**options) -> MambaLMHeadModel:
    torch.manual_seed(0)
    return MambaLMHeadModel(MambaConfig(**SMALL, **options)).eval()


def ids(length: int = 9) -> torch.Tensor:
    return torch.randint(0, 50, (2, length), generator=torch.Generator().manual_seed(0))


ATTENTION = {"num_heads": 4, "num_heads_kv": 2, "head_dim": 6, "causal": True, "d_conv": 4, "mlp_dim": 256}


@pytest.mark.parametrize("hybrid", [{}, {"attn_layer_idx": [1], "attn_cfg": ATTENTION, "d_intermediate": 64}])
@pytest.mark.parametrize("layer", ["Mamba1", "Mamba2", "Mamba3"])
def test_pieces_say_what_the_whole_says(layer, hybrid):
    wide = {} if layer == "Mamba1" else {"headdim": 8, "d_state": 8, "chunk_size": 32}
    lm, cache, found = model(ssm_cfg={"layer": layer, **wide}, **hybrid), InferenceParams(9, 2), []
    for piece in ids().split([4, 1, 3, 1], 1):
        found.append(lm(piece, inference_params=cache).logits)
        cache.seqlen_offset += piece.shape[1]
    torch.testing.assert_close(torch.cat(found, 1), lm(ids()).logits, rtol=1e-4, atol=1e-5)


def test_the_published_answers(golden):
    for name in ("core_lm_mamba1", "core_lm_mamba2"):
        meta = golden.meta_of(name)
        lm = golden.fill(MambaLMHeadModel(MambaConfig(**meta["args"])))
        with torch.no_grad():
            result = golden.compare(name, lm(golden.seeded(2, 64, low=0, high=250)).logits, lm)
        assert max(result["errors"]) < 1e-5
        assert (result["missing"], result["extra"], result["shapes"]) == ([], [], [])


def test_its_parts_are_called_as_published_code_calls_them():
    lm = model(ssm_cfg={"layer": "Mamba2", "headdim": 8})
    assert torch.equal(lm.lm_head(lm.backbone(ids())), lm(ids()).logits)
    hidden, residual = lm.backbone.embedding(ids()), None
    for layer in lm.backbone.layers:
        hidden, residual = layer(hidden, residual, inference_params=None)
    torch.testing.assert_close(lm.lm_head(lm.backbone.norm_f(hidden + residual)), lm(ids()).logits)
    number = torch.tensor([0] * 4 + [1] * 5).expand(2, -1)
    apart = torch.cat([lm(part).logits for part in ids().split([4, 5], 1)], 1)
    torch.testing.assert_close(lm(ids(), seq_idx=number).logits, apart, rtol=1e-4, atol=1e-5)


def test_weights_begin_as_published():
    lm = MambaLMHeadModel(
        MambaConfig(d_model=64, n_layer=8, vocab_size=400, ssm_cfg={"bias": True}), {"initializer_range": 0.5}
    )
    assert 0.45 < float(lm.backbone.embedding.weight.detach().std()) < 0.55
    mixer = lm.backbone.layers[3].mixer
    assert not mixer.in_proj.bias.any()
    assert mixer.dt_proj.bias.any()
    assert float(mixer.out_proj.weight.detach().abs().max()) <= 128**-0.5 / 8**0.5 + 1e-6
    assert lm.lm_head.weight is lm.backbone.embedding.weight
    assert MambaLMHeadModel(MambaConfig(64, 0, 1, 401)).lm_head.weight.shape == (408, 64)


def test_last_tokens_only():
    lm = model()
    assert torch.equal(lm(ids(), num_last_tokens=2).logits, lm(ids()).logits[:, -2:])
    assert torch.equal(lm(ids())[0], lm(ids()).logits)


def test_generation_takes_the_likeliest_token():
    lm, expected = model(), ids(4)
    for _ in range(5):
        expected = torch.cat([expected, lm(expected).logits[:, -1:, :50].argmax(-1)], 1)
    assert torch.equal(lm.generate(ids(4), max_length=9), expected)
    assert torch.equal(lm.generate(ids(4), max_length=9, return_dict_in_generate=True).sequences, expected)


def test_an_end_token_fills_up_the_row():
    lm = model()
    free = lm.generate(ids(4), max_length=9)
    end = int(free[0, 5])
    ended = lm.generate(ids(4), max_length=9, eos_token_id=end)
    assert bool((ended[0, 6:] == end).all())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ssm_cfg": {"layer": "Mamba2", "headdim": 8, "d_ssm": 16, "rmsnorm": False}, "rms_norm": False},
        {"ssm_cfg": {"layer": "Mamba3", "headdim": 8, "d_state": 8, "is_mimo": True}, "d_intermediate": 100},
        {"attn_layer_idx": [1], "attn_cfg": {**ATTENTION, "rotary_emb_dim": 4, "qkv_proj_bias": False}},
    ],
)
def test_files_go_round(tmp_path, options):
    lm = model(**options)
    lm.save_pretrained(tmp_path)
    again = MambaLMHeadModel.from_pretrained(str(tmp_path))
    kept = {name: value for name, value in vars(lm.config).items() if name not in ("ssm_cfg", "attn_cfg")}
    assert kept.items() <= vars(again.config).items()
    assert lm.config.ssm_cfg.items() <= again.config.ssm_cfg.items()
    assert lm.config.attn_cfg.items() <= again.config.attn_cfg.items()
    assert torch.equal(again(ids()).logits, lm(ids()).logits)
    assert again.lm_head.weight is again.backbone.embedding.weight
    assert load_config_hf(tmp_path)["d_model"] == 16
    again = MambaLMHeadModel(lm.config)
    again.load_state_dict(load_state_dict_hf(tmp_path))
    assert torch.equal(again(ids()).logits, lm(ids()).logits)
