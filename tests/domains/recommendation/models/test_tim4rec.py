import pytest
import torch
from torch import nn

from polymamba.core.errors import UserError
from polymamba.domains.recommendation.models.ssd4rec import build as build_ssd4rec
from polymamba.domains.recommendation.models.tim4rec import TiM4Rec, build, norm_over_time

DESCRIBE = {"items": 199, "length": 50}


def test_meets_the_record(meets_the_record, published_histories, golden):
    times = (golden.seeded(4, 50, seed=5).abs() * 100).cumsum(1)

    def answers(model):
        hidden = model.encode(published_histories, times=times)
        return model.scores(hidden), hidden

    meets_the_record("rec_tim4rec", build(DESCRIBE, compat="published"), answers)


def test_norms_over_time_are_over_the_events():
    torch.manual_seed(0)
    norm, x = nn.LayerNorm(6, 1e-12).double(), torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    real = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])[:, None]
    first = x[0, :, :4]
    first = (first - first.mean(-1, keepdim=True)) / first.var(-1, keepdim=True, unbiased=False).sqrt()
    y = norm_over_time(norm, x, real)
    torch.testing.assert_close(y[0, :, :4], first * norm.weight[:4] + norm.bias[:4])
    assert not y[0, :, 4:].any()
    torch.testing.assert_close(y[1], norm(x)[1])
    assert torch.autograd.gradcheck(lambda x: norm_over_time(norm, x, real), x)


@torch.no_grad()
def test_full_histories_are_as_published_but_for_the_activation(golden):
    """Eight heads: their code takes SiLU too, and there is no padding to differ about."""
    models = [golden.fill(TiM4Rec(30, 9, 32, head_channels=8, d_state=4, compat=c)) for c in ("corrected", "published")]
    items = torch.tensor([[3, 9, 27, 1, 3, 8, 2, 5, 4]])
    times = 1_700_000_000 + torch.tensor([[3, 9, 400, 401, 90_000, 90_010, 90_011, 200_000, 10**8]])
    torch.testing.assert_close(models[0](items, times=times)[0], models[1](items, times=times)[0])


@pytest.mark.parametrize(("head_channels", "fallen_back"), [(32, True), (16, False)])
def test_hardswish_is_of_the_published_form(head_channels, fallen_back):
    for compat in ("published", "corrected"):
        layers = build(DESCRIBE, head_channels=head_channels, compat=compat).ssd_layers
        assert {layer.ssd.hardswish for layer in layers} == {fallen_back and compat == "published"}


@torch.no_grad()
def test_when_it_began_does_not_matter(golden):
    model = golden.fill(TiM4Rec(30, 9, 32, d_state=4))
    items, times = torch.tensor([[3, 9, 27]]), torch.tensor([[5, 9, 70]])
    assert torch.equal(model(items, times=times)[0], model(items, times=times + 1_700_000_000)[0])
    assert not torch.equal(model(items, times=times)[0], model(items, times=times * times)[0])


def test_without_times_it_is_ssd4rec(golden, published_histories):
    plain = build_ssd4rec(DESCRIBE, compat="published")
    model = build(DESCRIBE, timed=False, compat="published")
    assert list(model.state_dict()) == list(plain.state_dict())
    model.load_state_dict(golden.fill(plain).state_dict())
    assert torch.equal(model.eval()(published_histories)[0], plain(published_histories)[0])
    with pytest.raises(UserError, match="times"):
        build(DESCRIBE)(published_histories)


@torch.no_grad()
def test_the_published_form_fills_rows_up_itself(golden):
    model = golden.fill(TiM4Rec(30, 9, 32, d_state=4, compat="published")).double()
    items, times = torch.tensor([[3, 9, 27], [4, 0, 0]]), torch.tensor([[5, 9, 70], [8, 0, 0]])
    wide = [torch.nn.functional.pad(t, (0, 6)) for t in (items, times)]
    torch.testing.assert_close(model(items, times=times)[0], model(wide[0], times=wide[1])[0][:, :3])
