"""What people type wrongly of texts and language models."""

import pytest
from refusals import messages

CASES = {
    "data.length=1": ["data.length is out of range", "at least 2"],
    "model.n_layer=0": ["model.n_layer is out of range"],
    "model.d_model=-1": ["model.d_model is out of range"],
    "model=vim": ["belongs to vision", "mamba_lm"],
}
LINES = {
    ("model=moe_mamba", "model.experts=-1"): ["model.experts is out of range"],
    ("model=hybrid_lm", "model.attention_every=-1"): ["model.attention_every is out of range"],
    ("data=mqar", "data.pairs=0"): ["data.pairs is out of range"],
    ("data=induction_heads", "data.test_lengths=[]"): ["data.test_lengths", "a list of"],
    ("data=induction_heads", "data.test_lengths=[a]"): ["data.test_lengths"],
}


def test_one_message_before_torch_is_loaded(tmp_path):
    said = messages(CASES, ["domain=nlp"], tmp_path)
    assert [(word, part) for word, parts in CASES.items() for part in parts if part not in said[word]] == []


@pytest.mark.parametrize("typed", LINES, ids=" ".join)
def test_one_message(typed, refused):
    message = refused("domain=nlp", *typed)
    assert [part for part in LINES[typed] if part not in message] == [], message
