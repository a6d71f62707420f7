"""Checkpoints that transformers reads and writes, in both directions, and mamba_ssm's files."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from polymamba.core.errors import UserError
from polymamba.domains.nlp.checkpoints import load_pretrained, save_pretrained
from polymamba.domains.nlp.generation import generate
from polymamba.domains.nlp.models.language_model import LanguageModel

KINDS = {
    "mamba": {"mixer": "mamba", "mixer_options": {"d_state": 8}},
    "mamba_biased": {"mixer": "mamba", "mixer_options": {"bias": True, "dt_rank": 3}, "tie_embeddings": False},
    "falcon_mamba": {"mixer": "mamba", "mixer_options": {"norms": "weightless"}},
    "mamba2": {"mixer": "mamba2", "mixer_options": {"d_state": 16, "headdim": 16}},
    "jamba": {
        "mixer_options": {"norms": "learned", "norm_eps": 1e-5},
        "attention_layers": [1, 3],
        "attention_options": {"num_heads": 4, "num_heads_kv": 2},
        "d_intermediate": 48,
        "mlp_options": {"multiple_of": 1},
        "experts": 4,
        "expert_layers": [2],
        "experts_options": {"top_k": 2, "capacity_factor": None, "activation": "silu", "gated": True},
    },
}
SIZES = {
    "mamba": ("Mamba", {}),
    "mamba_narrow": (
        "Mamba",
        {
            "conv_kernel": 2,
            "use_bias": True,
            "use_conv_bias": False,
            "time_step_rank": 5,
            "layer_norm_epsilon": 1e-2,
        },
    ),
    "falcon_mamba": ("FalconMamba", {}),
    "falcon_mamba_eps": ("FalconMamba", {"mixer_rms_eps": 1e-2, "layer_norm_epsilon": 1e-3, "conv_kernel": 3}),
    "mamba2": ("Mamba2", {"head_dim": 16, "num_heads": 8}),
    "mamba2_groups": (
        "Mamba2",
        {
            "head_dim": 16,
            "num_heads": 8,
            "n_groups": 4,
            "layer_norm_epsilon": 1e-2,
            "time_step_limit": (0.01, 0.05),
            "use_bias": True,
            "use_conv_bias": False,
            "conv_kernel": 3,
        },
    ),
    "jamba": ("Jamba", {"attn_layer_period": 3, "attn_layer_offset": 1}),
    "jamba_biased": (
        "Jamba",
        {
            "attn_layer_period": 2,
            "attn_layer_offset": 0,
            "expert_layer_period": 3,
            "expert_layer_offset": 2,
            "mamba_proj_bias": True,
            "mamba_conv_bias": False,
            "mamba_dt_rank": 3,
            "mamba_d_conv": 3,
        },
    ),
    "jamba_without_experts": ("Jamba", {"num_experts": 1, "rms_norm_eps": 1e-3}),
}
SMALL_JAMBA = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "num_experts": 4,
    "mamba_d_state": 8,
}

ONE_NAMING = ("falcon_mamba", "jamba")
WRITTEN = [(kind, "transformers") for kind in KINDS] + [(kind, "mamba_ssm") for kind in KINDS if kind not in ONE_NAMING]


@pytest.fixture
def transformers(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("transformers", reason="transformers is in the extra 'bench'")


def ours(kind):
    torch.manual_seed(0)
    model = LanguageModel(250, d_model=64, n_layer=4 if kind == "jamba" else 2, **KINDS[kind])
    with torch.no_grad():
        for parameter in model.parameters():  # far from where training starts, so that nothing is nearly zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def theirs(transformers, kind):
    name, more = SIZES[kind]
    small = {"Mamba2": {"n_groups": 1}, "Jamba": SMALL_JAMBA}.get(name, {})
    config = getattr(transformers, f"{name}Config")(
        vocab_size=256, hidden_size=64, num_hidden_layers=7 if name == "Jamba" else 2, state_size=16,
        tie_word_embeddings=kind not in ("mamba2", "jamba"), **small | more,
    )  # fmt: skip
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    if name == "Jamba":
        with torch.no_grad():  # far from where training starts: norms that are not 1, experts that differ
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens(seed=2):
    return torch.randint(0, 250, (2, 21), generator=torch.Generator().manual_seed(seed))


def assert_same(mine, other):
    with torch.no_grad():
        logits, expected = mine(tokens())[0], other(tokens()).logits
    assert expected.std() > 0.05
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SIZES)
def test_reads_what_transformers_writes(kind, transformers, tmp_path):
    model = theirs(transformers, kind)
    model.save_pretrained(tmp_path)
    assert_same(load_pretrained(tmp_path), model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_what_is_written(kind, transformers, tmp_path):
    model = ours(kind)
    save_pretrained(model, tmp_path, naming="transformers")
    loaded, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert_same(model, loaded.eval())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in SIZES if "jamba" in kind])
def test_jamba_in_pieces_says_what_the_whole_says(kind, transformers, tmp_path):
    model = theirs(transformers, kind)
    model.save_pretrained(tmp_path)
    mine, states, found = load_pretrained(tmp_path), None, []
    for piece in tokens().split([5, 1, 1, 9, 5], 1):
        with torch.no_grad():
            logits, states = mine(piece, states)
        found.append(logits)
    with torch.no_grad():
        expected = model(tokens()).logits
    torch.testing.assert_close(torch.cat(found, 1), expected, rtol=1e-4, atol=1e-4)
    decoded = generate(mine, list(tokens()[:, :9]), max_new_tokens=8, temperature=0, end_token=-1).tokens
    theirs_decoded = model.generate(tokens()[:, :9], max_new_tokens=8, do_sample=False, eos_token_id=None)
    assert decoded == theirs_decoded[:, 9:].tolist()


def test_joined_experts_are_read_too(tmp_path):
    """transformers' modules hold gate and up in one tensor, gates first."""
    model = ours("jamba")
    save_pretrained(model, tmp_path, naming="transformers")
    weights = load_file(tmp_path / "model.safetensors")
    experts = [f"model.layers.2.feed_forward.experts.{number}." for number in range(4)]
    parts = {
        part: torch.stack([weights.pop(f"{each}{part}_proj.weight") for each in experts])
        for part in ("gate", "up", "down")
    }
    weights["model.layers.2.feed_forward.experts.gate_up_proj"] = torch.cat([parts["gate"], parts["up"]], 1)
    weights["model.layers.2.feed_forward.experts.down_proj"] = parts["down"]
    save_file(weights, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(load_pretrained(tmp_path)(tokens())[0], model(tokens())[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_options": {}}, "another size"),
        ({"attention_layers": [0, 1, 3]}, "attn layers"),
        ({"expert_layers": None, "experts_every": 2}, "without an MLP"),
        ({"experts_options": {"top_k": 2}}, "experts of another kind"),
        ({"attention_options": {"num_heads": 4, "rotary_fraction": 0.5}}, "rotary_fraction"),
        ({"norm_eps": 1e-6}, "eps"),
    ],
)
def test_what_jamba_has_no_words_for_is_refused(change, message, tmp_path):
    model = LanguageModel(50, d_model=64, n_layer=4, **KINDS["jamba"] | change)
    with pytest.raises(UserError, match=message):
        save_pretrained(model, tmp_path, naming="transformers")


@pytest.mark.parametrize(("kind", "naming"), WRITTEN)
@pytest.mark.parametrize("pickled", [False, True])
def test_there_and_back(kind, naming, pickled, tmp_path):
    model = ours(kind)
    again = load_pretrained(save_pretrained(model, tmp_path, naming, pickled))
    assert (again.lm_head.weight is again.backbone.embedding.weight) == model.tie_embeddings
    with torch.no_grad():
        assert torch.equal(again(tokens())[0], model(tokens())[0])


def test_the_original_package_finds_its_own_words(tmp_path):
    model = ours("mamba2")
    save_pretrained(model, tmp_path, "mamba_ssm")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["ssm_cfg"] == {"layer": "Mamba2", "d_state": 16, "headdim": 16}
    assert (config["d_model"], config["n_layer"], config["vocab_size"]) == (64, 2, 250)
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {"backbone.embedding.weight", "lm_head.weight", "backbone.layers.1.mixer.A_log"} <= names


def test_the_published_configs_words(tmp_path):
    """config.json of state-spaces/mamba-130m and of mamba2attn-2.7b, in a smaller size."""
    config = {
        "d_model": 32, "n_layer": 2, "vocab_size": 50, "ssm_cfg": {}, "rms_norm": True, "residual_in_fp32": True,
        "fused_add_norm": True, "pad_vocab_size_multiple": 8,
    }  # fmt: skip
    attention = {
        "causal": True, "d_conv": 4, "head_dim": 16, "num_heads": 3, "out_proj_bias": False, "qkv_proj_bias": False,
        "rotary_emb_dim": 8,
    }  # fmt: skip
    hybrid = {"ssm_cfg": {"layer": "Mamba2", "d_state": 8, "headdim": 8}, "attn_layer_idx": [1], "attn_cfg": attention}
    for words, layer, shape in ((config, "Mamba", (128, 32)), ({**config, **hybrid}, "Attention", (144, 32))):
        from polymamba.domains.nlp.checkpoint_configs import arguments_of

        model = LanguageModel(**arguments_of(words))
        assert type(model.layers[1].mixer).__name__ == layer
        assert model.layers[1].mixer.in_proj.weight.shape == shape
        assert model.lm_head.out_features == 56


def test_converted_files_hold_both_packages_words(tmp_path):
    """As state-spaces/mamba-130m-hf: transformers' words count where they say more."""
    model = ours("mamba_biased")
    save_pretrained(model, tmp_path, naming="transformers")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "d_model": 64,
        "n_layer": 2,
        "d_inner": 128,
        "ssm_cfg": {},
        "rms_norm": True,
        "pad_vocab_size_multiple": 8,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.no_grad():
        assert torch.equal(load_pretrained(tmp_path)(tokens())[0], model(tokens())[0])


def test_parts_and_half_precision(tmp_path):
    model = ours("mamba")
    save_pretrained(model, tmp_path)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    names, index = sorted(weights), {}
    for part, chosen in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in chosen}, tmp_path / f"part{part}.safetensors")
        index |= dict.fromkeys(chosen, f"part{part}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    again = load_pretrained(tmp_path)
    assert again.layers[0].mixer.in_proj.weight.dtype == torch.bfloat16
    assert again.layers[0].mixer.A_log.dtype == torch.float32
    again = load_pretrained(tmp_path, dtype=torch.float32)
    assert again.layers[0].mixer.in_proj.weight.dtype == torch.float32


def test_matches_falcon_mambas_answers(golden):
    meta = golden.meta_of("hf_falcon_mamba")
    from polymamba.domains.nlp.checkpoint_configs import arguments_of

    def rename(name):
        return name.replace("backbone.embedding.", "backbone.embeddings.")

    model = golden.fill(LanguageModel(**arguments_of(meta["args"])), rename)
    with torch.no_grad():
        logits, _ = model(golden.seeded(2, 64, low=0, high=250))
    result = golden.compare("hf_falcon_mamba", logits, model, rename)
    assert max(result["errors"]) < 1e-5
    assert (result["missing"], result["extra"], result["shapes"]) == ([], [], [])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("[]", "no model's configuration"),
        ("{", "config.json"),
        ('{"model_type": "mamba", "hidden_size": 64}', "lacks state_size"),
        ('{"model_type": "jamba", "hidden_size": 64, "num_hidden_layers": 2}', "lacks num_experts"),
        ('{"d_model": 64, "n_layer": 2}', "lacks vocab_size"),
        ('{"model_type": "mamba"}', "not known here"),
        ('{"d_model": 64, "n_layer": 2, "vocab_size": 250, "ssm_cfg": {"layer": "Mamba9"}}', "Mamba3"),
        ('{"d_model": 64, "n_layer": 2, "vocab_size": 250, "ssm_cfg": {"d_stat": 4}}', "d_stat"),
        ('{"d_model": 64, "n_layer": "two", "vocab_size": 250}', "can be built"),
    ],
)
def test_a_configuration_that_says_no_model(config, message, tmp_path):
    save_pretrained(ours("mamba"), tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("index", ["{}", "{", '{"weight_map": {"x": "gone.safetensors"}}'])
def test_an_index_that_names_nothing(index, tmp_path):
    save_pretrained(ours("mamba"), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(UserError, match="cannot read the weights"):
        load_pretrained(tmp_path)


def test_weights_without_an_embedding(tmp_path):
    save_pretrained(ours("mamba"), tmp_path, naming="transformers")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["backbone.embeddings.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"embedding\.weight: missing"):
        load_pretrained(tmp_path)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_mistakes_are_explained(tmp_path, monkeypatch, capsys):
    for name, message in (("no/such/folder", "no such folder"), ("nowhere", "no such folder")):
        with pytest.raises(UserError, match=message):
            load_pretrained(name)
    with pytest.raises(UserError, match=r"config\.json"):
        load_pretrained(tmp_path)
    save_pretrained(ours("mamba"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    with pytest.raises(UserError, match=r"layers\.2.*missing"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(UserError, match="gpt2"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot read the weights"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        load_pretrained(tmp_path)
    torch.save({"x": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot read the weights"):
        load_pretrained(tmp_path)
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown naming"):
        save_pretrained(ours("mamba"), tmp_path, "tensorflow")


@pytest.mark.parametrize(
    ("naming", "options"),
    [
        ("transformers", {"attention_layers": [1], "attention_options": {"num_heads": 2}}),
        ("transformers", {"mixer": "mamba3", "mixer_options": {"headdim": 32}}),
        ("transformers", {"mixer": "mamba2", "mixer_options": {"headdim": 32, "norm_before_gate": True}}),
        ("transformers", {"mixer": "mamba2", "mixer_options": {"headdim": 32, "norm_eps": 1e-3}}),
        ("transformers", {"norm": "layer"}),
        ("mamba_ssm", {"experts": 2, "d_intermediate": 64}),
        ("mamba_ssm", {"mixer_options": {"norms": "weightless"}}),
        ("mamba_ssm", {"norm_eps": 1e-6}),
        ("mamba_ssm", {"mixer": "mamba2", "mixer_options": {"headdim": 32, "norm_eps": 1e-3}}),
        ("mamba_ssm", {"d_intermediate": 100, "mlp_options": {"multiple_of": 1}}),
        (
            "mamba_ssm",
            {"attention_layers": [1], "attention_options": {"num_heads": 2, "d_conv": 2, "conv_bias": False}},
        ),
    ],
)
def test_what_a_naming_has_no_words_for_is_refused(naming, options, tmp_path):
    with pytest.raises(UserError, match=r"no words|no such model|with a bias"):
        save_pretrained(LanguageModel(50, 32, 2, **options), tmp_path, naming)
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_hub_is_a_clear_error(monkeypatch, tmp_path):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match="from the hub"):
        load_pretrained("state-spaces/no-such-model-here")
