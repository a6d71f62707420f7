import pytest

from polymamba.benchmarks.text_baseline import main, text_baseline
from polymamba.data.nlp.classification import labelled


class Texts:
    """Labelled texts whose class is named by one word, but for a few of the test texts."""

    def prepare_data(self):
        pass

    def load(self):
        def made(count, wrong=0):
            labels = [i % 3 for i in range(count)]
            words = [label if i >= wrong else (label + 1) % 3 for i, label in enumerate(labels)]
            return labelled([f"the {('sun', 'moon', 'star')[word]} is there" for word in words], labels)

        return {"train": made(60), "val": made(12), "test": made(20, wrong=4)}


def test_words_that_say_the_class_are_learnt():
    found = text_baseline(Texts())
    assert (found["val/accuracy"], found["test/accuracy"]) == (1.0, pytest.approx(0.8))
    assert 0 < found["test/f1_macro"] < 1


def test_data_without_labels_are_refused(capsys):
    assert main(["data=python_docs"]) == 2
    assert "has no labels" in capsys.readouterr().err
    assert main(["data=no_such_set"]) == 2
