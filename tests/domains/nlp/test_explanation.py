"""Pictures of what text models' answers rest on."""

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.core.explanation import METHODS, explain, part_in_answer
from polymamba.data.nlp.tokenizer import ByteTokenizer
from polymamba.domains.nlp.explanation import explain_class, explain_next_token
from polymamba.domains.nlp.models.build import build

TOKENIZER = ByteTokenizer()
TEXT = "aé b\n"
CLASSES = ["question", "answer"]


def describe(**more):
    return {"tokenizer": TOKENIZER, "vocab_size": 257, "length": 4, "name": "texts", **more}


def model(more=None, **options):
    torch.manual_seed(0)
    made = build(describe(**more or {}), d_model=32, n_layer=3, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def redness(figure):
    """Of each token's background, most for the heaviest."""
    return torch.tensor([1 - patch.get_facecolor()[1] for patch in figure.axes[0].patches])


@pytest.mark.parametrize(
    "options", [{"mixer": "mamba"}, {"mixer": "mamba2"}, {"mixer": "mamba3", "attention_every": 2}]
)
@pytest.mark.parametrize("method", METHODS)
def test_next_token(options, method):
    made = model(**options)
    figure, said = explain_next_token(made, TOKENIZER, TEXT, method)
    ids = torch.tensor([TOKENIZER.encode(TEXT)])
    chances = made(ids)[0][0, -1, :257].detach().softmax(0)
    token = int(chances.argmax())
    assert said.endswith(f"({float(chances[token]):.0%})")
    assert said in figure.texts[0].get_text()
    # Half of the é is no letter yet.
    assert [t.get_text() for t in figure.axes[0].texts] == ["a", "∅", "é", " ", "b", "⏎"]
    assert [patch.get_edgecolor()[3] for patch in figure.axes[0].patches] == [0, 0, 0, 0, 0, 1]
    score = (lambda answer: answer[0][0, -1, token]) if method == "attribution" else None
    weights = part_in_answer(explain(made, ids, method=method, score=score), [-1])[0]
    assert redness(figure).argmax() == weights.argmax()
    assert redness(figure).argmin() == weights.argmin()


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_class(pool):
    made = model({"task": "classification", "num_classes": 2}, pool=pool, scan="bidirectional").train()
    figure, said = explain_class(made, TOKENIZER, TEXT, CLASSES, length=4)
    assert made.training
    ids = torch.tensor([TOKENIZER.encode(TEXT)[:4]])
    scores = made.eval()(ids)[0]
    assert said.startswith(CLASSES[int(scores.argmax())])
    assert len(figure.axes[0].patches) == 4
    found = explain(made, ids, method="attribution", score=lambda logits: logits[0, scores.argmax()])
    weights = part_in_answer(found, range(4) if pool == "mean" else [3])[0]
    assert redness(figure).argmax() == weights.argmax()
    framed = [patch.get_edgecolor()[3] for patch in figure.axes[0].patches]
    assert framed == ([0] * 4 if pool == "mean" else [0, 0, 0, 1])


def test_wrong_calls():
    with pytest.raises(UserError, match="no text"):
        explain_next_token(model(), TOKENIZER, "")
    with pytest.raises(UserError, match="unknown method"):
        explain_next_token(model(), TOKENIZER, TEXT, "rollup")
    with pytest.raises(UserError, match="does not exist"):
        explain_next_token(build(describe(vocab_size=90), d_model=16, n_layer=1), TOKENIZER, TEXT)
