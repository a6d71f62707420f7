import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.naive import build

DESCRIBE = {"lookback": 10, "horizon": 7}


def test_the_last_value_again():
    x = torch.randn(2, 10, 3)
    assert torch.equal(build(DESCRIBE)(x), x[:, -1:].expand(-1, 7, -1))


def test_the_last_season_again():
    x = torch.arange(10.0)[None, :, None]
    assert build(DESCRIBE, "seasonal", 3)(x).flatten().tolist() == [7, 8, 9, 7, 8, 9, 7]
    assert build({**DESCRIBE, "period": 10}, "seasonal")(x).flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    season = torch.tensor([1.0, 5.0, 2.0]).repeat(9)
    assert torch.equal(build(DESCRIBE, "seasonal", 3)(season[None, :10, None]).flatten(), season[10:17])


def test_a_season_that_is_not_known_or_too_long_is_refused():
    with pytest.raises(UserError, match="needs a season"):
        build(DESCRIBE, "seasonal")
    with pytest.raises(UserError, match="fit into the look-back"):
        build(DESCRIBE, "seasonal", 11)
    with pytest.raises(UserError, match="unknown form"):
        build(DESCRIBE, "weekly")
