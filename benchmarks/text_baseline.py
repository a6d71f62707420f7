"""What counting words achieves on labelled texts: TF-IDF and logistic regression, to stand beside a model's number.

python -m polymamba.benchmarks.text_baseline data=trec
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..core.errors import UserError
from ..engine.command_line.compose import compose
from ..engine.training.targets import build

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)


def text_baseline(data: Any) -> dict[str, float]:
    """Trains on the training texts, chooses the regularisation on the validation texts, tests once.

    Args:
        data: a data module of labelled texts.

    Returns:
        val/accuracy, test/accuracy, test/f1_macro, and C, the inverse strength of the regularisation.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, f1_score

    data.prepare_data()
    splits = data.load()
    texts = {name: [bytes(each.texts[i]).decode() for i in range(len(each))] for name, each in splits.items()}
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w+\b|[?!]")
    inputs = {"train": vectors.fit_transform(texts["train"])}
    inputs |= {name: vectors.transform(texts[name]) for name in ("val", "test")}
    labels = {name: each.labels for name, each in splits.items()}
    best: tuple[float, float, Any] | None = None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=1000).fit(inputs["train"], labels["train"])
        accuracy = float(accuracy_score(labels["val"], model.predict(inputs["val"])))
        if best is None or accuracy > best[0]:
            best = accuracy, strength, model
    accuracy, strength, model = best
    said = model.predict(inputs["test"])
    return {
        "C": strength,
        "val/accuracy": accuracy,
        "test/accuracy": float(accuracy_score(labels["test"], said)),
        "test/f1_macro": float(f1_score(labels["test"], said, average="macro")),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the baseline of the data set that `data=...` names; 2 where the arguments are wrong."""
    try:
        from ..data.nlp.classification import TextClassificationData

        data = build(compose(["domain=nlp", *(sys.argv[1:] if arguments is None else arguments)]).data)
        if not isinstance(data, TextClassificationData):
            raise UserError("this data set has no labels", given=f"data={data.name}", do="data=trec")
        found = text_baseline(data)
    except UserError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 2
    print("\n".join(f"  {name:<14} {value:.4f}" for name, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
