import pytest
import torch


@pytest.fixture
def meets_the_record(golden):
    """Checks a model, filled, against a record of the original: keys, shapes, parameter count, and its answers."""

    def check(name, model, answers, rename=str, error=1e-5):
        with torch.no_grad():
            result = golden.compare(name, answers(golden.fill(model, rename)), model, rename)
        assert max(result["errors"]) < error, result["errors"]
        assert result["missing"] == result["extra"] == result["shapes"] == []
        ours, theirs = result["parameters"]
        assert ours == theirs

    return check
