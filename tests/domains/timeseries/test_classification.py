"""Series of two kinds are told apart."""

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.classification import Classification, nearest
from polymamba.domains.timeseries.models import mamba_forecaster, smamba

DESCRIBE = {
    "name": "waves", "lookback": 32, "horizon": 1, "variables": 2, "classes": ["slow", "fast"], "num_classes": 2,
    "model_size": "micro",
}  # fmt: skip


def waves(count):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    phase = 6 * torch.rand(count, 1, 2, generator=generator)
    return torch.sin(phase + torch.arange(32)[None, :, None] * (0.2 + 0.6 * labels[:, None, None])), labels


@pytest.mark.parametrize("joint", [False, True])
def test_it_learns(joint):
    torch.manual_seed(0)
    model = mamba_forecaster.build(DESCRIBE, patch_len=8, stride=4, n_layer=1, joint=joint, dropout=0.0)
    task, batch = Classification(model, DESCRIBE), waves(32)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(25):
        loss, metrics = task.step(batch, "train")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["accuracy"] == 1
    assert all(each.grad is not None for each in model.parameters())


def test_the_nearest_series_names_its_class():
    values, labels = waves(20)
    assert torch.equal(nearest(values + 0.01, values, labels), labels)


def test_forecasters_and_data_without_classes_are_refused():
    with pytest.raises(UserError, match="model=mamba_forecaster"):
        smamba.build(DESCRIBE)
    with pytest.raises(UserError, match="no classes"):
        Classification(torch.nn.Identity(), {"name": "loads"})
