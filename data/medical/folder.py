"""The user's own images and labels in folders: nnU-Net's layout, or plain pairs of files with the same names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Count, Fraction, Seed, Share, Size, checked
from ..loading import Loading
from ..randomness import hashed
from .cases import AnyCase, Preparation
from .checks import Checked, check_pairs, found_pairs
from .plan import Plan, planned_patch
from .segmentation import SegmentationData
from .sources import NIFTI_FOLDER

LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"))
TEST = ("imagesTs", "labelsTs")
VOXELS = {2: 256**2, 3: 64**3}  # of a patch at most, where no budget is given


class NiftiFolder(SegmentationData):
    """Pairs of images and labels: NIfTI volumes, or PNG and TIFF images.

    Everything is read, checked (checks.py) and planned before training begins; memory holds one case and the first 2 GB of the
    prepared ones, the others are mapped from files of the cache. Without labelled test cases (imagesTs and
    labelsTs), part `fold` of `folds` is tested and `val_fraction` of the others validated; with them, part `fold` is validated.

    Args:
        root: the folder. loading, patch_size, foreground, augment, patches: SegmentationData's.
        fold, folds: which of how many parts of the cases, divided by a hash of their names. val_fraction: see above.
        splits: a JSON file {"train": [names], "val": [...], "test": [...]} instead.
        patch_voxels: voxels of a planned patch at most, the budget of memory; None: 64³, of images 256².
        normalisation: "zscore" or "ct"; None: zscore. resample: to the median spacing.
        classes: names, the background first; None: those of dataset.json, else the values found in the labels.
        regions: label values that are learnt and measured together, by name: {whole: [1, 2]}; None: those of dataset.json.
        allow_empty: labels without any voxel but background are meant.
        split_seed: of the parts.
        name: the data set's name in results.
    """

    source = NIFTI_FOLDER
    held = 2**31  # bytes of prepared cases that stay in memory; the others lie in the cache

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        loading: Loading = Loading(batch_size=2),
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 1,
        fold: Count = 0,
        folds: Size = 5,
        val_fraction: Fraction = 0.1,
        splits: str | None = None,
        patch_voxels: Size | None = None,
        normalisation: str | None = None,
        resample: bool = True,
        classes: Sequence[str] | None = None,
        regions: Mapping[str, Any] | None = None,
        allow_empty: bool = False,
        split_seed: Seed = 0,
        name: str = "nifti_folder",
    ):
        super().__init__(name, loading, patch_size, foreground, augment, patches)
        if folds < 2 or fold >= folds:
            raise UserError("there is no such fold", given=f"data.fold={fold} of {folds}", allowed=f"0 to {folds - 1}")
        self.root, self.fold, self.folds, self.val_fraction = root, fold, folds, val_fraction
        self.split_file, self.patch_voxels, self.normalisation = splits, patch_voxels, normalisation
        self.resample, self.classes, self.allow_empty, self.split_seed = resample, classes, allow_empty, split_seed
        self.regions = regions
        self._checked: dict[str, list[Checked]] | None = None

    @property
    def folder(self) -> Path:
        """Where the cases are."""
        if self.root is None:
            raise UserError(f"{self.name} needs a folder", do="data.root=FOLDER")
        return Path(self.root).expanduser()

    def checked_cases(self) -> dict[str, list[Checked]]:
        """What is known of all cases, once they are read and checked: {"train": [...]} and, where they are there, {"test": [...]}.

        Raises:
            UserError: naming every file that is wrong, up to a dozen.
        """
        if self._checked is None:
            folder = self.folder
            layout = next((each for each in LAYOUTS if (folder / each[0]).is_dir()), None)
            if layout is None:
                raise UserError(
                    f"{folder} has no images" if folder.is_dir() else f"{folder} is not there", given=f"data.root={self.root}",
                    allowed="a folder with imagesTr and labelsTr, or images and labels",
                )  # fmt: skip
            values = self._declared()
            found = {"train": found_pairs(folder / layout[0], folder / layout[1])}
            if all((folder / each).is_dir() for each in TEST):
                found["test"] = found_pairs(*(folder / each for each in TEST))
            known = None if values is None else set(values.classes.values())
            self._checked = check_pairs(found, known, self.allow_empty)
        return self._checked

    def make_plan(self) -> Plan:
        cases = self.checked_cases()["train"]
        declared = self._declared()
        if declared is None:
            numbers = sorted({int(value) for case in cases for value in case.values} | {0})
            declared = Declared({"background" if number == 0 else f"label {number}": number for number in numbers}, {})
        known = {name: number for name, number in declared.classes.items() if name != "ignore"}
        names, values = zip(*sorted(known.items(), key=lambda each: each[1]), strict=True)
        if self.classes is not None:
            if len(self.classes) != len(names):
                raise UserError(
                    "data.classes does not fit", given=list(self.classes), allowed=f"{len(names)} names: {names}"
                )
            names = tuple(map(str, self.classes))
        if len(names) < 2:
            raise UserError(f"the labels of {self.folder} have no class but the background", do="add labels")
        spacing = tuple(np.median([case.spacing for case in cases], 0).round(6).tolist()) if self.resample else ()
        rough = Plan(cases[0].axes, (1,) * cases[0].axes, names, values, spacing=spacing)
        typical = np.median([rough.sizes_for(case.sizes, case.spacing) for case in cases], 0)
        planned = planned_patch(typical.tolist(), spacing, self.patch_voxels or VOXELS[rough.axes])
        inside = np.concatenate([case.inside for case in cases])
        low, high = np.percentile(inside, [0.5, 99.5]).tolist() if len(inside) else (0.0, 1.0)
        plan = Plan(
            rough.axes, self.patch_of(rough.axes, planned), names, values, cases[0].channels, spacing,
            self.normalisation or "zscore", low, high, float(inside.mean()) if len(inside) else 0.0,
            float(inside.std()) if len(inside) else 1.0, regions=self._regions(declared, dict(zip(values, names, strict=True))),
        )  # fmt: skip
        plan.check(f"the plan of {self.folder}")
        return plan

    def load(self, plan: Plan) -> dict[str, list[AnyCase]]:
        found, declared = self.checked_cases(), self._declared()
        self._checked = None  # who asks again means the files as they are then
        prepare = Preparation(plan, None if declared is None else declared.classes.get("ignore"), self.held)
        splits = self._custom(found) if self.split_file else self._divided(found)
        limit = self.loading.limit  # a trial with a few cases prepares no others
        return {split: [prepare(case) for case in cases[:limit]] for split, cases in splits.items()}

    def _divided(self, cases: Mapping[str, list[Checked]]) -> dict[str, list[Checked]]:
        """Train, val and test of the fold; the same whatever else is in the folder's listing order."""
        if len(cases["train"]) < self.folds:
            raise UserError(
                f"{self.name} has too few cases for {self.folds} parts",
                given=len(cases["train"]),
                do="lower data.folds",
            )
        keys = {case.name: _number(case.name, self.split_seed) for case in cases["train"]}
        ordered = sorted(cases["train"], key=lambda case: keys[case.name])
        held = ordered[self.fold :: self.folds]
        others = [case for number, case in enumerate(ordered) if number % self.folds != self.fold]
        if "test" in cases:
            return {"train": others, "val": held, "test": cases["test"]}
        count = max(1, round(len(others) * self.val_fraction))
        return {"train": others[count:], "val": others[:count], "test": held}

    def _custom(self, cases: Mapping[str, list[Checked]]) -> dict[str, list[Checked]]:
        path = Path(self.split_file).expanduser()
        try:
            asked = json.loads(path.read_text(encoding="utf-8"))
            parts = {split: [str(name) for name in asked[split]] for split in ("train", "val", "test")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is not a division into parts: {error}",
                allowed='{"train": [names], "val": [...], "test": [...]}',
            ) from error
        known = {case.name: case for found in cases.values() for case in found}
        for split, names in parts.items():
            for name in names:
                if name not in known:
                    raise UserError(f"{path}: there is no case {name}", given=f"in {split}", allowed=sorted(known)[:8])
        twice = [name for name in parts["train"] if name in {*parts["val"], *parts["test"]}]
        if twice:
            raise UserError(f"{path}: {twice[0]} is trained on and tested too", do="take it out of one part")
        return {split: [known[name] for name in names] for split, names in parts.items()}

    def _regions(self, declared: Declared, names: Mapping[int, str]) -> dict[str, list[str]] | None:
        """The classes of each region, by name: those that were asked for, else those of dataset.json."""
        regions = declared.regions if self.regions is None else self.regions
        for name, values in regions.items():
            members = values if isinstance(values, Sequence) and not isinstance(values, str) else ()
            if not members or not set(members) <= set(names) - {0}:
                raise UserError(
                    f"the region {name} of {self.folder} does not fit", given=values,
                    allowed=f"a list of label values among {sorted(set(names) - {0})}",
                )  # fmt: skip
        return {str(name): [names[value] for value in values] for name, values in regions.items()} or None

    def _declared(self) -> Declared | None:
        """What dataset.json says of the labels; None: there is no such file."""
        path = self.folder / "dataset.json"
        if not path.is_file():
            return None
        try:
            return declared_labels(json.loads(path.read_text(encoding="utf-8"))["labels"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise UserError(
                f"{path} does not say what the labels mean: {error}",
                allowed='"labels": {"background": 0, "liver": 1}, regions as lists: {"tumour": [1, 2]}',
            ) from error


class Declared(NamedTuple):
    """classes: the value that stands for each class, by name. regions: the values of each region, by name."""

    classes: dict[str, int]
    regions: dict[str, list[int]]


def declared_labels(labels: Mapping[str, Any]) -> Declared:
    """The labels of a dataset.json: of nnU-Net's second version, names first, or the decathlon's, numbers first.

    Where a name has several numbers it is a region, and so are all others but the background and what is ignored.
    """
    named = {
        (value if isinstance(value, str) else key): (int(key) if isinstance(value, str) else value)
        for key, value in labels.items()
    }
    classes = {str(name): int(value) for name, value in named.items() if not isinstance(value, list)}
    several = {str(name): [int(each) for each in value] for name, value in named.items() if isinstance(value, list)}
    known = set(classes.values())
    classes |= {
        f"label {value}": value for value in sorted({each for of_one in several.values() for each in of_one} - known)
    }
    single = {name: [value] for name, value in classes.items() if value in known and value != 0 and name != "ignore"}
    ordered = {name: (several | single)[name] for name in map(str, named) if name in several | single}
    return Declared(classes, ordered if several else {})


def _number(name: str, seed: int) -> int:
    return hashed(seed, *name.encode()).item()
