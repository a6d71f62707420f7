import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torchmetrics.functional.audio import permutation_invariant_training as pit
from torchmetrics.functional.audio import scale_invariant_signal_noise_ratio

from polymamba.core.errors import UserError
from polymamba.domains.audio import published
from polymamba.domains.audio.models.aum import AuM
from polymamba.domains.audio.models.dpmamba import DPMamba
from polymamba.domains.audio.models.semamba import SEMamba
from polymamba.domains.audio.models.spmamba import SPMamba
from polymamba.domains.audio.models.tasnet import MambaTasNet

MODELS = {
    "mamba_tasnet": lambda: MambaTasNet(3, 8, 2, 16, d_state=4),
    "dpmamba": lambda: DPMamba(2, 8, 2, 16, d_state=4),
    "spmamba": lambda: SPMamba(2, 1, 4, 2, 32, heads=2, attention=20, d_state=4, expand=2),
    "semamba": lambda: SEMamba(4, 2, 32, d_state=4, expand=2),
    "aum": lambda: AuM(5, 64, 128, 16, 16, 2, parameters="decay"),
    "aum_strips": lambda: AuM(5, 64, 128, 128, 16, 2, parameters="decay", patch_frames=2),
}


def publish(folder, name, model):
    """Writes a model's weights as its authors do; where."""
    state = model.state_dict()
    if name in ("mamba_tasnet", "dpmamba"):
        folder.mkdir()
        for part in published.PARTS:
            own = {key.removeprefix(f"{part}."): value for key, value in state.items() if key.startswith(f"{part}.")}
            torch.save(own, folder / f"{part}.ckpt")
        return folder
    wrapped = {
        "spmamba": {"state_dict": {f"audio_model.{key}": value for key, value in state.items()}, "model_name": "x"},
        "semamba": {"generator": state}, "aum": {f"module.{key}": value for key, value in state.items()},
    }[name.removesuffix("_strips")]  # fmt: skip
    torch.save(wrapped, folder.with_suffix(".pth"))
    return folder.with_suffix(".pth")


@pytest.fixture(params=MODELS)
def saved(request, tmp_path):
    torch.manual_seed(0)
    model = MODELS[request.param]().eval()
    return request.param, model, str(publish(tmp_path / "weights", request.param, model))


@torch.no_grad()
def test_what_is_published_says_the_same(saved):
    name, model, where = saved
    assert published.is_published(where)
    run = published.load(where)
    given = torch.randn(1, 64, 128) if isinstance(model, AuM) else torch.randn(1, 400)
    assert torch.equal(run.model(given), model(given))
    other = MODELS[name]()
    other.load_state_dict(published.read_weights(where, other))
    assert torch.equal(other.eval()(given), model(given))


def test_another_models_weights(saved):
    with pytest.raises(UserError, match="another model"):
        published.read_weights(saved[2], torch.nn.Linear(1, 1))


def test_ssamba_begins_an_aum_of_other_sounds(tmp_path):
    model = AuM(5, 64, 128, 16, 16, 2)
    state = {
        f"module.v.{name}".replace("pos_embed.pos_embed", "pos_embed"): each
        for name, each in model.state_dict().items()
    }
    torch.save(state | {"module.mask_embed": torch.zeros(1, 1, 16)}, tmp_path / "ssamba.pth")
    longer = AuM(7, 96, 128, 16, 16, 2)
    weights = published.read_weights(tmp_path / "ssamba.pth", longer)
    longer.load_state_dict(weights)
    assert torch.equal(longer.layers[1].mixer.A_log, model.layers[1].mixer.A_log)
    assert longer.pos_embed.pos_embed.shape == (1, 1 + 8 * 6, 16)


