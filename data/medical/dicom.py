"""A DICOM series, a folder of slices, as a volume: slices in order, in the numbers of the modality (CT: Hounsfield units)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError

ENDINGS = (".dcm", ".ima")
MAGIC, AT = b"DICM", 128  # what a DICOM file has after its preamble
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # from DICOM's axes (left, back, up) to NIfTI's (right, front, up)
UNEVEN = 0.02  # of the distance between slices: more than that is a missing slice


def is_slice(path: Path) -> bool:
    """Whether a file is of a DICOM series, by its ending or its first bytes."""
    if path.name.startswith(".") or not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in ENDINGS:
        return True
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    with path.open("rb") as stream:
        return stream.read(AT + len(MAGIC))[AT:] == MAGIC


def is_series(folder: Path) -> bool:
    """Whether a folder holds slices."""
    return folder.is_dir() and not folder.name.startswith(".") and any(map(is_slice, folder.iterdir()))


def read_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a folder, (columns, rows, slices), and its affine in mm as NIfTI has it, (4, 4).

    Raises:
        UserError: naming the file that is damaged, of another series, of other sizes or orientation, or missing before another.
    """
    slices = [_read(path) for path in sorted(filter(is_slice, folder.iterdir()))]
    if not slices:
        raise UserError(f"{folder} holds no DICOM slices", allowed=f"files that end in {', '.join(ENDINGS)}")
    first_path, first = slices[0]
    for path, each in slices[1:]:
        for what, name in (
            ("series", "SeriesInstanceUID"), ("number of rows", "Rows"), ("number of columns", "Columns"),
            ("orientation", "ImageOrientationPatient"), ("spacing", "PixelSpacing"),
        ):  # fmt: skip
            one, other = (_plain(found.get(name)) for found in (first, each))
            if one != other and not (isinstance(one, list) and np.allclose(one, other, atol=1e-4)):
                raise UserError(
                    f"{path} is of another {what} than {first_path}", given=other, allowed=one, do="a folder for each series"
                )  # fmt: skip
    across, down = (np.array(first.ImageOrientationPatient, float).reshape(2, 3)[number] for number in (0, 1))
    normal = np.cross(across, down)
    slices.sort(key=lambda each: float(normal @ np.array(each[1].ImagePositionPatient, float)))
    origins = np.array([each.ImagePositionPatient for _, each in slices], float)
    affine = np.eye(4)
    rows, columns = map(float, first.PixelSpacing)  # between rows, between columns
    affine[:3, 0], affine[:3, 1] = across * columns, down * rows
    affine[:3, 2], affine[:3, 3] = _step(slices, origins @ normal, origins, normal), origins[0]
    return np.stack([_values(path, each).T for path, each in slices], -1), FLIP @ affine


def _read(path: Path) -> tuple[Path, Any]:
    try:
        import pydicom
    except ImportError as error:
        raise UserError(
            "reading DICOM needs pydicom, which is not installed", do='pip install "polymamba[medical]"'
        ) from error
    try:
        found = pydicom.dcmread(path)
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
            if name not in found:
                raise ValueError(f"no {name}")
        return path, found
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged or no slice of a volume: {error}", do="copy it anew, or take it out"
        ) from error


def _values(path: Path, found: Any) -> np.ndarray:
    """(rows, columns), int16 where slope and intercept are whole, else float32."""
    try:
        values = found.pixel_array
    except Exception as error:  # pydicom's decoders raise whatever they please
        raise UserError(
            f"{path} cannot be decoded: {error}", do="copy it anew, or save it without compression"
        ) from error
    if values.ndim != 2:
        raise UserError(f"{path} has {values.ndim} axes", allowed="2: rows and columns of one slice")
    slope, intercept = float(found.get("RescaleSlope", 1)), float(found.get("RescaleIntercept", 0))
    if slope == 1 and intercept == round(intercept):
        whole = values.astype(np.int32) + round(intercept)
        small = np.iinfo(np.int16)
        return whole.astype(np.int16) if small.min <= whole.min() and whole.max() <= small.max else whole
    return values.astype(np.float32) * slope + intercept


def _step(
    slices: Sequence[tuple[Path, Any]], heights: np.ndarray, origins: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """From a slice to the next in mm, (3,)."""
    if len(slices) == 1:
        found = slices[0][1]
        return normal * float(found.get("SpacingBetweenSlices") or found.get("SliceThickness") or 1.0)
    steps = np.diff(heights)
    usual = float(np.median(steps))
    for number, step in enumerate(steps):
        if step < 1e-3:
            raise UserError(
                f"{slices[number + 1][0]} lies where {slices[number][0]} lies", do="a folder for each series, each slice once"
            )  # fmt: skip
        if abs(step - usual) > UNEVEN * usual:
            raise UserError(
                f"a slice is missing before {slices[number + 1][0]}", given=f"{step:g} mm from {slices[number][0].name}",
                allowed=f"{usual:g} mm as between the others", do="copy the whole series",
            )  # fmt: skip
    return (origins[-1] - origins[0]) / (len(slices) - 1)


def _plain(value: Any) -> Any:
    """A DICOM value as numbers or text."""
    if value is None or isinstance(value, str | int | float):
        return str(value) if isinstance(value, str) else value
    return [float(each) for each in value]
