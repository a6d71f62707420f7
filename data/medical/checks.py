"""Whether images and labels are what they should be, before a network is trained on them: every fault with its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...core.errors import UserError
from .volumes import LOSSY, Raw, is_volume, read_raw, same_grid, stem

SHOWN = 12  # faults that are named; of more there is a count
SAMPLED = 2000  # voxels of the foreground of each volume that intensities are taken from


@dataclass(frozen=True)
class Files:
    """name: of the case. images: a file a channel. labels: their file."""

    name: str
    images: tuple[Path, ...]
    labels: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (*self.images, self.labels)

    def read(self) -> tuple[Raw, np.ndarray]:
        """The image with all its channels and the labels, int32 (*sizes), of files that are right."""
        channels, answer = self.raw()
        return together(channels), answer.values[0].astype(np.int32)

    def raw(self) -> tuple[list[Raw], Raw]:
        """The image, a channel each, and the labels, as they are in the files."""
        return [read_raw(path) for path in self.images], read_raw(self.labels, True)


@dataclass(frozen=True)
class Checked:
    """What is known of a case whose files were read and found right.

    Args:
        files: its files. channels, sizes, spacing: of its image. values: whole numbers that its labels have.
        inside: some intensities of the voxels that are not background, of all channels, float64.
    """

    files: Files
    channels: int
    sizes: tuple[int, ...]
    spacing: tuple[float, ...]
    values: np.ndarray
    inside: np.ndarray

    @property
    def name(self) -> str:
        """Of the case."""
        return self.files.name

    @property
    def axes(self) -> int:
        """2 or 3."""
        return len(self.sizes)


def found_pairs(images: Path, labels: Path) -> list[Files]:
    """The cases of two folders, by name: an image NAME.nii.gz, or NAME_0000.nii.gz and so on a channel, and labels NAME.nii.gz.

    Raises:
        UserError: naming the files that have no partner.
    """
    if not labels.is_dir():
        raise UserError(f"{labels} is not there", do=f"put the labels of {images} into it")
    of_images: dict[str, list[Path]] = {}
    answers, faults = {}, []
    for path in sorted(each for each in labels.iterdir() if is_volume(each)):
        if stem(path) in answers:
            faults.append(f"{path} and {answers[stem(path)]} are both the labels of {stem(path)}")
        answers[stem(path)] = path
    for path in sorted(each for each in images.iterdir() if is_volume(each)):
        name, end = stem(path), stem(path)[-5:]
        numbered = end[0] == "_" and end[1:].isdigit() if len(end) == 5 else False
        # a name may end like that itself: then its labels do too
        channels = of_images.setdefault(name[:-5] if numbered and name not in answers else name, [])
        if any(stem(each) == name for each in channels):
            faults.append(f"{path} and {channels[-1]} are both the image of {name}")
        channels.append(path)
    faults += [f"{paths[0]} has no labels in {labels}" for name, paths in of_images.items() if name not in answers]
    faults += [f"{path} has no image in {images}" for name, path in answers.items() if name not in of_images]
    counts = [len(paths) for paths in of_images.values()]
    usual = max(set(counts), key=counts.count) if counts else 0
    faults += [
        f"{path} is a JPEG, which changes labels: save them as PNG"
        for path in answers.values()
        if path.name.lower().endswith(LOSSY)
    ]
    faults += [
        f"{paths[0]} has {len(paths)} channels, the others have {usual}"
        for paths in of_images.values() if len(paths) != usual
    ]  # fmt: skip
    if not of_images and not answers:
        faults = [f"{images} has no images"]
    raise_faults(faults, "add the missing files, or take their partners out")
    return [Files(name, tuple(of_images[name]), answers[name]) for name in sorted(of_images)]


def check_pairs(
    parts: Mapping[str, Sequence[Files]], known: set[int] | None, allow_empty: bool = False
) -> dict[str, list[Checked]]:
    """Reads and checks all cases, one after the other; memory holds one at a time.

    Args:
        parts: the cases of each part. known: values that labels may have; None: any whole numbers from 0.
        allow_empty: labels may be all background.

    Raises:
        UserError: naming the files that are damaged, not of one grid, not finite, empty or hold unknown values.
    """
    faults, found = [], {part: [] for part in parts}
    for part, cases in parts.items():
        for files in cases:
            try:
                case, wrong = check_pair(files, known, allow_empty)
            except UserError as error:
                wrong, case = [error.problem], None
            faults += wrong
            if case is not None:
                found[part].append(case)
    cases = [case for each in found.values() for case in each]
    for case in cases[1:]:
        for what, one, other in (
            ("axes", case.axes, cases[0].axes), ("channels", case.channels, cases[0].channels),
        ):  # fmt: skip
            if one != other:
                faults.append(f"{case.files.images[0]} has {one} {what}, {cases[0].files.images[0]} has {other}")
    raise_faults(faults, "mend these files or take them out, each with its partner")
    return found


def check_pair(files: Files, known: set[int] | None, allow_empty: bool) -> tuple[Checked | None, list[str]]:
    """What is known of a case; None, and what is wrong with it, in words that name the file."""
    channels, answer = files.raw()
    first, faults = channels[0], []
    for other in (*channels[1:], answer):
        difference = same_grid(first, other)
        if difference is not None:
            faults.append(f"{other.path} does not lie on the grid of {first.path}: {difference}")
    faults += [fault for each in channels for fault in faults_of(each)]
    labels = answer.values[0]
    values = np.unique(labels)
    if len(answer.values) != 1:
        faults.append(f"{files.labels} has {len(answer.values)} channels, labels have one")
    if not np.isfinite(values).all() or (values != np.round(values)).any() or values.min() < 0:
        faults.append(f"{files.labels} has values that are no labels: {_few(values)}")
    elif known is not None and not set(values.astype(int).tolist()) <= known:
        strange = [value for value in values if int(value) not in known]
        faults.append(f"{files.labels} has labels that dataset.json does not name: {_few(np.array(strange))}")
    elif not allow_empty and not (values > 0).any():
        faults.append(f"{files.labels} has no voxel but background (data.allow_empty=true where that is meant)")
    if faults:
        return None, faults
    image = together(channels)
    inside = image.values[:, labels > 0].ravel()
    inside = inside[:: max(1, len(inside) // SAMPLED)].astype(np.float64)
    return Checked(files, len(image.values), image.sizes, image.spacing, values.astype(int), inside), []


def together(channels: Sequence[Raw]) -> Raw:
    """The channels of one image, each from a file of its own."""
    return replace(channels[0], values=np.concatenate([each.values for each in channels]))


def faults_of(image: Raw) -> list[str]:
    """What is wrong with an image by itself, in words that name its file."""
    if not np.isfinite(image.values).all():
        return [f"{image.path} has values that are not finite (NaN or infinity)"]
    if image.values.min() == image.values.max():
        return [f"{image.path} has the same value everywhere"]
    return []


def _few(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in values[:4]) + (", …" if len(values) > 4 else "")


def raise_faults(faults: Sequence[str], do: str) -> None:
    """Raises UserError with all faults in the data, up to a dozen by name; do: what helps against them."""
    if not faults:
        return
    more = f"\n  and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    said = "\n  ".join(faults[:SHOWN])
    raise UserError(f"{len(faults)} fault{'s' if len(faults) > 1 else ''} in the data:\n  {said}{more}", do=do)
