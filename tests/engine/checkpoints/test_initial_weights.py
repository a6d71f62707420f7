"""Runs that begin with weights that are already there."""

import shutil

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.data.nlp.tokenizer import load_tokenizer
from polymamba.domains.nlp.checkpoints import save_pretrained
from polymamba.domains.nlp.models.language_model import LanguageModel
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.checkpoints.initial_weights import read_initial
from polymamba.engine.command_line.compose import compose
from polymamba.engine.training.run import train

STILL = ("optimizer.lr=0", "optimizer.warmup=0")
TEXT = (
    "domain=nlp", "trainer.progress=none", "trainer.pictures=false", "model.d_model=16", "model.n_layer=1",
    "model.backend=reference", "data=text_file", "data.files=sums.txt", "data.length=32", "trainer.steps=2",
)  # fmt: skip


def weights(folder, name="last"):
    return files.read_weights((folder / "checkpoints" / name).resolve())


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sums.txt").write_text("".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(60)))
    return lambda *typed, say=lambda text: None: train(compose([*TEXT, *typed]), arguments=typed, say=say)


def test_a_run_begins_with_another_ones_best_weights(toy):
    first = toy("run_dir=first")
    said = []
    second = toy("run_dir=second", "init=first", *STILL, say=said.append)
    assert same(weights(second.folder), weights(first.folder, "best"))
    best = (first.folder / "checkpoints" / "best").resolve()
    assert f"begins     with the weights of first, {best.name}" in said[1]
    assert not same(weights(toy("run_dir=third", *STILL).folder), weights(first.folder, "best"))


def test_a_checkpoint_can_be_named(toy):
    first = toy("run_dir=first")
    path = min((first.folder / "checkpoints").glob("step-*"))
    assert same(weights(toy("run_dir=second", f"init={path}", *STILL).folder), files.read_weights(path))


def test_a_resumed_run_goes_on_with_its_own_weights(toy):
    toy("run_dir=first")
    whole = toy("run_dir=whole", "init=first")
    part = toy("run_dir=part", "init=first", "trainer.epochs=2", "optimizer.schedule=constant")
    assert not same(weights(part.folder), weights(whole.folder))
    shutil.rmtree("first")
    resumed = toy(resume=files.find(part.folder)[0])
    assert same(weights(resumed.folder), weights(part.folder))


def test_the_tokenizer_comes_along(text, tmp_path):
    first = text("run_dir=first", "data.tokenizer=bpe", "data.vocab_size=270")
    (tmp_path / "sums.txt").write_text("quite another kind of text; " * 80)
    second = text("run_dir=second", "data.tokenizer=bpe", "data.vocab_size=270", "init=first")
    sample = "3 and 4 make 7. quite another"
    own, kept = (load_tokenizer(each.folder / "tokenizer.json").encode(sample) for each in (first, second))
    assert own == kept


def test_a_published_model(text, tmp_path):
    torch.manual_seed(0)
    model = LanguageModel(257, d_model=16, n_layer=1)
    save_pretrained(model, tmp_path / "published")
    begun = text("run_dir=begun", "init=published", *STILL)
    assert torch.equal(weights(begun.folder)["backbone.embedding.weight"], model.backbone.embedding.weight)


def test_another_number_of_classes_keeps_all_but_the_last_layer():
    class Classifier(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.body, self.head = torch.nn.Linear(3, 4), torch.nn.Linear(4, classes)

        def get_classifier(self):
            return self.head

    from polymamba.engine.checkpoints.initial_weights import Initial

    first, second = Classifier(5), Classifier(2)
    head = second.head.weight.clone()
    told = Initial(first.state_dict(), "somewhere").put_into(second)
    assert told == "somewhere; new: head.weight, head.bias"
    assert torch.equal(second.body.weight, first.body.weight)
    assert torch.equal(second.head.weight, head)


def test_weights_that_do_not_fit(toy):
    first = toy("run_dir=first")
    with pytest.raises(UserError, match="do not fit"):
        toy("run_dir=second", "init=first", "model.hidden=9")
    with pytest.raises(UserError, match="no such checkpoint"):
        read_initial("frist")
    with pytest.raises(UserError, match="init names no weights"):
        read_initial("")
    (first.folder.parent / "empty").mkdir()
    with pytest.raises(UserError, match="init=null for random weights"):
        read_initial("empty")
