import pytest
import torch

LENGTHS = (50, 31, 7, 1)


@pytest.fixture
def published_histories(golden):
    """The records' input: four histories of 50, 31, 7 and 1 events of items 1 to 199, padded on the right, (4, 50)."""
    items = golden.seeded(4, 50, low=1, high=200)
    return items * (torch.arange(50) < torch.tensor(LENGTHS)[:, None])


@pytest.fixture
def meets_the_record(golden):
    """Checks a model, filled, against a record: keys, shapes, parameter count, and its answers."""

    def check(name, model, answers):
        with torch.no_grad():
            result = golden.compare(name, answers(golden.fill(model)), model)
        assert max(result["errors"]) < 1e-5, result["errors"]
        assert result["missing"] == result["extra"] == result["shapes"] == []
        ours, theirs = result["parameters"]
        assert ours == theirs

    return check


@pytest.fixture
def meets_scores(meets_the_record, published_histories):
    """The same for a model whose record holds the scores of all items and the last hidden states of the histories."""

    def check(name, model):
        def answers(filled):
            hidden = filled.encode(published_histories)
            return filled.scores(hidden), hidden

        meets_the_record(name, model, answers)

    return check
