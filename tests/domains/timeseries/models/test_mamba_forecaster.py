import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models.mamba_forecaster import MambaForecaster, build

SMALL = {"lookback": 13, "horizon": 5, "variables": 3, "d_model": 8, "n_layer": 2, "patch_len": 4, "stride": 3}


def made(seed=0, **options):
    torch.manual_seed(seed)
    return MambaForecaster(**{**SMALL, **options}).double().eval()


def window(variables=3, seed=1, lookback=13):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, lookback, variables, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("joint", [False, True])
def test_the_stack_against_its_formula(joint):
    model, x = made(joint=joint, channel_mixer="mlp", use_norm=False, lookback=14), window(lookback=14)
    wide = torch.cat([x[:, :1], x[:, :1], x], 1).transpose(1, 2)  # 14 steps: the first value twice more
    cut = wide.unfold(2, 4, 3)
    cut = cut.transpose(1, 2).flatten(2)[:, None] if joint else cut
    stream = model.embedding(cut).flatten(0, 1)
    for layer in model.layers:
        stream = stream + layer.mixer(layer.norm(stream))[0]
        stream = stream + layer.channel_mixer(layer.norm2(stream))
    stream = model.norm_f(stream).unflatten(0, cut.shape[:2])
    torch.testing.assert_close(model.features(x), stream)
    answer = model.head.linear(stream.flatten(2)).reshape(2, 3, 5).transpose(1, 2)
    torch.testing.assert_close(model(x), answer)


def test_joint_tokens_mix_variables_and_others_do_not():
    x = window()
    other = x.clone()
    other[..., 1] = window(seed=5)[..., 1]
    alone, joint = made(), made(joint=True)
    torch.testing.assert_close(alone(other)[..., [0, 2]], alone(x)[..., [0, 2]])
    assert not torch.allclose(joint(other)[..., [0, 2]], joint(x)[..., [0, 2]])


def test_marks_and_variables_of_a_patch_are_read():
    model, x, marks = made(mark_features=2), window(), window(2, seed=3)
    assert not torch.allclose(model(x, marks), model(x))


def test_every_mixer_and_scan():
    for mixer in ("mamba", "mamba2", "mamba3"):
        for scan in ("raster", "bidirectional"):
            assert made(mixer=mixer, scan=scan)(window()).isfinite().all()
    assert made(mixer_options={"d_state": 5}).layers[0].mixer.d_state == 5
    for wrong in (
        {"mixer": "lstm"},
        {"channel_mixer": "fft"},
        {"channel_mixer": "einfft", "d_model": 6},
        {"patch_len": 14},
    ):
        with pytest.raises(UserError):
            made(**wrong)


def test_sizes_train():
    """A sine with another phase in every window is learnt in seconds."""
    torch.manual_seed(0)
    model = build({"lookback": 24, "horizon": 6, "variables": 1}, size="micro", patch_len=8, stride=4, dropout=0.0)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(40):
        phase = 6.3 * torch.rand(32, 1, 1)
        series = torch.sin(phase + 0.5 * torch.arange(30)[None, :, None])
        loss = (model(series[:, :24]) - series[:, 24:]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.05
