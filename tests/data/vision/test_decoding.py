"""Image files of every kind that people have: read right, or refused by name."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from polymamba.core.errors import UserError
from polymamba.data.vision import ImageFolder
from polymamba.data.vision.augmentation import Augmentation
from polymamba.data.vision.decoding import open_image

RAMP = np.linspace(0, 255, 16).astype(np.uint8)[None].repeat(4, 0)
COLOURS = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)], -1)
RED = Image.new("RGB", (16, 4), "red")


def read(path):
    return np.asarray(open_image(path)).astype(int)


def grey(values):
    return np.stack([values] * 3, -1).astype(int)


@pytest.mark.parametrize("scale", [256, 257])
@pytest.mark.parametrize("suffix", ["png", "tif", "PNG"])
def test_sixteen_bits(tmp_path, suffix, scale):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * scale).save(path)
    assert (read(path) == grey(RAMP)).all()


def test_sixteen_bits_of_other_formats(tmp_path):
    deep = RAMP.astype(np.uint16) * 257
    (tmp_path / "a.pgm").write_bytes(b"P5 16 4 65535\n" + deep.astype(">u2").tobytes())
    big_endian = Image.frombytes("I;16B", (16, 4), deep.astype(">u2").tobytes())
    big_endian.save(tmp_path / "big.tif")
    for name in ("a.pgm", "big.tif"):
        assert (read(tmp_path / name) == grey(RAMP)).all(), name


def test_white_is_zero(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path, tiffinfo={262: 0})
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0
    assert (read(path) == grey(255 - RAMP)).all()


def test_floating_point(tmp_path):
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "unit.tif")
    assert (read(tmp_path / "unit.tif") == grey(RAMP)).all()
    wrong = {"bytes": RAMP.astype(np.float32), "signed": RAMP / 255 - 0.5, "nan": np.full((4, 16), np.nan)}
    for name, values in wrong.items():
        Image.fromarray(values.astype(np.float32)).save(tmp_path / f"{name}.tif")
        with pytest.raises(UserError, match=rf"floating point numbers beyond 0 to 1: .*{name}\.tif"):
            open_image(tmp_path / f"{name}.tif")


def test_whole_numbers_without_a_range_are_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"nothing tells the range: .*a\.tif"):
        open_image(tmp_path / "a.tif")


def test_one_bit(tmp_path):
    Image.fromarray(RAMP > 127).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == grey(255 * (RAMP > 127))).all()


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("RGBA", "tif"), ("RGBA", "webp"), ("LA", "png")])
def test_what_is_transparent_lies_on_white(tmp_path, mode, suffix):
    colours = np.zeros((4, 16, 4), np.uint8)
    colours[..., 0], colours[..., 3] = 200, RAMP
    image = Image.fromarray(colours).convert(mode)
    image.save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    own = np.asarray(image.convert("RGBA"))[..., :3].astype(float)
    alpha = RAMP[..., None] / 255
    assert np.abs(read(tmp_path / f"a.{suffix}") - (alpha * own + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_colour_lies_on_white(tmp_path, suffix):
    Image.fromarray(RAMP).convert("P").save(tmp_path / f"a.{suffix}", transparency=0)
    assert (read(tmp_path / f"a.{suffix}") == grey(np.where(RAMP == 0, 255, RAMP))).all()
    if suffix == "png":
        Image.fromarray(grey(RAMP).astype(np.uint8)).save(tmp_path / "rgb.png", transparency=(0, 0, 0))
        assert (read(tmp_path / "rgb.png") == grey(np.where(RAMP == 0, 255, RAMP))).all()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_print_colours(tmp_path, suffix):
    Image.fromarray(grey(RAMP).astype(np.uint8)).convert("CMYK").save(tmp_path / f"a.{suffix}")
    assert np.abs(read(tmp_path / f"a.{suffix}") - grey(RAMP)).max() <= 3


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_picture_of_an_animation(tmp_path, suffix):
    first = Image.fromarray(grey(RAMP).astype(np.uint8))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[RED, RED])
    assert np.abs(read(tmp_path / f"a.{suffix}") - grey(RAMP)).max() <= 8


@pytest.mark.parametrize(
    ("suffix", "deep"), [("png", False), ("png", True), ("tif", False), ("tif", True), ("webp", False), ("JPG", False)]
)
@pytest.mark.parametrize("way", range(1, 9))
def test_images_are_turned_as_their_data_say(tmp_path, suffix, way, deep):
    values = RAMP.astype(np.uint16) * 257 if deep else COLOURS
    exif = Image.Exif()
    exif[0x112] = way
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(values).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    shown = grey(RAMP) if deep else COLOURS.astype(int)
    # of the stored rows and columns, the EXIF standard says where the first ones belong
    upright = {
        1: shown, 2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1],
        5: shown.transpose(1, 0, 2), 6: np.rot90(shown, -1), 7: shown[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(shown),
    }[way]  # fmt: skip
    found = read(path)
    assert found.shape == upright.shape
    assert np.abs(found - upright).max() <= (40 if suffix == "JPG" else 0)


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "webp", "tif", "ppm"])
@pytest.mark.parametrize("left", [0, 1, 20, 0.5, 0.9])
def test_what_is_cut_off_is_named(tmp_path, suffix, left):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: left if isinstance(left, int) else int(left * len(content))])
    with pytest.raises(UserError, match=rf"Broken image: .*a\.{suffix}"):
        open_image(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\0" * 4096, b"GIF89a", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UserError, match=r"Broken image: .*a\.png"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_huge_image_is_named(tmp_path, side):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(UserError, match=r"Too large an image: .*a\.png") as caught:
        open_image(tmp_path / "a.png")
    assert str(side**2) in caught.value.given


def test_grey_and_colour_stand_beside_each_other(tmp_path):
    for name, colour in (("dark", 40), ("light", 200)):
        (tmp_path / name).mkdir()
        for i in range(8):
            mode, value = ("L", colour) if i % 2 else ("RGB", (colour,) * 3)
            Image.new(mode, (9, 9), value).save(tmp_path / name / f"{i}.png")
    for channels in (1, 3):
        data = ImageFolder(
            str(tmp_path), image_size=8, channels=channels, augmentation=Augmentation("none"), val_fraction=0.3
        )
        images, labels = next(iter(data.test_dataloader()))
        told = data.describe()
        mean, std = (torch.tensor(told.for_model[each]).view(-1, 1, 1) for each in ("mean", "std"))
        for image, label in zip(images, labels, strict=True):
            assert ((image * std + mean) * 255 - (40, 200)[label]).abs().max() < 0.01
