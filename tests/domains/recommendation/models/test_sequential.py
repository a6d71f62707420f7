"""What every recommender promises, whatever it is made of."""

import importlib

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.sequential import last_of_each
from polymamba.domains.recommendation.packed import encode

ITEMS, LENGTH = 30, 12
DESCRIBE = {"items": ITEMS, "length": LENGTH}
TINY = {"channels": 32, "d_state": 4}
FORMS = {
    "mamba4rec": ("mamba4rec", TINY),
    "mamba4rec two layers": ("mamba4rec", {**TINY, "size": "two-layers"}),
    "mamba4rec published": ("mamba4rec", {**TINY, "compat": "published"}),
    "mamba4rec mamba2": ("mamba4rec", {**TINY, "mixer": "mamba2"}),
    "mamba4rec mamba3": ("mamba4rec", {**TINY, "mixer": "mamba3"}),
    "mamba4rec s4d": ("mamba4rec", {**TINY, "mixer": "s4d"}),
    "mamba4rec attention": ("mamba4rec", {**TINY, "mixer": "attention"}),
    "mamba4rec both ways": ("mamba4rec", {**TINY, "scan": "bidirectional"}),
    "mamba4rec mamba2 both ways": ("mamba4rec", {**TINY, "mixer": "mamba2", "scan": "bidirectional"}),
    "mamba4rec attention both ways": ("mamba4rec", {**TINY, "mixer": "attention", "scan": "bidirectional"}),
    "matrrec": ("matrrec", {**TINY, "size": "two-layers", "heads": 2}),
    "matrrec both ways": ("matrrec", {**TINY, "scan": "bidirectional"}),
    "ssd4rec": ("ssd4rec", TINY),
    "ssd4rec both ways": ("ssd4rec", {**TINY, "scan": "bidirectional"}),
    "ssd4rec published": ("ssd4rec", {**TINY, "compat": "published"}),
    "ssd4rec bare": ("ssd4rec", {**TINY, "ffn": False, "mixer": "mamba"}),
    "tim4rec": ("tim4rec", TINY),
    "tim4rec by place": ("tim4rec", {**TINY, "by_place": True, "head_channels": 8}),
    "tim4rec untimed": ("tim4rec", {**TINY, "timed": False}),
    "sigma": ("sigma", {**TINY, "size": "two-layers"}),
    "sigma mamba2 both ways": ("sigma", {**TINY, "mixer": "mamba2", "scan": "bidirectional"}),
    "echomamba4rec": ("echomamba4rec", {**TINY, "size": "two-layers"}),
    "recmamba": ("recmamba", {**TINY, "size": "two-layers"}),
    "sasrec": ("sasrec", {"channels": 32}),
    "bert4rec": ("bert4rec", {"channels": 32}),
    "gru4rec": ("gru4rec", {"channels": 32, "inner": 24, "size": "two-layers"}),
    "hstu": ("hstu", {"channels": 32, "heads": 2}),
    "item_knn": ("item_knn", {"neighbours": 5}),
    "popularity": ("popularity", {}),
}
WHOLE = {"tim4rec", "tim4rec by place", "sigma", "sigma mamba2 both ways", "echomamba4rec", "bert4rec"} | {
    name for name in FORMS if "both ways" in name
}
LEARN_BY_COUNTING = {"item_knn", "popularity"}
CAUSAL = sorted(set(FORMS) - WHOLE)
TRAINED = sorted(set(FORMS) - LEARN_BY_COUNTING)


def make(golden, name, describe=DESCRIBE, **options):
    """The model in float64, its weights by name: row 0 of its tables is not zero, nor is any bias."""
    module, own = FORMS[name]
    torch.manual_seed(0)
    build = importlib.import_module(f"polymamba.domains.recommendation.models.{module}").build
    model = golden.fill(build(describe, **own, **options)).double()
    if name in LEARN_BY_COUNTING:
        generator = torch.Generator().manual_seed(3)
        pairs = (torch.randint(1, high, (200,), generator=generator) for high in (20, ITEMS + 1))
        model.fit(*pairs)
    return model


