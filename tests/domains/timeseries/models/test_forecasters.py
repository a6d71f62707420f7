"""What every forecaster promises, whatever it is made of."""

import copy

import pytest
import torch

from polymamba.core.errors import UserError
from polymamba.domains.timeseries.models import (
    bimamba_plus,
    cmamba,
    itransformer,
    linear,
    mamba_forecaster,
    mambaformer,
    mambats,
    naive,
    patchtst,
    smamba,
    timemachine,
)

LOOKBACK, HORIZON, VARIABLES, FEATURES = 23, 11, 3, 4
TINY = {"d_model": 8, "d_ff": 12, "n_layer": 2}
CUT = {"patch_len": 5, "stride": 3}
MODELS = {
    "itransformer": (itransformer.build, {**TINY, "n_heads": 2}),
    "smamba": (smamba.build, {**TINY, "d_state": 3}),
    "smamba_published": (smamba.build, {**TINY, "d_state": 3, "compat": "published"}),
    "smamba_forwards": (smamba.build, {**TINY, "d_state": 3, "scan": "raster"}),
    "smamba_skip": (smamba.build, {**TINY, "d_state": 3, "scan": "skip", "use_norm": False}),
    "timemachine": (timemachine.build, {"n1": 12, "n2": 6, "d_state": 3}),
    "timemachine_mixing": (timemachine.build, {"n1": 12, "n2": 6, "d_state": 3, "channel_independent": False}),
    "timemachine_plain": (timemachine.build, {"n1": 12, "n2": 6, "d_state": 3, "residual": False, "revin": False}),
    "dlinear": (linear.build, {}),
    "dlinear_individual": (linear.build, {"individual": True}),
    "nlinear": (linear.build, {"form": "nlinear"}),
    "nlinear_individual": (linear.build, {"form": "nlinear", "individual": True}),
    "patchtst": (patchtst.build, {**TINY, "n_heads": 2, **CUT}),
    "patchtst_individual": (patchtst.build, {**TINY, "n_heads": 2, **CUT, "individual": True, "affine": True}),
    "patchtst_decomposed": (patchtst.build, {**TINY, "n_heads": 3, **CUT, "decomposition": True, "padding": False}),
    "bimamba_plus": (bimamba_plus.build, {**TINY, **CUT, "d_state": 3}),
    "bimamba_plus_mixing": (
        bimamba_plus.build,
        {**TINY, **CUT, "d_state": 3, "channel_mixing": True, "mark_tokens": True},
    ),
    "bimamba_plus_published": (
        bimamba_plus.build,
        {**TINY, **CUT, "d_state": 3, "compat": "published", "scan": "raster"},
    ),
    "cmamba": (cmamba.build, {**TINY, **CUT, "d_state": 3, "dt_rank": 2}),
    "cmamba_plain": (cmamba.build, {**TINY, **CUT, "d_state": 3, "dt_rank": 2, "gdd_mlp": False}),
    "mambats": (mambats.build, {"d_model": 8, "n_layer": 2, **CUT, "d_state": 3}),
    "mambats_published": (
        mambats.build,
        {"d_model": 8, "n_layer": 2, **CUT, "d_state": 3, "compat": "published", "d_conv": 2},
    ),
    "mambats_as_they_come": (
        mambats.build,
        {"d_model": 8, "n_layer": 2, **CUT, "d_state": 3, "shuffle": False, "dropout": 0.0},
    ),
    "mambaformer": (mambaformer.build, {**TINY, "n_heads": 2, "d_state": 3}),
    "attention_mamba": (mambaformer.build, {**TINY, "n_heads": 2, "d_state": 3, "form": "attention_mamba"}),
    "mamba_attention": (
        mambaformer.build,
        {**TINY, "n_heads": 2, "d_state": 3, "form": "mamba_attention", "use_norm": True},
    ),
    "mambaformer_mamba": (mambaformer.build, {**TINY, "n_heads": 2, "d_state": 3, "form": "mamba", "positions": True}),
    "mambaformer_transformer": (mambaformer.build, {**TINY, "n_heads": 2, "form": "transformer"}),
    "mamba": (mamba_forecaster.build, {"d_model": 8, "n_layer": 2, **CUT}),
    "mamba_joint": (mamba_forecaster.build, {"d_model": 8, "n_layer": 2, **CUT, "joint": True, "channel_mixer": "mlp"}),
    "simba": (mamba_forecaster.build, {"d_model": 8, "n_layer": 2, **CUT, "channel_mixer": "einfft"}),
    "mamba2": (mamba_forecaster.build, {"d_model": 8, "n_layer": 1, **CUT, "mixer": "mamba2"}),
    "mamba3": (mamba_forecaster.build, {"d_model": 8, "n_layer": 1, **CUT, "mixer": "mamba3", "use_norm": False}),
    "repeat_last": (naive.build, {}),
    "seasonal": (naive.build, {"form": "seasonal", "period": 7}),
}
TIMEMACHINES = ("timemachine", "timemachine_plain")
WITHOUT_PARAMETERS = ("repeat_last", "seasonal")
SCANNING = ("mamba", "mamba_joint", "simba", "mamba2", "mamba3")
WITHOUT_FEATURES = ("dlinear", "dlinear_individual", "nlinear", "nlinear_individual", *WITHOUT_PARAMETERS)


