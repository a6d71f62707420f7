import io
import sys

import numpy as np
import pytest
import soundfile

FEW = ("data.train_speakers=2", "data.val_speakers=2", "data.test_speakers=2", "data.utterances=1", "data.limit=4")
SMALL = (*FEW, "data.seconds=0.1", "model.depth=1", "model.channels=8")


@pytest.fixture(scope="module")
def noise():
    return 0.1 * np.random.default_rng(0).standard_normal((4000, 2))


def test_the_same_form_comes_out(make_run, command, noise, tmp_path):
    soundfile.write(tmp_path / "mix.flac", noise, 44100, subtype="PCM_24")
    run = make_run("domain=audio", *SMALL)
    code, said, _ = command(f"ckpt={run}", f"input={tmp_path / 'mix.flac'}", "output=apart")
    assert code == 0
    assert "2 channels at 44,100 Hz" in said
    for name in ("mix_s1.flac", "mix_s2.flac"):
        found = soundfile.info(tmp_path / "apart" / name)
        assert (found.frames, found.channels, found.samplerate, found.subtype) == (4000, 2, 44100, "PCM_24")
    assert (tmp_path / "apart" / "mix.png").stat().st_size > 1000
    page = (tmp_path / "apart" / "listen.html").read_text()
    assert page.count("<audio") == 3
    assert 'src="data:audio/flac;base64,' in page


def test_another_format_and_no_extras(make_run, command, noise, tmp_path):
    soundfile.write(tmp_path / "mix.wav", noise, 8000)
    run = make_run("domain=audio", *SMALL)
    arguments = ("format=mp3", "channels=mean", "pictures=false", "page=false", "output=apart")
    assert command(f"ckpt={run}", f"input={tmp_path / 'mix.wav'}", *arguments)[0] == 0
    assert sorted(path.name for path in (tmp_path / "apart").iterdir()) == ["mix_s1.mp3", "mix_s2.mp3"]
    assert soundfile.info(tmp_path / "apart" / "mix_s1.mp3").channels == 1


def test_broken_recordings_are_named_and_the_others_answered(make_run, command, noise, tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "good.wav", noise, 8000)
    (tmp_path / "in" / "bad.wav").write_text("no sound")
    run = make_run("domain=audio", *SMALL)
    code, said, errors = command(f"ckpt={run}", "input=in", "output=apart")
    assert code == 1
    assert "good.wav" in said
    assert "bad.wav cannot be read" in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which recording"), (("input=none.wav",), "no sound is there"), (("input=empty",), "no sound is there"),
        (("input=bad.wav",), "none of the recordings"), (("input=bad.wav", "format=doc"), "unknown format"),
        (("input=bad.wav", "channels=left"), "channels"), (("input=bad.wav", "seconds=0"), "seconds"),
        (("input=bad.wav", "overlap=1"), "overlap"), (("stream=true",), "causal"), (("inptu=bad.wav",), "input"),
        (("input=bad.wav", "block=-1"), "block"), (("input=bad.wav", "top=0"), "top"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_written(make_run, command, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.wav").write_text("no sound")
    code, _, errors = command(f"ckpt={make_run('domain=audio', *SMALL)}", *arguments, "output=apart")
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "apart").exists()


def broken(folder, what):
    """A recording that cannot be used; its path."""
    path, sound = folder / "bad.wav", 0.1 * np.ones(800, np.float32)
    soundfile.write(path, sound, 8000, subtype="FLOAT")
    if what == "missing":
        path.unlink()
    elif what == "a folder of none":
        path.unlink()
        path.mkdir()
    elif what == "text":
        path.write_text("hello")
    elif what == "empty file":
        path.write_bytes(b"")
    elif what == "only a header":
        path.write_bytes(path.read_bytes()[:30])
    elif what == "a picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    elif what == "no samples":
        soundfile.write(path, sound[:0], 8000)
    elif what in ("nan", "infinite"):
        sound[7] = np.nan if what == "nan" else np.inf
        soundfile.write(path, sound, 8000, subtype="FLOAT")
    elif what == "cut off":
        path = folder / "bad.flac"
        soundfile.write(path, np.random.default_rng(0).standard_normal(9000) * 0.1, 8000)
        path.write_bytes(path.read_bytes()[:4000])
    elif what == "a list of nothing":
        path = folder / "bad.txt"
        path.write_text("\n\n")
    elif what == "a list of what is not there":
        path = folder / "bad.scp"
        path.write_text("one gone.wav\n")
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "no sound is there"), ("a folder of none", "no sound is there"), ("text", "bad.wav cannot be read"),
        ("empty file", "bad.wav cannot be read"), ("only a header", "bad.wav cannot be read"),
        ("a picture", "bad.wav cannot be read"), ("no samples", "bad.wav holds no samples"), ("nan", "bad.wav holds numbers"),
        ("infinite", "bad.wav holds numbers"), ("cut off", "bad.flac"), ("a list of nothing", "no sound is there"),
        ("a list of what is not there", "gone.wav is not there"),
    ],
)  # fmt: skip
def test_broken_recordings_are_named_and_nothing_is_written(make_run, command, tmp_path, what, words):
    path = broken(tmp_path, what)
    code, _, errors = command(f"ckpt={make_run('domain=audio', *SMALL)}", f"input={path}", "output=apart")
    assert code == 2
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "apart").exists()


@pytest.mark.parametrize("block", ["10", "100", "37.3"])
def test_a_stream_says_what_the_file_says(make_run, command, noise, block, monkeypatch):
    run = make_run("domain=audio", "scan=raster", *SMALL)
    given = (noise[:, 0] * 32768).astype("<i2")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.tobytes())))
    output = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(output, write_through=True))
    code, _, errors = command(f"ckpt={run}", "stream=true", f"block={block}")
    assert code == 0
    assert "latency 8.0 ms of the model" in errors
    found = np.frombuffer(output.getvalue(), "<i2")
    assert len(found) == 2 * len(given)
