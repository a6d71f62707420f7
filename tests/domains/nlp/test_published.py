"""predict.py with published models: folders in both namings, the hub's files, their tokenizers; mistakes end with code 2."""

from __future__ import annotations

import fnmatch
import json
import math
import shutil

import pytest
import tokenizers
import torch

from polymamba.data.nlp.tokenizer import load_tokenizer
from polymamba.domains.nlp import published
from polymamba.domains.nlp.checkpoints import load_pretrained, save_pretrained
from polymamba.domains.nlp.generation import generate
from polymamba.domains.nlp.models.language_model import LanguageModel
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.conventions import published as module_of

WORDS = ["the state of a model", "a state space model", "def model(state):\n        return state\n"] * 5
GREEDY = ("prompt=the state", "max_new_tokens=12", "temperature=0")


def trained(path, begin: str | None = None, size: int = 290):
    """A small byte-level encoding with two added tokens of plain text, as GPT-NeoX has for runs of spaces."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>", "<s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(WORDS, trainer)
    inner.add_tokens([tokenizers.AddedToken(" " * 8, normalized=False), tokenizers.AddedToken(" " * 4)])
    if begin is not None:
        marks = [(begin, inner.token_to_id(begin))]
        inner.post_processor = tokenizers.processors.TemplateProcessing(single=f"{begin} $A", special_tokens=marks)
    path.mkdir(parents=True, exist_ok=True)
    inner.save(str(path / "tokenizer.json"))
    return inner


def model_of(size: int = 300, **options) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(size, d_model=32, n_layer=2, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def likeliest(model, inner, ids: list[int], count: int = 12) -> str:
    """The prompt's text and what the model finds likeliest, a whole forward pass a token."""
    ids, new = list(ids), []
    for _ in range(count):
        with torch.no_grad():
            scores = model(torch.tensor([ids]))[0][0, -1, : inner.get_vocab_size()]
        new.append(int(scores.argmax()))
        ids.append(new[-1])
    return inner.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("naming", ["mamba_ssm", "transformers"])
@pytest.mark.parametrize("pickled", [False, True])
def test_a_folder_with_its_own_tokenizer(command, tmp_path, naming, pickled):
    inner, model = trained(tmp_path / "folder"), model_of()
    save_pretrained(model, tmp_path / "folder", naming, pickled)
    code, printed, message = command("ckpt=folder", *GREEDY)
    assert (code, message) == (0, "")
    said = likeliest(model, inner, inner.encode("the state").ids)
    assert printed == f"the state{said}\n"
    assert len(said) > 5


def test_marks_in_front_and_another_tokenizer(command, tmp_path):
    """A tokenizer whose texts begin with a mark: the model reads it, nobody sees it."""
    inner, model = trained(tmp_path / "other", begin="<s>"), model_of(mixer="mamba2", mixer_options={"headdim": 16})
    trained(tmp_path / "folder", size=270)
    save_pretrained(model, tmp_path / "folder", "mamba_ssm")
    ids = inner.encode("the state").ids
    assert ids[0] == inner.token_to_id("<s>")
    expected = f"the state{likeliest(model, inner, ids)}\n"
    for given in ("tokenizer=other/tokenizer.json", "tokenizer=other"):
        code, printed, _ = command("ckpt=folder", *GREEDY, given)
        assert (code, printed) == (0, expected)
    assert command("ckpt=folder", *GREEDY)[1] != expected


def test_a_text_is_scored_by_the_models_own_tokens(command, tmp_path):
    """eval.py in one command: nats of each token and of the end mark behind them, by hand."""
    inner, model = trained(tmp_path / "folder"), model_of()
    save_pretrained(model, tmp_path / "folder")
    text = "the state of a space model\n"
    (tmp_path / "text.txt").write_text(text)
    typed = ("ckpt=folder", "domain=nlp", "data=text_file", "data.test_files=text.txt", "trainer.threads=1")
    code, _, message = command(*typed, "data.length=64", job="evaluate")
    assert (code, message) == (0, "")
    end = inner.token_to_id("<|endoftext|>")
    ids = torch.tensor([[end, *inner.encode(text).ids, end]])
    with torch.no_grad():
        logits = model(ids[:, :-1])[0][0, :, : inner.get_vocab_size()]
    nats = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
    kept = json.loads((tmp_path / "runs/nlp/published/folder/metrics.json").read_text())["text_file"]["metrics"]
    assert kept["test/loss"] == pytest.approx(nats / (ids.shape[1] - 1), rel=1e-5)
    assert kept["test/bits_per_byte"] == pytest.approx(nats / len(text) / math.log(2), rel=1e-5)
    code, _, message = command(*typed, "data.tokenizer=bytes", job="evaluate")
    assert code == 2
    assert "vocab_size" in message


