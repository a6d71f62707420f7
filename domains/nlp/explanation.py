"""Pictures of what a text model's answer rests on: each token of the text, marked by its part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.explanation import check_method, draw_text, explain, part_in_answer
from .text_stream import TextStream, Tokenizer, text_after

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def explain_next_token(
    model: nn.Module, tokenizer: Tokenizer, text: str, method: str = "attribution"
) -> tuple[Figure, str]:
    """Draws what a language model's likeliest next token rests on.

    Args:
        model: a LanguageModel, of any mixers.
        tokenizer: the model's.
        text: what it reads.
        method: one of core.explanation.METHODS.

    Returns:
        the picture, and the token that the model expects with its probability.

    Raises:
        UserError: an unknown method, a text without a token.
    """
    size = min(model.vocab_size, tokenizer.vocab_size)

    def scores(answer: tuple[Tensor, Any]) -> Tensor:
        return answer[0][0, -1, :size]

    ids = _ids(model, tokenizer, text)

    def name(token: int) -> str:
        return repr(text_after(tokenizer, ids[0].tolist(), token)) if token != tokenizer.end else "the end"

    return _explained(model, tokenizer, ids, method, scores, name, [-1])


def explain_class(
    model: nn.Module,
    tokenizer: Tokenizer,
    text: str,
    classes: Sequence[str],
    method: str = "attribution",
    length: int | None = None,
) -> tuple[Figure, str]:
    """Draws what a text classifier's answer rests on; arguments, result and errors as of explain_next_token.

    Args:
        model: a TextClassifier.
        classes: their names.
        length: of a longer text only this many tokens are read, the first; None: all.
    """
    ids = _ids(model, tokenizer, text)[:, :length]
    rows = range(ids.shape[1]) if model.pool == "mean" else [-1]
    return _explained(model, tokenizer, ids, method, lambda logits: logits[0], lambda label: str(classes[label]), rows)


def _explained(model, tokenizer, ids, method, scores, name, rows) -> tuple[Figure, str]:
    """The picture, and what it explains.

    Args:
        ids: (1, length) int64.
        scores: from the model's output to the scores (answers,) of what it may say. name: of each.
        rows: the tokens that the answer is read from.
    """
    check_method(method)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            probabilities = scores(model(ids)).float().softmax(0)
        likeliest = int(probabilities.argmax())
        score = (lambda answer: scores(answer)[likeliest]) if method == "attribution" else None
        found = explain(model, ids, method=method, score=score)
    finally:
        model.train(training)
    said = f"{name(likeliest)} ({float(probabilities[likeliest]):.0%})"
    stream = TextStream(tokenizer, [])
    texts = [stream.feed(token) for token in ids[0].tolist()]
    answer = ids.shape[1] - 1 if list(rows) == [-1] else None
    heading = f"{method}: what {said} rests on"
    return draw_text(part_in_answer(found, rows)[0], texts, answer, heading=heading), said


def _ids(model: nn.Module, tokenizer: Tokenizer, text: str) -> Tensor:
    """(1, length) token numbers of a text, where the model's parameters are."""
    numbers = tokenizer.encode(text)
    if not numbers:
        raise UserError("there is no text to explain an answer to", given=repr(text), do='prompt="..."')
    wrong = next((each for each in numbers if not 0 <= each < model.vocab_size), None)
    if wrong is not None:
        raise UserError("this token does not exist", given=wrong, allowed=f"0 to {model.vocab_size - 1}")
    return torch.tensor([numbers], device=next(model.parameters()).device)
