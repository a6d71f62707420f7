"""The ten tasks of the Medical Segmentation Decathlon, from the archives that MONAI's readers download."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import UserError, check_choice
from ...core.ranges import Count, Fraction, Seed, Share, Size, checked
from ..download import fetch
from ..files import data_root, not_there, replace_it
from ..loading import Loading
from .folder import NiftiFolder
from .sources import DECATHLON

SETS = tuple(file.name.removesuffix(".tar") for file in DECATHLON.files)


class Decathlon(NiftiFolder):
    """A task's labelled volumes; its archive (27 MB to 27 GB) is downloaded and unpacked where it is not found.

    Args:
        root: folder that holds the data; None: $POLYMAMBA_DATA, else `.data`. The task's folder or archive may lie in it directly,
            or in medical/decathlon.
        set: the task.
        others: NiftiFolder's.
    """

    source = DECATHLON

    @checked(group="data")
    def __init__(
        self,
        root: str | None = None,
        set: str = "Task04_Hippocampus",
        loading: Loading = Loading(batch_size=2),
        patch_size: Size | Sequence[Size] | None = None,
        foreground: Share = 0.33,
        augment: bool = True,
        patches: Size = 1,
        fold: Count = 0,
        folds: Size = 5,
        val_fraction: Fraction = 0.1,
        patch_voxels: Size | None = None,
        normalisation: str | None = None,
        split_seed: Seed = 0,
        name: str = "decathlon",
    ):
        super().__init__(
            root, loading, patch_size, foreground, augment, patches, fold, folds, val_fraction, patch_voxels=patch_voxels,
            normalisation=normalisation, split_seed=split_seed, name=name,
        )  # fmt: skip
        check_choice("data.set", set, SETS)
        self.set = set

    @property
    def folder(self) -> Path:
        """See `NiftiFolder.folder`."""
        found = self._find()
        if found is None:
            raise not_there(self.set, data_root(self.root))
        return found

    def prepare_data(self) -> None:
        """Download and unpack the task where it is not there."""
        if self._find() is not None:
            return
        home = data_root(self.root) / self.source.folder
        beside = data_root(self.root) / f"{self.set}.tar"
        unpack(beside if beside.is_file() else fetch(self.source.file(f"{self.set}.tar"), home), home, self.set)

    def _find(self) -> Path | None:
        root = data_root(self.root)
        folders = (root / self.source.folder / self.set, root / self.set, root)
        return next((each for each in folders if each.name == self.set and (each / "imagesTr").is_dir()), None)


def unpack(archive: Path, home: Path, name: str) -> Path:
    """The folder `name` of an archive, below home; it appears under its name only when it is whole.

    Raises:
        UserError: the archive is damaged or holds no such folder.
    """
    part = home / f".{name}.{os.getpid()}.part"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as files:
            files.extractall(part, filter="data")
        if not (part / name).is_dir():
            raise UserError(f"{archive} holds no folder {name}", do=replace_it(archive))
        os.replace(part / name, home / name)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{archive} is damaged or cut off: {error}", do=replace_it(archive)) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return home / name
