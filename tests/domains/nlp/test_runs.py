"""Whole runs on text: trained, sampled, stopped, resumed bit for bit, tested again from the command line."""

import signal
from dataclasses import replace

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from polymamba.data.nlp.tokenizer import load_tokenizer
from polymamba.engine.checkpoints import folder as files
from polymamba.engine.command_line.compose import check, compose
from polymamba.engine.command_line.main import main
from polymamba.engine.evaluate import evaluate
from polymamba.engine.training.assembly import build_parts, build_trained
from polymamba.engine.training.run import train
from polymamba.engine.training.run_folder import read_config
from polymamba.engine.training.stop import Stopped

SMALL = ("trainer.progress=none", "model.d_model=16", "model.n_layer=1", "model.backend=reference")


class StopAt(Callback):
    """Asks for an end after an optimizer step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path / "cache"))
    text = "".join(f"{i} and {i + 1} make {2 * i + 1}.\n" for i in range(60))
    (tmp_path / "sums.txt").write_text(text)

    def start(*arguments, callbacks=(), resume=None):
        config = check(read_config(resume.parent.parent)) if resume else compose(["domain=nlp", *SMALL, *arguments])
        return train(config, callbacks=callbacks, resume=resume, say=lambda text: None, arguments=arguments)

    return start


TEXT = (
    "data=text_file", "data.files=sums.txt", "data.length=32", "data.loading.batch_size=4", "data.tokenizer=bpe",
    "data.vocab_size=270", "trainer.steps=12", "trainer.val_every_steps=6", "task.sample=8",
)  # fmt: skip


def test_a_language_model_stopped_and_resumed_is_as_if_never_stopped(run, tmp_path):
    whole = run(*TEXT, "run_dir=whole")
    with pytest.raises(Stopped):
        run(*TEXT, "run_dir=parts", callbacks=[StopAt(8)])
    resumed = run(resume=files.find("parts")[0])
    weights = [files.read_weights((each.folder / "checkpoints" / "last").resolve()) for each in (whole, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert whole.metrics == resumed.metrics
    assert set(whole.metrics) == {"test/loss", "test/perplexity_per_token", "test/bits_per_byte"}
    folder = tmp_path / "whole"
    assert {"first_batch.png", "worst_predictions.png", "progress.png"} <= {path.name for path in folder.iterdir()}
    samples = (folder / "samples.txt").read_text()
    assert samples == (tmp_path / "parts" / "samples.txt").read_text()
    assert samples.startswith("step 6\n")
    assert "step 12\n" in samples
    assert load_tokenizer(folder / "data" / "tokenizer.json").vocab_size <= 270


def test_other_text_is_tested_with_the_runs_own_tokenizer(run, tmp_path):
    result = run(*TEXT, "trainer.steps=2", "run_dir=first")
    (tmp_path / "other.txt").write_text("quite another kind of text; " * 60)
    stored = read_config(result.folder)
    stored["data"] |= {"files": "other.txt", "name": "other"}
    found = evaluate(check(stored), files.find("first")[0], say=lambda text: None)
    assert 0 < found["test/bits_per_byte"] < 10
    same = evaluate(check(read_config(result.folder)), files.find("first", ("best",))[0], say=lambda text: None)
    assert same == pytest.approx(result.metrics)
    text = "3 and 4 make 7. quite another"
    own = load_tokenizer(result.folder / "data" / "tokenizer.json")
    task = build_parts(check(stored), kept_by=result.folder)
    assert task.describe["tokenizer"].encode(text) == own.encode(text)
    assert build_parts(check(stored)).describe["tokenizer"].encode(text) != own.encode(text)


def test_recall_at_several_lengths(run, tmp_path):
    lengths = "data.test_lengths=[16,48]"
    result = run(
        "data=induction_heads", "data.length=16", lengths, "data.samples=32", "data.val_samples=8", "data.test_samples=8",
        "trainer.epochs=2", "task.chunk=20", "run_dir=recall",
    )  # fmt: skip
    named = {"test/loss", "test/accuracy", "test/accuracy_at_16", "test/accuracy_at_48"}
    assert set(result.metrics) == named
    parts = [result.metrics[f"test/accuracy_at_{length}"] for length in (16, 48)]
    assert result.metrics["test/accuracy"] == pytest.approx(sum(parts) / 2)
    assert (tmp_path / "recall" / "worst_predictions.png").exists()


def test_the_plan_speaks_of_tokens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("some words " * 200)
    said = []
    config = compose(["domain=nlp", *SMALL, "data=text_file", "data.files=words.txt", "data.length=64", "debug=fast"])
    train(config, say=said.append)
    lines = {line.split()[0]: line for line in said[1].strip().splitlines()}
    assert "64 tokens (bytes, 257)" in lines["data"]
    assert "64 tokens, " in lines["compute"]
    assert "FLOPs a sample" in lines["compute"]
    assert "LanguageModelling" in lines["domain"]


@pytest.mark.parametrize("gone", [False, True])
def test_predict_needs_the_run_alone(run, tmp_path, capsys, gone):
    """The tokenizer is the run's own, and what the model has to know of the data stands in the checkpoint."""
    run(*TEXT, "run_dir=runs/one")
    if gone:
        (tmp_path / "sums.txt").unlink()
    else:
        (tmp_path / "sums.txt").write_text("Another text, of which another tokenizer would be made.\n" * 50)
    about = files.read_about(files.find("runs/one")[0])
    described = about["description"]
    assert (described["name"], described["for_model"]["vocab_size"], about["scan"]) == ("text_file", 270, None)
    assert main(["ckpt=runs/one", "prompt=1 and", "max_new_tokens=4", "temperature=0"], job="predict") == 0
    assert capsys.readouterr().out.startswith("1 and")
    assert main(["ckpt=runs/one", "prompt=1 and 2", "explain=attribution"], job="predict") == 0
    assert (tmp_path / "runs" / "one" / "explained_attribution.png").is_file()


def test_the_parts_without_data_are_those_with_them(run):
    folder = run(*TEXT, "run_dir=one").folder
    checkpoint, config = files.find(folder)[0], check(read_config(folder))
    told, read = (build_trained(config, checkpoint, with_data=each) for each in (False, True))
    assert told.data.splits is None
    # the tokenizer's name, in the shape, is that of its file now
    assert replace(told.description, shape="") == replace(read.description, shape="")
    assert told.describe["tokenizer"].digest == read.describe["tokenizer"].digest
    states = told.model.state_dict(), read.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert type(told.task) is type(read.task)


def test_a_text_that_is_one_line_end_is_shown_as_it_is(capsys):
    assert main(["--cfg", "domain=nlp", "experiments=null"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["task"]["prompt"] == "\n"


def test_help_says_what_the_size_decides(capsys):
    assert main(["--help", "domain=nlp", "model=hybrid_lm"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "model.n_layer=null" in line]
    assert "a whole number (1 to 1,000) or null" in line
    assert "the size's" in line


def test_labelled_texts_bring_their_task_and_scan():
    config = compose(["domain=nlp", "data=trec"])
    assert (config.task["name"], config.scan["name"]) == ("text_classification", "bidirectional")
    assert compose(["domain=nlp", "data=trec", "task=language_modelling"]).task["name"] == "language_modelling"
    assert compose(["domain=nlp"]).scan is None
