import copy

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.mambats import MambaTS
from polymamba.domains.timeseries.models.patches import patched

SMALL = {
    "lookback": 12,
    "horizon": 5,
    "variables": 4,
    "d_model": 8,
    "d_state": 3,
    "n_layer": 2,
    "patch_len": 4,
    "stride": 4,
}


def mambats(seed=0, **options):
    torch.manual_seed(seed)
    return MambaTS(**{**SMALL, **options}).double().eval()


def window(batch=2, lookback=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, lookback, 4, generator=generator, dtype=torch.float64)


def test_matches_the_original_model(golden):
    model = MambaTS(96, 96, 7, patch_len=16, stride=16)
    model.set_variable_order(golden.meta_of("ts_mambats")["order"])
    golden.fill(model)
    with torch.no_grad():
        result = golden.compare("ts_mambats", model(golden.seeded(4, 96, 7)), model)
    assert max(result["errors"]) < 1e-5
    assert not result["missing"]
    assert not result["extra"]
    assert not result["shapes"]
    assert result["parameters"][0] == result["parameters"][1]


def test_one_sequence_of_all_variables_patches():
    model, x = mambats(), window()
    order = [2, 0, 3, 1]
    model.set_variable_order(order)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    stream = model.value_embedding(normal[..., order].transpose(1, 2).unfold(2, 4, 4)).flatten(1, 2)
    for layer in model.encoder.layers:
        stream = stream + layer.mixer(layer.norm(stream))[0]
    said = model.encoder.norm_f(stream).unflatten(1, (4, 3))
    features = model.features(x)
    for place, variable in enumerate(order):
        torch.testing.assert_close(features[:, variable], said[:, place])


def test_a_variable_sees_those_before_it():
    model, x = mambats(), window()
    model.set_variable_order([2, 0, 3, 1])
    other = x.clone()
    other[..., 3] = window(seed=5)[..., 3]
    same = [torch.allclose(model(other)[..., i], model(x)[..., i]) for i in range(4)]
    assert same == [True, False, True, False]


def test_orders():
    model, x = mambats(), window()
    assert model.variable_order() == [0, 1, 2, 3]
    natural = model(x)
    model.set_variable_order([3, 2, 1, 0])
    assert not torch.allclose(model(x), natural)
    model.set_variable_order(None)
    torch.testing.assert_close(model(x), natural)
    torch.testing.assert_close(mambats(shuffle=False)(x), natural)
    for wrong in ([0, 1, 2], [0, 1, 2, 2], [1, 2, 3, 4]):
        with pytest.raises(UserError, match="not an order"):
            model.set_variable_order(wrong)


def booked(model, walked, losses):
    """What observe must have added, pair by pair."""
    cost = losses / losses.std()
    adjacency, counts = torch.zeros(4, 4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
    for row, value in zip(walked.tolist(), cost.tolist(), strict=True):
        for before, after in zip([row[0], *row[:-1]], row, strict=True):
            adjacency[before, after] += value
            counts[before, after] += 1
    return adjacency, counts


def test_losses_are_booked_to_their_windows_neighbours():
    model = mambats().train()
    losses = torch.tensor([0.5, 2.0, 1.0, 3.0, 0.1], dtype=torch.float64)
    torch.manual_seed(7)
    walked = torch.rand(5, 4).argsort(1)
    torch.manual_seed(7)
    model(window(5))
    model.observe(losses)
    adjacency, counts = booked(model, walked, losses)
    torch.testing.assert_close(model.encoder.adjacency_matrix.detach(), adjacency)
    torch.testing.assert_close(model.encoder.count_matrix.detach(), counts)
    assert counts.diagonal().sum() == 5  # each window's first variable
    ends = torch.zeros(4, dtype=torch.float64).index_add(0, walked[:, -1], losses / losses.std())
    torch.testing.assert_close(model.encoder.ending_points.detach(), ends)
    published = mambats(compat="published").train()
    torch.manual_seed(7)
    published(window(5))
    published.observe(losses)
    torch.testing.assert_close(published.encoder.count_matrix, model.encoder.count_matrix)
    assert not torch.allclose(published.encoder.adjacency_matrix, model.encoder.adjacency_matrix)
    torch.testing.assert_close(published.encoder.adjacency_matrix.sum(), model.encoder.adjacency_matrix.sum())


def test_what_cannot_be_booked_is_left_out_or_refused():
    model = mambats().train()
    model.observe(torch.ones(3))  # no call before
    model(window(1))
    model.observe(torch.ones(1))
    model(window(3))
    model.observe(torch.ones(3))  # no deviation
    assert not model.encoder.count_matrix.any()
    model(window(3))
    with pytest.raises(UserError, match="a loss a window"):
        model.observe(torch.ones(2))
    model(window(3))
    with pytest.raises(UserError, match="a loss a window"):
        model.observe(torch.tensor(1.0))
    with pytest.raises(UserError, match="unknown solver"):
        mambats(solver="exact")


@pytest.mark.parametrize("solver", ["annealing", "local_search", "greedy"])
def test_the_order_that_lowers_the_loss_is_learnt(solver):
    """Windows whose variables stand in descending order cost least."""
    model = mambats(solver=solver, n_layer=1).train()
    for step in range(40):
        model(window(16, seed=step))
        steps = model.encoder._walked.diff(dim=1)
        first = model.encoder._walked[:, 0]
        model.observe((steps != -1).double().sum(1) + (first != 3))
    assert model.eval().variable_order() == [3, 2, 1, 0]
    again = copy.deepcopy(mambats(solver=solver, n_layer=1))
    assert again.variable_order() == [0, 1, 2, 3]
    again.load_state_dict(model.state_dict())
    assert again.variable_order() == [3, 2, 1, 0]


def test_training_shuffles_and_evaluation_does_not():
    model, x = mambats(dropout=0.0), window()
    assert torch.equal(model(x), model(x))
    model.train()
    assert len({model(x).sum().item() for _ in range(8)}) > 1


def test_the_newest_values_are_seen():
    x = window(lookback=14)
    other = torch.cat([x[:, :-1], x[:, -1:] + 1], 1)
    corrected, published = (mambats(lookback=14, compat=compat) for compat in ("corrected", "published"))
    assert corrected.features(x).shape == (2, 4, 4, 8)
    assert published.features(x).shape == (2, 4, 3, 8)
    embedded = [model.value_embedding(torch.ones(4, dtype=torch.float64)) for model in (corrected, published)]
    torch.testing.assert_close(*embedded)
    assert not torch.allclose(corrected.features(other), corrected.features(x))
    assert torch.equal(patched(other, 4, 4, before=published.before), patched(x, 4, 4, before=published.before))
    assert not torch.equal(patched(other, 4, 4, before=corrected.before), patched(x, 4, 4, before=corrected.before))
