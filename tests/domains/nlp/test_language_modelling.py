"""Language modelling: what each number means, whatever the cut into batches and pieces; pictures and samples."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tokenizers_of_words import MAKERS
from tokenizers_of_words import TEXTS as WORDS
from torch import nn

from polymamba.core.errors import UserError
from polymamba.data.nlp.documents import from_texts
from polymamba.data.nlp.packing import PackedRows
from polymamba.data.nlp.tokenizer import ByteTokenizer, LibraryTokenizer, trained_bpe
from polymamba.domains.nlp.language_modelling import LanguageModelling
from polymamba.domains.nlp.models import LanguageModel

TEXTS = ["def add(a, b):\n    return a + b\n", "Grüße!\n", "x" * 30]


class Table(nn.Module):
    """A bigram model whose state counts what it has read; scores beyond the vocabulary are high, to be ignored."""

    def __init__(self, vocab_size, padded=None):
        super().__init__()
        scores = torch.randn(vocab_size, padded or vocab_size, generator=torch.Generator().manual_seed(0))
        scores[:, vocab_size:] = 50
        self.scores = nn.Parameter(scores)
        self.read = []

    def forward(self, input_ids, states=None, seq_idx=None):
        self.read.append((input_ids.shape[1], states))
        return self.scores[input_ids], (states or 0) + input_ids.shape[1]


def describe(tokenizer):
    return {
        "domain": "nlp", "name": "texts", "task": "language_modelling", "tokenizer": tokenizer,
        "vocab_size": tokenizer.vocab_size, "length": 16,
    }  # fmt: skip


def rows(tokenizer, length=16):
    packed = PackedRows(tokenizer.tokenise(from_texts(TEXTS)), length, tokenizer.end)
    return packed.take(np.arange(len(packed)))


def part(batch, chosen):
    return {name: values[chosen] for name, values in batch.items()}


@pytest.fixture(params=["bytes", "bpe"])
def tokenizer(request, tmp_path, monkeypatch):
    monkeypatch.setenv("POLYMAMBA_CACHE", str(tmp_path))
    return ByteTokenizer() if request.param == "bytes" else trained_bpe(from_texts(TEXTS), 270)


def expected(model, tokenizer):
    """Nats, tokens and bytes, summed one token at a time over the documents."""
    log_probability = model.scores[:, : tokenizer.vocab_size].detach().log_softmax(1).double()
    nats = tokens = 0
    for text in TEXTS:
        marked = [tokenizer.end, *tokenizer.encode(text), tokenizer.end]
        nats -= sum(float(log_probability[a, b]) for a, b in pairwise(marked))
        tokens += len(marked) - 1
    return nats, tokens, sum(len(text.encode()) for text in TEXTS)


@pytest.mark.parametrize("chunk", [None, 5])
def test_the_numbers_are_what_they_are_called(tokenizer, chunk):
    model = Table(tokenizer.vocab_size, tokenizer.vocab_size + 7)
    task = LanguageModelling(model, describe(tokenizer), chunk=chunk)
    batch = rows(tokenizer)
    for chosen in (slice(0, 1), slice(1, None)):
        _, metrics = task.step(part(batch, chosen), "val")
    nats, tokens, size = expected(model, tokenizer)
    assert float(metrics["loss"].compute()) == pytest.approx(nats / tokens, rel=1e-5)
    assert float(metrics["perplexity_per_token"].compute()) == pytest.approx(math.exp(nats / tokens), rel=1e-4)
    assert float(metrics["bits_per_byte"].compute()) == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_training_logs_the_same_numbers(tokenizer):
    model = Table(tokenizer.vocab_size)
    task = LanguageModelling(model, describe(tokenizer))
    loss, scalars = task.step(rows(tokenizer), "train")
    nats, tokens, size = expected(model, tokenizer)
    assert float(loss.detach()) == pytest.approx(nats / tokens, rel=1e-5)
    assert float(scalars["bits_per_byte"]) == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert not scalars["bits_per_byte"].requires_grad
    assert task.tokens(rows(tokenizer)) == rows(tokenizer)["labels"].numel()


def test_a_uniform_model_needs_the_logarithm_of_the_vocabulary():
    model = Table(257)
    nn.init.zeros_(model.scores)
    task = LanguageModelling(model, describe(ByteTokenizer()))
    _, metrics = task.step(rows(ByteTokenizer()), "test")
    assert float(metrics["perplexity_per_token"].compute()) == pytest.approx(257, rel=1e-5)


def test_long_rows_are_read_in_pieces_with_the_states_carried_on():
    model = Table(257)
    task = LanguageModelling(model, describe(ByteTokenizer()), chunk=6)
    task.step(rows(ByteTokenizer()), "test")
    assert model.read == [(6, None), (6, 6), (4, 12)]
    model.read.clear()
    task.step(rows(ByteTokenizer()), "train")
    assert model.read == [(16, None)]


def test_a_real_model_in_pieces_gives_what_it_gives_whole():
    torch.manual_seed(0)
    model = LanguageModel(257, 16, 2, backend="reference").eval()
    losses = []
    for chunk in (None, 5):
        task = LanguageModelling(model, describe(ByteTokenizer()), chunk=chunk)
        with torch.no_grad():
            _, metrics = task.step(rows(ByteTokenizer()), "val")
        losses.append(float(metrics["loss"].compute()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_the_model_adds_to_the_loss():
    model = Table(257)
    model.auxiliary_loss = lambda: torch.tensor(2.0)
    batch = rows(ByteTokenizer())
    plain, weighted = (
        LanguageModelling(model, describe(ByteTokenizer()), auxiliary=weight).loss_to_minimise(batch)[0].item()
        for weight in (0.0, 0.5)
    )
    assert weighted - plain == pytest.approx(1.0, rel=1e-5)
    _, metrics = LanguageModelling(model, describe(ByteTokenizer())).step(batch, "val")
    assert float(metrics["loss"].compute()) == pytest.approx(plain, rel=1e-5)


def test_the_worst_tokens_are_kept_with_their_own_document():
    model = Table(257)
    with torch.no_grad():
        model.scores[ord("!"), ord("\n")] = -30
        model.scores[256, ord("x")] = -20
    task = LanguageModelling(model, describe(ByteTokenizer()), worst=2)
    task.step(rows(ByteTokenizer(), 64), "test")
    first, second = task.surprises.entries
    assert task.surprises.seen == sum(len(text.encode()) + 1 for text in TEXTS)
    assert (first["label"], bytes(first["before"][1:]).decode()) == (ord("\n"), "Grüße!")
    assert first["after"] == [256]
    assert (second["label"], second["before_ids"]) == (ord("x"), [256])
    figure = task.pictures("test")["worst_predictions"]
    drawn = " ".join(text.get_text() for text in figure.texts)
    assert "Worst of" in drawn
    assert "Grüße!" in drawn
    task.on_test_start()
    assert task.pictures("test") == {}


def test_the_first_batch_is_drawn_as_text():
    task = LanguageModelling(Table(257), describe(ByteTokenizer()))
    drawn = [text.get_text() for text in task.pictures("train", rows(ByteTokenizer()))["first_batch"].texts]
    assert "rows of 16 tokens" in drawn[0]
    assert any("def add(a, b):↵" in text for text in drawn)


def test_a_sample_is_the_same_each_time_and_leaves_the_random_state_alone():
    torch.manual_seed(0)
    model = LanguageModel(257, 16, 1, backend="reference").train()
    task = LanguageModelling(model, describe(ByteTokenizer()), sample=12, prompt="def ")
    before = torch.get_rng_state()
    text = task.pictures("val")["samples"]
    assert text.startswith("def ")
    assert text == task.sample()
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert LanguageModelling(model, describe(ByteTokenizer()), sample=0).pictures("val") == {}


def test_what_does_not_fit():
    with pytest.raises(UserError, match="is for classification") as caught:
        LanguageModelling(Table(257), {**describe(ByteTokenizer()), "task": "classification"})
    assert caught.value.do == "task=text_classification"
    with pytest.raises(UserError, match=r"task\.chunk"):
        LanguageModelling(Table(257), describe(ByteTokenizer()), chunk=0)


@pytest.mark.parametrize("kind", MAKERS)
def test_bits_per_byte_are_over_the_bytes_of_the_text(kind):
    """Of a model that finds every token as likely as any other, they are known: bits of all tokens over bytes of all texts."""
    tokenizer = LibraryTokenizer(MAKERS[kind]().to_str(), kind)
    documents = from_texts(WORDS)
    packed = PackedRows(tokenizer.tokenise(documents), 16, tokenizer.end)
    model = Table(tokenizer.vocab_size)
    torch.nn.init.zeros_(next(model.parameters()))
    task = LanguageModelling(model, describe(tokenizer))
    for row in range(len(packed)):
        task.step(packed.take(np.array([row])), "val")
    tokens = sum(len(tokenizer.encode(text)) + 1 for text in WORDS)
    expected = tokens * math.log2(tokenizer.vocab_size) / sum(len(text.encode()) for text in WORDS)
    assert float(task.metrics["val"]["bits_per_byte"].compute()) == pytest.approx(expected, rel=1e-6)