@pytest.mark.parametrize(
    ("mels", "own", "patch", "frames"), [(128, 64, 16, 16), (128, 128, 16, 16), (64, 64, 8, 8), (64, 64, 64, 2)]
)
def test_positions_keep_their_mels_when_sounds_are_longer(tmp_path, mels, own, patch, frames):
    """Positions that name their height, from 0 to 1, still do so in a model of longer sounds."""
    model = AuM(5, 8 * frames, mels, patch, 8, 1, patch_frames=frames)
    rows = torch.linspace(0, 1, mels // patch)[:, None].expand(-1, 8)
    model.pos_embed.pos_embed.data[:, 1:] = rows.reshape(1, -1, 1)
    torch.save(model.state_dict(), tmp_path / "aum.pth")
    longer = AuM(5, 12 * frames, own, patch, 8, 1, patch_frames=frames)
    found = published.read_weights(tmp_path / "aum.pth", longer)["pos_embed.pos_embed"][0, 1:].unflatten(0, (-1, 12))
    torch.testing.assert_close(found, found[:, :1].expand_as(found))
    if mels == own:
        torch.testing.assert_close(found[:, 0, 0], rows[:, 0])


@pytest.mark.parametrize(("classes", "mean"), [(527, -4.2677393), (309, -5.0767093), (35, -6.845978), (7, -4.2677393)])
def test_an_aum_hears_as_in_its_training(tmp_path, classes, mean):
    where = publish(tmp_path / "weights", "aum", AuM(classes, 64, 128, 16, 16, 1, parameters="decay"))
    run = published.load(str(where))
    front = run.model.front
    assert (front.rate, front.frames, front.mean) == (16000, 64, mean)
    assert run.model(torch.randn(2, 9000)).shape == (2, classes)


def test_what_is_none(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    (tmp_path / "y.pth").write_text("hello pos_embed.pos_embed")
    assert not published.is_published(str(tmp_path / "x.safetensors"))
    assert not published.is_published(str(tmp_path))
    with pytest.raises(UserError, match="no model of sound"):
        published.load(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="cannot read"):
        published.load(tmp_path / "y.pth")


def test_a_published_separator_answers(tmp_path, command):
    where = publish(tmp_path / "weights", "mamba_tasnet", MODELS["mamba_tasnet"]())
    soundfile.write(tmp_path / "mix.wav", 0.1 * np.random.default_rng(0).standard_normal(900), 8000)
    code, said, _ = command(f"ckpt={where}", f"input={tmp_path / 'mix.wav'}", "output=apart")
    assert code == 0
    assert "8,000 Hz" in said
    assert len(list((tmp_path / "apart").glob("mix_s*.wav"))) == 3


def test_a_published_separator_is_tested(tmp_path, command):
    """eval.py on a folder of mixtures for test alone, of the rate that the model knows: the improvement found by hand."""
    where = publish(tmp_path / "weights", "mamba_tasnet", MODELS["mamba_tasnet"]())
    names, random, gained = ("s1", "s2", "s3"), np.random.default_rng(0), []
    run = published.load(where)
    for number in range(3):
        sources = 0.1 * random.standard_normal((3, 1600))
        for name, signal in zip(("mix", *names), (sources.sum(0), *sources), strict=True):
            (tmp_path / "mixed" / "tt" / name).mkdir(parents=True, exist_ok=True)
            soundfile.write(tmp_path / "mixed" / "tt" / name / f"{number}.wav", signal, 8000, "FLOAT")
        mixture, truth = (
            torch.tensor(sources.sum(0), dtype=torch.float32)[None],
            torch.tensor(sources, dtype=torch.float32)[None],
        )
        with torch.no_grad():
            found, _ = pit(run.model(mixture), truth, scale_invariant_signal_noise_ratio)
        gained.append(found - scale_invariant_signal_noise_ratio(mixture[:, None].expand_as(truth), truth).mean())
    typed = (
        f"ckpt={where}",
        "data=wham_layout",
        "data.root=mixed",
        "data.mixture=mix",
        "data.seconds=0.2",
        "trainer.threads=1",
    )
    code, _, message = command(*typed, "data.sources=3", job="evaluate")
    assert (code, message) == (0, "")
    [kept] = json.loads(next((tmp_path / "runs/audio/published").rglob("metrics.json")).read_text()).values()
    assert kept["samples"] == 3
    assert kept["metrics"]["test/si_snr_improvement"] == pytest.approx(torch.stack(gained).mean().item(), abs=1e-3)
    code, _, message = command(*typed, "data.sources=2", job="evaluate")
    assert code == 2
    assert "sources" in message
    code, _, message = command("data=wham_layout", *typed[2:4], "data.sources=3", "domain=audio", job="train")
    assert code == 2
    assert "nothing to train on" in message
