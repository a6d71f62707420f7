import logging

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.audio.files import Held, Sound, find_sounds, mono_at, read_sound, resampled, write_sound


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_every_format_is_read(write, suffix):
    sound = read_sound(write(f"a.{suffix}", 0.5, 16000, 2))
    assert sound.samples.shape == (2, 8000)
    assert sound.samples.dtype == np.float32
    assert sound.rate == 16000


def broken(write, tmp_path, what):
    """A file that cannot be used, by what is wrong with it."""
    path = tmp_path / "bad.wav"
    if what == "no sound":
        path.write_text("hello")
    elif what == "empty file":
        path.touch()
    elif what == "no samples":
        write("bad.wav", samples=np.zeros(0))
    elif what in ("nan", "infinite"):
        write("bad.wav", samples=np.array([0, np.nan if what == "nan" else np.inf, 0]))
    elif what == "only a header":
        path.write_bytes(write("whole.wav").read_bytes()[:30])
    elif what == "cut off":
        path = tmp_path / "bad.flac"
        path.write_bytes(write("whole.flac", 2).read_bytes()[:4000])
    elif what == "a folder":
        path.mkdir()
    elif what == "a picture":
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    return path


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "is not there"), ("no sound", "cannot be read"), ("empty file", "cannot be read"),
        ("no samples", "no samples"), ("nan", "not finite"), ("infinite", "not finite"), ("only a header", "cannot be read"),
        ("cut off", "bad.flac"), ("a folder", "no file"), ("a picture", "cannot be read"),
    ],
)  # fmt: skip
def test_broken_files_are_named(write, tmp_path, what, words):
    path = broken(write, tmp_path, what)
    with pytest.raises(UserError, match=words) as error:
        read_sound(path)
    assert "bad." in str(error.value)


def test_a_clipped_file_is_warned_of(write, caplog):
    path = write("loud.wav", samples=np.ones(100))
    with caplog.at_level(logging.WARNING):
        read_sound(path), read_sound(path)
    assert caplog.text.count("loud.wav is clipped") == 1


def test_what_is_written_is_read_again(tmp_path, caplog):
    samples = np.linspace(-0.5, 0.5, 100, dtype=np.float32)[None].repeat(2, 0)
    for name, subtype in (("a.wav", "FLOAT"), ("a.flac", "PCM_24"), ("b.wav", None)):
        write_sound(tmp_path / name, Sound(samples, 44100, subtype))
        found = read_sound(tmp_path / name)
        assert found.rate == 44100
        assert subtype in (found.subtype, None)
        np.testing.assert_allclose(found.samples, samples, atol=4e-5)
    write_sound(tmp_path / "c.flac", Sound(samples, 8000, "VORBIS"))  # a subtype that FLAC does not have
    with caplog.at_level(logging.WARNING):
        write_sound(tmp_path / "loud.wav", Sound(4 * samples, 8000))
    assert "would clip" in caplog.text
    assert np.abs(read_sound(tmp_path / "loud.wav").samples).max() <= 1


def test_rates_and_lengths():
    tone = np.sin(np.arange(8000) * 0.1).astype(np.float32)
    there = resampled(tone, 8000, 16000)
    assert there.shape == (16000,)
    np.testing.assert_allclose(resampled(there, 16000, 8000, 8000)[200:-200], tone[200:-200], atol=1e-3)
    assert resampled(tone[None], 8000, 44100, 5).shape == (1, 5)
    assert resampled(tone[:3], 8000, 8000, 5).tolist() == [*tone[:3].tolist(), 0, 0]


def test_mono(write):
    assert mono_at(write("a.wav", 1, 44100, 2), 8000).shape == (8000,)


def test_memory_holds_no_more_recordings_than_it_may(write):
    paths = [write(f"{name}.wav", 0.1, 8000, seed=name) for name in range(4)]
    heard = Held(8000, limit=2 * 800 * 4 + 100)
    once = [heard(path) for path in paths]
    for path, signal in zip(paths, once, strict=True):
        np.testing.assert_array_equal(heard(path), signal)
    assert [heard(path) is signal for path, signal in zip(paths, once, strict=True)] == [True, True, False, False]


def test_files_folders_patterns_and_lists(write, tmp_path):
    paths = [write("x/a.wav"), write("x/y/b.FLAC".replace("FLAC", "flac"))]
    assert find_sounds(paths[0]) == paths[:1]
    assert find_sounds(tmp_path / "x") == paths
    assert find_sounds(str(tmp_path / "x" / "**" / "*.flac")) == paths[1:]
    (tmp_path / "list.scp").write_text("one x/a.wav\n\ntwo x/y/b.flac\n")
    assert find_sounds(tmp_path / "list.scp") == paths
    for nothing in ("none", "x/*.mp3"):
        with pytest.raises(UserError, match="no sound is there"):
            find_sounds(tmp_path / nothing)