def test_drawing_is_that_of_generate(command, tmp_path):
    trained(tmp_path / "folder")
    model = model_of()
    save_pretrained(model, tmp_path / "folder")
    _, printed, _ = command(
        "ckpt=folder", "prompt=def ", "max_new_tokens=9", "seed=3", "trainer.threads=1", job="predict"
    )
    run = published.load(tmp_path / "folder")
    expected = generate(
        run.model, "def ", run.describe["tokenizer"], max_new_tokens=9, seed=3, temperature=0.8, top_p=0.95
    ).texts[0]
    assert printed == f"def {expected}\n"


def test_a_picture_of_what_the_next_token_rests_on(command, tmp_path):
    inner, model = trained(tmp_path / "folder", begin="<s>"), model_of()
    save_pretrained(model, tmp_path / "folder")
    code, printed, message = command("ckpt=folder", "prompt=the state", "explain=attribution")
    assert (code, message) == (0, "")
    likely = inner.id_to_token(model(torch.tensor([inner.encode("the state").ids]))[0][0, -1, :290].argmax().item())
    assert repr(inner.decoder.decode([likely])) in printed
    assert (tmp_path / "explained_attribution.png").stat().st_size > 2000


def test_added_tokens_of_plain_text_are_text(tmp_path):
    trained(tmp_path)
    save_pretrained(model_of(), tmp_path)
    tokens = published.load(tmp_path).describe["tokenizer"]
    text = "def model(state):\n        return state\n"
    ids = tokens.encode(text)
    assert tokens.inner.inner.token_to_id(" " * 8) in ids
    assert tokens.bytes_of(ids).decode() == text
    assert tokens.bytes_of([tokens.end]) == b""


