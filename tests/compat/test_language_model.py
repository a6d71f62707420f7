"""mamba_ssm's language model: names, caches, generation, files."""

from __future__ import annotations

import pytest
import torch

from polymamba.compat.language_model import InferenceParams, MambaConfig, MambaLMHeadModel

SMALL = {"d_model": 16, "n_layer": 2, "vocab_size": 50}


def model(**options) -> MambaLMHeadModel:
    torch.manual_seed(0)
    return MambaLMHeadModel(MambaConfig(**SMALL, **options)).eval()


def ids(length: int = 9) -> torch.Tensor:
    return torch.randint(0, 50, (2, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layer", ["Mamba1", "Mamba2", "Mamba3"])
def test_pieces_say_what_the_whole_says(layer):
    wide = {} if layer == "Mamba1" else {"headdim": 8, "d_state": 8, "chunk_size": 32}
    lm, cache, found = model(ssm_cfg={"layer": layer, **wide}), InferenceParams(9, 2), []
    for piece in ids().split([4, 1, 3, 1], 1):
        found.append(lm(piece, inference_params=cache).logits)
        cache.seqlen_offset += piece.shape[1]
    torch.testing.assert_close(torch.cat(found, 1), lm(ids()).logits, rtol=1e-4, atol=1e-5)


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


def test_files_go_round(tmp_path):
    lm = model()
    lm.save_pretrained(tmp_path)
    again = MambaLMHeadModel.from_pretrained(str(tmp_path))
    assert again.config == lm.config or again.config.ssm_cfg["layer"] == "Mamba1"
    assert torch.equal(again(ids()).logits, lm(ids()).logits)
    assert again.lm_head.weight is again.backbone.embedding.weight
