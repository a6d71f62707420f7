"""Image files in, label files out: NIfTI volumes and DICOM series with their own affine and sizes, and PNG or TIFF images."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from gzip import BadGzipFile
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from .dicom import is_series, read_series
from .plan import Plan, resampled

VOLUMES = (".nii", ".nii.gz")
LUMA = (0.299, 0.587, 0.114)
LOSSY = (".jpg", ".jpeg")
IMAGES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class Raw:
    """A file's content.

    Args:
        values: (channels, *sizes), the axes of a volume turned so that they run to the right, to the front and up.
        spacing: mm along each of these axes; () of an image.
        affine, header: of a volume as in the file. turned: how its axes were turned (nibabel's orientation); None: an image.
    """

    path: Path
    values: np.ndarray
    spacing: tuple[float, ...] = ()
    affine: np.ndarray | None = None
    header: Any = None
    turned: np.ndarray | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.values.shape[1:]

    @property
    def voxel(self) -> float:
        """Volume of a voxel in ml; 0 of an image."""
        return float(np.prod(self.spacing)) / 1000 if self.spacing else 0.0


class Volumes:
    """Prepares files as the training volumes were prepared, and writes what was found in them.

    Args:
        plan: of the trained model.
    """

    def __init__(self, plan: Plan):
        self.plan = plan

    def find(self, where: str) -> list[Path]:
        """The files that `input=` means: a file or a DICOM series, or those of a folder, ordered by name.

        Raises:
            UserError: there are none.
        """
        path = Path(where).expanduser()
        found = (
            [path]
            if path.is_file() or is_series(path)
            else sorted(each for each in path.iterdir() if is_volume(each))
            if path.is_dir()
            else []
        )
        if not found or not is_volume(found[0]):
            raise UserError(
                "there are no images here", given=f"input={where}",
                allowed=f"files that end in {', '.join(VOLUMES + IMAGES)}, or folders of DICOM slices",
            )  # fmt: skip
        return found

    def open(self, path: Path) -> Raw:
        """A file's content; `prepare` makes of it what the model takes.

        Raises:
            UserError: it cannot be read, or has another number of axes or channels than the model was trained with.
        """
        raw = in_channels(read_raw(path), self.plan.channels)
        axes, channels = len(raw.sizes), len(raw.values)
        if axes != self.plan.axes or channels != self.plan.channels:
            raise UserError(
                f"{path} does not fit the model", given=f"{axes} axes, {channels} channels",
                allowed=f"{self.plan.axes} axes, {self.plan.channels} channels",
            )  # fmt: skip
        return raw

    def prepare(self, raw: Raw) -> Prepared:
        """Its values as the model takes them, of the plan's spacing, read a few planes at a time.

        Raises:
            UserError: they are not all finite.
        """
        if not np.isfinite(sum(raw.values[:, at].sum(dtype=np.float64) for at in range(raw.sizes[0]))):
            raise UserError(f"{raw.path} has values that are not finite (NaN or infinity)", do="mend it or take it out")
        return Prepared(raw, self.plan)

    @property
    def largest(self) -> tuple[str, ...] | None:
        """The classes of which the largest part alone is kept; None: that was not decided."""
        return self.plan.largest

    def write(self, raw: Raw, classes: np.ndarray, target: Path) -> Path:
        """Writes classes, uint8 (*sizes) on the grid of `raw.values`, as the labels that stand for them.

        A volume has the affine, sizes and orientation of the file that was read.
        """
        values = np.array(self.plan.values)
        labels = values.astype(np.uint8 if values.max() < 256 and values.min() >= 0 else np.int16)[classes]
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".part.{target.name}")
        if raw.turned is None:
            from PIL import Image

            Image.fromarray(labels).save(part)
        else:
            import nibabel
            from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform

            back = ornt_transform(axcodes2ornt("RAS"), raw.turned)
            header = nibabel.Nifti1Header() if raw.header is None else raw.header.copy()
            header.set_data_dtype(labels.dtype)
            header.set_slope_inter(1, 0)
            nibabel.save(nibabel.Nifti1Image(apply_orientation(labels, back), raw.affine, header), part)
        os.replace(part, target)
        return target

    def target(self, raw: Raw, folder: Path) -> Path:
        """Where the labels of a file go: in a folder, under the file's own name; those of an image as PNG, of a series as NIfTI."""
        if raw.turned is None:
            return folder / f"{raw.path.stem}.png"
        return folder / (f"{raw.path.name}.nii.gz" if raw.header is None else raw.path.name)


class Prepared:
    """A file's values on the plan's grid, as `prepared` makes them, of which memory holds the planes that are asked for.

    Attributes:
        sizes: of the grid.
    """

    def __init__(self, raw: Raw, plan: Plan):
        self.raw, self.plan, self.moments = raw, plan, plan.moments(raw.values)
        self.sizes = plan.sizes_for(raw.sizes, raw.spacing)

    def read(self, first: int, last: int) -> np.ndarray:
        """Planes first to last - 1 along the first axis, float32 (channels, last - first, *sizes[1:])."""
        count = self.raw.sizes[0]
        places = np.maximum((np.arange(first, last) + 0.5) * count / self.sizes[0] - 0.5, 0.0)
        low = places.astype(int).clip(max=count - 1)
        high = np.minimum(low + 1, count - 1)
        if first >= last:
            return np.zeros((len(self.raw.values), 0, *self.sizes[1:]), np.float32)
        near = self.plan.normalised(self.raw.values[:, low[0] : high[-1] + 1], self.moments)
        near = resampled(near, (near.shape[1], *self.sizes[1:]))
        share = (places - low).astype(np.float32).reshape(-1, *(1,) * (len(self.sizes) - 1))
        return near[:, low - low[0]] * (1 - share) + near[:, high - low[0]] * share


def stem(path: Path) -> str:
    """A file's name without .nii.gz and the like; a folder's name."""
    if path.is_dir():
        return path.name
    return path.name[: -len(".nii.gz")] if path.name.endswith(".nii.gz") else path.stem


def is_volume(path: Path) -> bool:
    """Whether a file's name says that it is an image or a volume, or a folder is a DICOM series."""
    if path.is_file():
        return not path.name.startswith(".") and path.name.lower().endswith(VOLUMES + IMAGES)
    return is_series(path)


def prepared(raw: Raw, plan: Plan) -> np.ndarray:
    """A file's values as the model takes them: float32 (channels, *sizes)."""
    return resampled(plan.normalised(raw.values), plan.sizes_for(raw.sizes, raw.spacing))


def in_channels(raw: Raw, channels: int) -> Raw:
    """An image in colours as grey values, or grey values as colours, where 1 or 3 channels are wanted; all else as it is."""
    found = len(raw.values)
    if len(raw.sizes) != 2 or {found, channels} != {1, 3}:
        return raw
    if channels == 3:
        return replace(raw, values=np.repeat(raw.values, 3, 0))
    return replace(raw, values=np.tensordot(LUMA, raw.values.astype(np.float32), 1)[None])


def read_raw(path: Path, labels: bool = False) -> Raw:
    """A file's content; labels: of an image with a palette the numbers themselves, not the grey of its colours.

    Raises:
        UserError: naming the file, where it is missing, damaged or not an image.
    """
    if not path.exists():
        raise UserError(f"{path} is not there")
    if path.is_dir():
        return _upright(path, *read_series(path), None)
    return _volume(path) if path.name.lower().endswith(VOLUMES) else _image(path, labels)


def _volume(path: Path) -> Raw:
    import nibabel

    try:
        file = nibabel.load(path)
        values = file.dataobj
        # numbers that are scaled would be float64
        plain = (values.slope, values.inter) == (1, 0) and values.dtype.kind in "iub"
        values = np.asarray(values) if plain else np.asarray(values, dtype=np.float32)
    except (OSError, EOFError, BadGzipFile, zlib.error, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        raise UserError(
            f"{path} is damaged or not a NIfTI volume: {str(error).splitlines()[0]}", do="copy it anew, or take it out"
        ) from error
    if values.ndim not in (3, 4):
        raise UserError(f"{path} has {values.ndim} axes", allowed="3, or 4 with the channels last")
    return _upright(path, values, file.affine, file.header)


def _upright(path: Path, values: np.ndarray, affine: np.ndarray, header: Any) -> Raw:
    """A volume (x, y, z[, channels]) with its axes turned so that they run to the right, to the front and up."""
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(
            f"{path} has an affine that turns volumes into nothing", do="write it anew with a proper affine"
        )
    turned = io_orientation(affine)
    values = apply_orientation(values, ornt_transform(turned, axcodes2ornt("RAS")))
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    along = [0.0] * 3
    for axis, (place, _) in enumerate(turned):
        along[int(place)] = float(lengths[axis])
    values = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    return Raw(path, values, tuple(along), affine, header, turned)


def _image(path: Path, labels: bool) -> Raw:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as file:
            pages = getattr(file, "n_frames", 1)
            grey = file.mode in ("1", "LA") or (file.mode == "P" and not labels)
            values = np.asarray(file.convert("L") if grey else file)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise UserError(f"{path} is damaged or not an image", do="copy it anew, or take it out") from error
    if pages > 1:
        raise UserError(f"{path} has {pages} pages", do="save each page as a file of its own, or all as a NIfTI volume")
    return Raw(path, values[None] if values.ndim == 2 else np.moveaxis(values[..., :3], -1, 0))


def same_grid(one: Raw, other: Raw, tolerance: float = 1e-3) -> str | None:
    """What differs between the grids of two files, in words; None: nothing."""
    if one.sizes != other.sizes:
        return f"{_times(one.sizes)} and {_times(other.sizes)} voxels"
    if one.affine is None or other.affine is None:
        return None
    if not np.allclose(one.spacing, other.spacing, atol=tolerance):
        return f"spacing {_times(one.spacing)} and {_times(other.spacing)} mm"
    if not np.allclose(one.affine, other.affine, atol=tolerance * max(1.0, float(np.abs(one.affine).max()))):
        return "another origin or orientation (affine)"
    return None


def _times(numbers: Sequence[float]) -> str:
    return "×".join(f"{number:g}" for number in numbers)
