"""Text classification: loss, accuracy, macro F1, padding, pictures."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import nn

from polymamba.core.errors import UserError
from polymamba.data.nlp.tokenizer import ByteTokenizer
from polymamba.domains.nlp.models.build import build
from polymamba.domains.nlp.text_classification import TextClassification

CLASSES = ["question", "answer", "silence"]
TEXTS = ["why?", "because of that", "...", "who goes there?", "me", "", "what", "yes."]
LABELS = [0, 1, 2, 0, 1, 2, 0, 1]


class Fixed(nn.Module):
    """Logits by the row's number."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids, seq_idx=None):
        return self.logits[: len(input_ids)]


def describe():
    tokenizer = ByteTokenizer()
    return {
        "domain": "nlp", "name": "texts", "task": "classification", "classes": CLASSES, "num_classes": 3,
        "tokenizer": tokenizer, "vocab_size": tokenizer.vocab_size, "length": 16, "model_size": "micro",
    }  # fmt: skip


def batch(longest=16):
    ids = torch.full((len(TEXTS), longest), 256)
    seq_idx = torch.full((len(TEXTS), longest), -1, dtype=torch.int32)
    for row, text in enumerate(TEXTS):
        ids[row, : len(text)] = torch.tensor(list(text.encode()))
        seq_idx[row, : len(text)] = 0
    return {"input_ids": ids, "seq_idx": seq_idx, "labels": torch.tensor(LABELS)}


@pytest.fixture
def logits():
    return torch.randn(len(TEXTS), 3, generator=torch.Generator().manual_seed(1))


def test_numbers(logits):
    task = TextClassification(Fixed(logits), describe(), label_smoothing=0.1)
    loss, metrics = task.step(batch(), "val")
    said = logits.argmax(1)
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor(LABELS)))
    assert float(metrics["accuracy"].compute()) == pytest.approx(float((said == torch.tensor(LABELS)).float().mean()))
    assert float(metrics["f1_macro"].compute()) == pytest.approx(f1_score(LABELS, said.tolist(), average="macro"))
    loss, scalars = task.step(batch(), "train")
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.tensor(LABELS), label_smoothing=0.1))
    assert scalars.keys() == {"accuracy"}
    assert task.tokens(batch()) == len(TEXTS) * 16
    assert task.samples(batch()) == len(TEXTS)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_padding_changes_nothing(pool):
    torch.manual_seed(0)
    options = {"scan": "bidirectional", "d_model": 16, "n_layer": 2, "backend": "reference", "pool": pool}
    task = TextClassification(build(describe(), **options).eval(), describe())
    kept = [row for row, text in enumerate(TEXTS) if text]
    outputs = []
    with torch.no_grad():
        for longest in (16, 40):
            part = {name: values[kept] for name, values in batch(longest).items()}
            outputs.append(task.model(part["input_ids"], seq_idx=part["seq_idx"]))
        alone = [task.model(torch.tensor([list(TEXTS[row].encode())])) for row in kept]
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], torch.cat(alone))


def test_pictures(logits):
    task = TextClassification(Fixed(logits), describe(), worst=3)
    drawn = [text.get_text() for text in task.pictures("train", batch())["first_batch"].texts]
    assert "because of that" in drawn
    assert task.pictures("test") == {}
    task.step(batch(), "test")
    losses = F.cross_entropy(logits, torch.tensor(LABELS), reduction="none")
    worst = losses.topk(3).indices.tolist()
    assert [entry["sample"] for entry in task.worst.entries] == [TEXTS[row] for row in worst]
    drawn = [text.get_text() for text in task.pictures("test")["worst_predictions"].texts]
    assert f"is {CLASSES[LABELS[worst[0]]]}"[:11] in drawn[1]
    task.on_test_start()
    assert task.pictures("test") == {}


def test_what_does_not_fit(logits):
    with pytest.raises(UserError, match="is for language modelling"):
        TextClassification(Fixed(logits), {**describe(), "task": "language_modelling"})
    with pytest.raises(UserError, match="label_smoothing"):
        TextClassification(Fixed(logits), describe(), label_smoothing=1.0)


def test_a_classifiers_experts_are_balanced():
    from polymamba.core.moe import balance_loss

    model = build(describe(), d_model=32, n_layer=2, mlp_ratio=1, experts=4).train()
    task = TextClassification(model, describe())
    loss, scalars = task.loss_to_minimise(batch())
    plain = F.cross_entropy(model(**{k: v for k, v in batch().items() if k != "labels"}), torch.tensor(LABELS))
    torch.testing.assert_close(loss, plain + 0.01 * balance_loss(model))
    torch.testing.assert_close(scalars["auxiliary"], 0.01 * balance_loss(model).detach())
    router = model.backbone.layers[1].mlp.router.weight
    with_balance, without = (torch.autograd.grad(each, router, retain_graph=True)[0] for each in (loss, plain))
    assert (with_balance - without).abs().max() > 0