def model(name, seed=0, variables=VARIABLES, lookback=LOOKBACK, horizon=HORIZON, **others):
    build, options = MODELS[name]
    torch.manual_seed(seed)
    described = {"lookback": lookback, "horizon": horizon, "variables": variables, "mark_features": FEATURES}
    return build(described, **{**options, **others}).double()


def window(batch=2, lookback=LOOKBACK, variables=VARIABLES, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, lookback, variables, generator=generator, dtype=torch.float64)


def calendar(batch=2, length=LOOKBACK + HORIZON):
    return window(batch, length, FEATURES, seed=2)


@pytest.mark.parametrize("name", MODELS)
def test_shapes_odd_lengths_and_one_variable(name):
    for lookback, variables, batch in ((LOOKBACK, VARIABLES, 2), (24, 1, 1), (17, 2, 3)):
        forecaster = model(name, lookback=lookback, variables=variables).eval()
        x = window(batch, lookback, variables)
        answer = forecaster(x, calendar(batch, lookback + HORIZON))
        assert answer.shape == (batch, HORIZON, variables)
        assert answer.isfinite().all()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT_PARAMETERS])
def test_every_parameter_learns(name):
    forecaster = model(name)
    forecaster(window(), calendar()).square().sum().backward()
    learning = {key: p.grad for key, p in forecaster.named_parameters() if p.requires_grad}
    assert learning
    assert [key for key, gradient in learning.items() if gradient is None or not gradient.isfinite().all()] == []
    # A decay of a path on which no answering token has one before it does nothing: one-token sequences, a skip scan's second path.
    silent = [key for key, gradient in learning.items() if not gradient.any()]
    assert all(key.endswith("log") for key in silent) if name in ("smamba_skip", *TIMEMACHINES) else not silent


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_round_trip(name):
    first, second, x = model(name, seed=0).eval(), model(name, seed=1).eval(), window()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(x, calendar()), first(x, calendar()), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(first)(x, calendar()), first(x, calendar()), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_windows_do_not_mix(name):
    forecaster, x = model(name).eval(), window(3)
    together = forecaster(x, calendar(3))
    alone = torch.cat([forecaster(x[i : i + 1], calendar(3)[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", MODELS)
def test_no_windows_and_low_precision(name):
    forecaster = model(name).float().eval()
    assert forecaster(window(0).float(), calendar(0).float()).shape == (0, HORIZON, VARIABLES)
    x, marks = window().float(), calendar().float()
    with torch.no_grad():
        expected = forecaster(x, marks)
        with torch.autocast("cpu", torch.bfloat16):
            found = forecaster(x, marks)
    assert (found.float() - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("name", [name for name in MODELS if name not in WITHOUT_FEATURES])
def test_features_are_called_on_their_own(name):
    forecaster, x = model(name).eval(), window()
    features = forecaster.features(x, calendar())
    assert features.shape[0] == 2
    if name == "patchtst_decomposed":  # two models, each with a norm and a head of its own
        assert features.shape == (2, VARIABLES, 2 * TINY["d_model"], 7)
        return
    forecaster = forecaster.model if name.startswith("patchtst") else forecaster
    answer = forecaster.decode(features)
    if hasattr(forecaster, "revin_layer"):
        answer = forecaster.revin_layer.undo(answer.transpose(1, 2), forecaster.revin_layer.normalise(x)[1])
    torch.testing.assert_close(answer, forecaster(x, calendar()))


@pytest.mark.parametrize("name", MODELS)
def test_other_windows_are_refused(name):
    forecaster = model(name)
    with pytest.raises(UserError, match="other windows"):
        forecaster(window(lookback=LOOKBACK + 1))
    with pytest.raises(UserError, match="other windows"):
        forecaster(window()[0])
    with pytest.raises(UserError, match="other windows"):
        forecaster(window().long())
    if forecaster.variables is not None:
        with pytest.raises(UserError, match="other windows"):
            forecaster(window(variables=VARIABLES + 1))
    if forecaster.reads_marks:
        for wrong in (calendar()[:, :-1], calendar()[..., :2], calendar(3)):
            with pytest.raises(UserError, match="calendar features"):
                forecaster(window(), wrong)


@pytest.mark.parametrize("name", MODELS)
def test_an_incomplete_description_is_refused(name):
    build, options = MODELS[name]
    with pytest.raises(UserError, match="needs to know more"):
        build({"lookback": LOOKBACK}, **options)


@pytest.mark.parametrize(
    "name", [name for name, (_, options) in MODELS.items() if "d_state" in options or name in SCANNING]
)
def test_every_mamba_takes_another_scan(name):
    for scan in ("raster", "reverse", "bidirectional", "skip", "mamba_nd"):
        forecaster = model(name, scan=scan).eval()
        assert forecaster(window(), calendar()).isfinite().all()
    with pytest.raises(UserError, match="makes no sense on a 1-D grid"):
        model(name, scan="cross")


@pytest.mark.parametrize("name", [name for name, (_, options) in MODELS.items() if "compat" in options])
def test_compat_is_one_of_two(name):
    with pytest.raises(UserError, match="unknown compat"):
        model(name, compat="original")