def test_half_precision_is_read_as_float32_on_a_cpu(tmp_path):
    trained(tmp_path)
    save_pretrained(model_of().half(), tmp_path)
    assert load_pretrained(tmp_path).lm_head.weight.dtype == torch.float16
    assert published.load(tmp_path).model.lm_head.weight.dtype == torch.float32


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of folders: hub/<owner>/<name>/<file>; says what was fetched."""
    fetched = []

    def snapshot_download(name, allow_patterns=()):
        files = sorted((tmp_path / "hub" / name).iterdir())
        wanted = [each for each in files if any(fnmatch.fnmatch(each.name, pattern) for pattern in allow_patterns)]
        (tmp_path / "fetched" / name).mkdir(parents=True, exist_ok=True)
        for each in wanted:
            fetched.append(f"{name}/{each.name}")
            shutil.copy(each, tmp_path / "fetched" / name)
        return str(tmp_path / "fetched" / name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download",
        lambda name, file: snapshot_download(name, [file]) + f"/{file}",
    )
    return fetched


def test_a_name_on_the_hub_and_gpt_neox_tokenizer(command, tmp_path, hub, monkeypatch):
    """As state-spaces publishes: config.json and pytorch_model.bin, no tokenizer."""
    monkeypatch.setattr(published, "NEOX_TOKENS", 292)
    inner, model = trained(tmp_path / "hub" / published.NEOX), model_of(292)
    save_pretrained(model, tmp_path / "hub" / "state-spaces" / "mamba-tiny", pickled=True)
    code, printed, message = command("ckpt=state-spaces/mamba-tiny", *GREEDY)
    assert (code, message) == (0, "")
    assert printed == f"the state{likeliest(model, inner, inner.encode('the state').ids)}\n"
    assert hub == [
        "state-spaces/mamba-tiny/config.json", "state-spaces/mamba-tiny/pytorch_model.bin",
        "EleutherAI/gpt-neox-20b/tokenizer.json",
    ]  # fmt: skip


def test_weights_of_an_unknown_kind_are_not_fetched(command, tmp_path, hub):
    folder = tmp_path / "hub" / "some" / "gpt"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    (folder / "model.safetensors").write_bytes(b"large")
    code, _, message = command("ckpt=some/gpt", "prompt=x")
    assert code == 2
    assert "model_type=gpt2" in message
    assert hub == ["some/gpt/config.json"]


@pytest.mark.usefixtures("offline")
def test_without_a_network(command, tmp_path):
    code, printed, message = command("ckpt=state-spaces/mamba-130m", "prompt=x")
    assert (code, printed) == (2, "")
    assert "cannot fetch state-spaces/mamba-130m from the hub" in message
    assert "copy the folder here" in message
    folder = tmp_path / "mamba"
    save_pretrained(LanguageModel(50277, d_model=16, n_layer=1), folder)
    code, printed, message = command("ckpt=mamba", "prompt=x")
    assert (code, printed) == (2, "")
    assert "gpt-neox-20b" in message
    assert "tokenizer=path/to/tokenizer.json" in message


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ckpt=folder", "prompt=x"], "no tokenizer beside it"),
        (["ckpt=folder", "tokenizer=nowhere.json"], "nowhere.json"),
        (["ckpt=folder", "tokenizer=folder/config.json"], "no tokenizer"),
        (["ckpt=folder", "tokenizer=large"], "not the model's"),
        (["ckpt=folder", "promt=x"], "prompt=x"),
        (["ckpt=folder", "data.root=x"], "not known here"),
        (["ckpt=folder", "prompt=x", "explain=magic", "tokenizer=small"], "unknown method"),
        (["ckpt=folder", "prompt=x", "explain=raw", "top_k=3", "tokenizer=small"], "no effect here"),
        (["ckpt=folder", "trainer.accelerator=tpu", "tokenizer=large"], "trainer.accelerator"),
        (["ckpt=empty", "prompt=x"], "config.json"),
        (["ckpt=runs/mamba", "prompt=x"], "no such run"),
        (["ckpt=folder/mamba", "prompt=x"], "no such run"),
        (["ckpt=a/b/c", "prompt=x"], "no such run"),
    ],
)
def test_mistakes(command, tmp_path, arguments, said):
    save_pretrained(LanguageModel(270, d_model=16, n_layer=1), tmp_path / "folder")
    trained(tmp_path / "large")
    trained(tmp_path / "small", size=262)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model.safetensors").touch()
    code, printed, message = command(*arguments)
    assert (code, printed) == (2, "")
    assert said in message
    assert "Traceback" not in message


def test_runs_are_not_taken_for_published_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    (tmp_path / "mine").mkdir()
    target = "polymamba.domains.nlp.predict.predict"
    for where in ("run", "mine", "mine/gone", "runs/gone", "gone", "../gone", "/a/b", "~/b"):
        assert module_of(where, target) is None
    assert module_of("state-spaces/mamba-130m", target) == "polymamba.domains.nlp.published"


TEXT = (
    "domain=nlp", "trainer.progress=none", "trainer.pictures=false", "trainer.threads=1", "model.d_model=16", "model.n_layer=1",
    "model.backend=reference", "data=text_file", "data.files=sums.txt", "data.length=32", "trainer.steps=2",
)  # fmt: skip


@pytest.fixture
def text(command, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sums.txt").write_text("".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(60)))

    def run(*typed):
        code, printed, message = command(*TEXT, *typed, job="train")
        assert code == 0, message
        return printed

    return run


def test_a_run_begins_with_published_weights(text, tmp_path):
    torch.manual_seed(0)
    model = LanguageModel(257, d_model=16, n_layer=1)
    save_pretrained(model, tmp_path / "published")
    assert "begins     with the weights of published" in text(
        "run_dir=begun", "init=published", "optimizer.lr=0", "optimizer.warmup=0"
    )
    found = files.read_weights(files.find("begun")[0])
    assert torch.equal(found["backbone.embedding.weight"], model.backbone.embedding.weight)


def test_the_tokenizer_of_the_run_that_another_begins_with_comes_along(text, tmp_path, command):
    """A run on other text, byte pairs too: its tokens are those of the first."""
    pairs = ("data.tokenizer=bpe", "data.vocab_size=270")
    text("run_dir=first", *pairs)
    (tmp_path / "sums.txt").write_text("quite another kind of text; " * 80)
    text("run_dir=second", *pairs, "init=first")
    sample = "3 and 4 make 7. quite another"
    own, kept = (
        load_tokenizer(next((tmp_path / each).rglob("tokenizer.json"))).encode(sample) for each in ("first", "second")
    )
    assert own == kept