def histories(*lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    items = [torch.randint(1, ITEMS + 1, (length,), generator=generator) for length in lengths]
    times = [1_700_000_000 + torch.randint(1, 90_000, (length,), generator=generator).cumsum(0) for length in lengths]
    return items, times


def padded(rows, width, side="right"):
    filled = torch.zeros(len(rows), width, dtype=torch.int64)
    for number, row in enumerate(rows):
        filled[number, slice(0, len(row)) if side == "right" else slice(width - len(row), width)] = row
    return filled


def one_by_one(model, items, times):
    return [model(i[None], times=t[None])[0][0] for i, t in zip(items, times, strict=True)]


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(golden, name):
    model, (items, times) = make(golden, name), histories(11, 7, 1, 4)
    expected = one_by_one(model, items, times)
    sides = [["right", "left"][row % 2] for row in range(4)]
    rows, clock = (
        torch.cat([padded([row], 11, side) for row, side in zip(parts, sides, strict=True)]) for parts in (items, times)
    )
    hidden, _ = model(rows, times=clock)
    for row, said in enumerate(expected):
        torch.testing.assert_close(hidden[row][rows[row] != 0], said)
    together = model.encode(rows, times=clock)
    if name == "bert4rec":
        expected = [model.encode(i[None], times=t[None]) for i, t in zip(items, times, strict=True)]
    torch.testing.assert_close(together, torch.stack([said[-1] for said in expected]))


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_reading_those_of_about_a_length_together_changes_nothing(golden, name):
    model, (items, times) = make(golden, name), histories(*range(10), 10, 3, 1, 1)
    for side in ("right", "left"):
        rows, clock = padded(items, 12, side), padded(times, 12, side)
        torch.testing.assert_close(encode(model, rows, clock), model.encode(rows, times=clock))
    torch.testing.assert_close(encode(model, rows[:1], clock[:1]), model.encode(rows[:1], times=clock[:1]))


@pytest.mark.parametrize(
    "name", ["mamba4rec", "sigma", "echomamba4rec", "tim4rec", "bert4rec", "hstu", "ssd4rec", "recmamba"]
)
@torch.no_grad()
def test_nor_does_it_where_published_code_reads_padding(golden, name):
    build = importlib.import_module(f"polymamba.domains.recommendation.models.{name}").build
    model = golden.fill(build(DESCRIBE, compat="published")).double().eval()
    items, times = histories(*range(1, 11), 10, 3, 1, 1)
    side = "left" if name == "recmamba" else "right"
    rows, clock = padded(items, 12, side), padded(times, 12, side)
    torch.testing.assert_close(encode(model, rows, clock), model.encode(rows, times=clock))


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_packed_histories_do_not_meet(golden, name):
    model, (items, times) = make(golden, name), histories(5, 1, 6)
    row, clock = torch.cat([torch.zeros(1, dtype=torch.int64), *items])[None], torch.cat([times[0][:1], *times])[None]
    seq_idx = torch.tensor([-1, *[4] * 5, 2, *[3] * 6])[None]
    hidden, states = model(row, seq_idx, clock)
    torch.testing.assert_close(hidden[0, 1:], torch.cat(one_by_one(model, items, times)))
    torch.testing.assert_close(model.encode(row, seq_idx, clock), model.encode(items[2][None], times=times[2][None]))
    assert states is None or states.seen.tolist() == [6]


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_one_event_at_a_time(golden, name):
    model, (items, times) = make(golden, name), histories(9, 9, 9)
    rows, clock = torch.stack(items), torch.stack(times)
    whole, last = model(rows, times=clock)
    states, said = None, []
    for event in range(9):
        hidden, states = model(rows[:, event : event + 1], times=clock[:, event : event + 1], states=states)
        said.append(hidden)
    torch.testing.assert_close(torch.cat(said, 1), whole)
    assert states.seen.tolist() == last.seen.tolist() == [9, 9, 9]
    torch.testing.assert_close(model.scores(said[-1][:, 0]), model.scores(model.encode(rows, times=clock)))


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_histories_of_any_length_go_on_in_pieces(golden, name):
    model, (items, times) = make(golden, name), histories(6, 3, 0, 5)
    rows, clock = padded(items, 6, "left"), padded(times, 6, "left")
    more, later = histories(4, 2, 3, 0, seed=2)
    later = [t + 1_000_000 for t in later]
    states = model(rows, times=clock)[1]
    assert states.seen.tolist() == [6, 3, 0, 5]
    hidden, states = model(padded(more, 4), times=padded(later, 4), states=states)
    assert states.seen.tolist() == [10, 5, 3, 5]
    final, _ = model(torch.full((4, 1), 7), times=torch.full((4, 1), 1_800_000_000), states=states)
    for row in range(4):
        whole = torch.cat([items[row], more[row], torch.tensor([7])])[None]
        expected = model(whole, times=torch.cat([times[row], later[row], torch.tensor([1_800_000_000])])[None])[0][0]
        torch.testing.assert_close(hidden[row, : len(more[row])], expected[len(items[row]) : -1])
        torch.testing.assert_close(final[row, 0], expected[-1])


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_the_last_of_packed_histories_goes_on(golden, name):
    model, (items, times) = make(golden, name), histories(3, 4, 2)
    seq_idx = torch.tensor([[0, 0, 0, 5, 5, -1]])
    row, clock = (torch.cat([parts[0], parts[1][:2], parts[0][:1]])[None] for parts in (items, times))
    states = model(row, seq_idx, clock)[1]
    assert states.seen.tolist() == [2]
    row, clock = (torch.cat([parts[0][:1], parts[1][2:], parts[2]])[None] for parts in (items, times))
    hidden, states = model(row, torch.tensor([[-1, 8, 8, 9, 9]]), clock, states=states)
    assert states.seen.tolist() == [2]
    _, second, third = one_by_one(model, items, times)
    torch.testing.assert_close(hidden[0, 1:], torch.cat([second[2:], third]))
    after = model(items[0][None, :1], times=times[0][None, :1] + 10**6, states=states)[0][0]
    whole = torch.cat([items[2], items[0][:1]])[None], torch.cat([times[2], times[0][:1] + 10**6])[None]
    torch.testing.assert_close(after, model(whole[0], times=whole[1])[0][0, -1:])


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_nothing_reads_ahead(golden, name):
    model, (items, times) = make(golden, name), histories(9)
    rows, clock = torch.stack(items), torch.stack(times)
    changed, moved = rows.clone(), clock.clone()
    changed[:, 5:] = rows[:, 5:] % ITEMS + 1
    moved[:, 5:] += 1_000_000
    before, after = model(rows, times=clock)[0], model(changed, times=moved)[0]
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert name == "popularity" or not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("name", sorted(WHOLE))
@torch.no_grad()
def test_the_others_read_a_history_as_a_whole(golden, name):
    model, (items, times) = make(golden, name), histories(9)
    rows, clock = torch.stack(items), torch.stack(times)
    changed, moved = rows.clone(), clock.clone()
    changed[:, 2], moved[:, 2:] = rows[:, 2] % ITEMS + 1, clock[:, 2:] + 1_000
    hidden, states = model(rows, times=clock)
    assert states is None
    assert not model.causal
    assert not torch.equal(hidden[:, 0], model(changed, times=moved)[0][:, 0])
    some = make(golden, "mamba4rec")(rows)[1]
    with pytest.raises(UserError, match="as a whole"):
        model(rows, times=clock, states=some)


@pytest.mark.parametrize("length", [1, 5, 12])
@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_learns(golden, name, length):
    torch.manual_seed(0)
    model, (items, times) = make(golden, name).train(), histories(length, length)
    rows, clock = torch.stack(items), torch.stack(times)
    scores = model.scores(model.encode(rows, times=clock) if name == "bert4rec" else model(rows, times=clock)[0])
    torch.nn.functional.cross_entropy(
        scores.flatten(0, -2), torch.arange(scores[..., 0].numel()) % ITEMS + 1
    ).backward()
    for key, parameter in model.named_parameters():
        if "tim4rec" in name and key.startswith(("ssd_layers.1.ssd.time_gate", "ssd_layers.1.ssd.time_layer")):
            assert parameter.grad is None  # of what the last layer hands on, which nobody reads
            continue
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert length < 12 or parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", TRAINED)
def test_gradients_are_those_of_the_numbers(golden, name):
    """A directional derivative of the answers against a central difference, in float64."""
    model, (items, times) = make(golden, name), histories(7, 4)
    rows, clock = padded(items, 7), padded(times, 7)
    generator = torch.Generator().manual_seed(5)

    def loss():
        return model.scores(model.encode(rows, times=clock)).square().mean()

    loss().backward()
    directions = {p: torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in model.parameters()}
    slope = sum((p.grad * d).sum() for p, d in directions.items() if p.grad is not None)
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for parameter, direction in directions.items():
                parameter += step * direction
            values.append(loss())
    torch.testing.assert_close(slope, (values[0] - values[1]) / 2e-5, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("name", TRAINED)
@torch.no_grad()
def test_half_precision(golden, name):
    model, (items, times) = make(golden, name).float(), histories(7, 4, 0)
    rows, clock = padded(items, 7), padded(times, 7)
    expected = model.encode(rows, times=clock)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.encode(rows, times=clock)
    whole = model.bfloat16().encode(rows, times=clock)
    assert whole.dtype == torch.bfloat16
    for said in (mixed, whole):
        assert (said.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_rows_without_events(golden, name):
    model, (items, times) = make(golden, name), histories(0, 3)
    rows, clock = padded(items, 4), padded(times, 4)
    states = model(rows, times=clock)[1]
    said = model.encode(rows, times=clock)
    torch.testing.assert_close(said[1:], model.encode(items[1][None], times=times[1][None]))
    assert name == "popularity" or not said[0].any()
    for empty in (rows[:, :0], rows[:0], rows[:1]):
        clock = torch.zeros_like(empty)
        hidden, after = model(empty, times=clock)
        assert hidden.shape[:2] == empty.shape
        assert model.encode(empty, times=clock).shape == (len(empty), said.shape[1])
        if after is not None:
            assert after.seen.tolist() == [0] * len(empty)
    if states is not None:
        kept = model(rows[:, :0], times=rows[:, :0], states=states)[1]
        assert kept.seen.tolist() == states.seen.tolist()


@pytest.mark.parametrize("name", FORMS)
@torch.no_grad()
def test_a_saved_model_answers_the_same(golden, name, tmp_path):
    model, (items, times) = make(golden, name), histories(6, 2)
    rows, clock = padded(items, 6), padded(times, 6)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    module, options = FORMS[name]
    other = (
        importlib.import_module(f"polymamba.domains.recommendation.models.{module}").build(DESCRIBE, **options).double()
    )
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    other.eval()
    scores = model.scores(model.encode(rows, times=clock))
    assert torch.equal(other.scores(other.encode(rows, times=clock)), scores)
    assert scores.shape == (2, ITEMS + 1)
    some = torch.tensor([3, 30, 3, 1])
    torch.testing.assert_close(model.scores(model.encode(rows, times=clock), some), scores[:, some])


@pytest.mark.parametrize("name", sorted({"mamba4rec", "sigma", "tim4rec", "bert4rec", "hstu", "recmamba", "gru4rec"}))
@torch.no_grad()
def test_behaviours_and_features_are_read(golden, name):
    describe = {**DESCRIBE, "behaviours": ["view", "buy"], "features": {"brand": 4, "tags": 6}}
    model, (items, times) = make(golden, name, describe), histories(5, 3)
    generator = torch.Generator().manual_seed(9)
    given = {
        "behaviour": torch.randint(1, 3, (2, 5), generator=generator),
        "brand": torch.randint(1, 5, (2, 5), generator=generator),
        "tags": torch.randint(0, 7, (2, 5, 3), generator=generator),
    }
    answers = []
    for side in ("right", "left"):
        rows, clock = padded(items, 5, side), padded(times, 5, side)
        move = {key: torch.stack([v[0], v[1].roll(2, 0)]) if side == "left" else v for key, v in given.items()}
        answers.append(model.encode(rows, times=clock, features=move))
    torch.testing.assert_close(*answers)
    for key in given:
        other = {**given, key: given[key] % given[key].max() + (given[key] > 0)}
        assert not torch.allclose(
            model.encode(padded(items, 5), times=padded(times, 5), features=other)[0], answers[0][0]
        )
    with pytest.raises(UserError, match="features are not those"):
        model(padded(items, 5), times=padded(times, 5), features={"brand": given["brand"]})
    with pytest.raises(UserError, match="do not exist"):
        model(padded(items, 5), times=padded(times, 5), features={**given, "brand": given["brand"] + 4})


@torch.no_grad()
def test_several_values_of_a_feature_are_averaged(golden):
    model = make(golden, "mamba4rec", {**DESCRIBE, "features": {"tags": 6}})
    items, table = torch.tensor([[3, 5]]), model.feature_embeddings["tags"].weight
    x = model.embed(model.events(items, features={"tags": torch.tensor([[[1, 4, 0], [0, 0, 0]]])}))
    torch.testing.assert_close(x[0, 0], model.item_embedding.weight[3] + (table[1] + table[4] + table[0]) / 2)


def test_what_does_not_exist_is_named(golden):
    model = make(golden, "mamba4rec")
    for wrong in (torch.tensor([[ITEMS + 1]]), torch.tensor([[-1]])):
        with pytest.raises(UserError, match="items that do not exist"):
            model(wrong)
    for wrong in (torch.tensor([1, 2]), torch.tensor([[1.0]])):
        with pytest.raises(UserError, match="items"):
            model(wrong)
    with pytest.raises(UserError, match="features are not those"):
        model(torch.tensor([[1]]), features={"brand": torch.tensor([[1]])})
    with pytest.raises(UserError, match="unknown compat"):
        make(golden, "mamba4rec", compat="correct")


@pytest.mark.parametrize("name", ["sasrec", "hstu", "recmamba", "echomamba4rec", "tim4rec"])
def test_more_events_than_a_model_has_places_for(golden, name):
    model, (items, times) = make(golden, name), histories(13)
    with pytest.raises(UserError, match="longer than the model's"):
        model(items[0][None], times=times[0][None])


def test_the_last_of_each():
    hidden, real = torch.arange(6.0).view(2, 3, 1), torch.tensor([[True, True, False], [False, False, False]])
    assert last_of_each(hidden, real).tolist() == [[1.0], [0.0]]
