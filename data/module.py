"""The base of every data module: a domain says what a sample is, the loaders, ranks, limits and resuming come from here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule

from ..core.errors import UserError
from .loading import Batches, EpochLoader, EpochSampler, Loading
from .sources import Source

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Description:
    """What a data module says of its data.

    Args:
        name: the data set's name in results.
        counts: samples of train, val and test.
        shape: what a sample is, in a few words for the plan: "3×32×32, 10 classes".
        for_model: what models and tasks are built from, as JSON values: sizes, class names, "model_size" (the size of model
            that suits the data), "task" (the kind of task the data are for).
        values: numbers in the largest training sample as the model is given it; 0: not known.
        length: tokens of the longest training sample, where samples are sequences; 0: they are not, or it is not known.
        resized_by: the setting that makes samples smaller, "" where there is none.
        title, source, licence, protocol: the data set's own name, where it comes from, its licence, how it is split.
        tested: which part of the data is tested, in words.
    """

    name: str
    counts: Mapping[str, int]
    shape: str = ""
    for_model: Mapping[str, Any] = field(default_factory=dict)
    values: int = 0
    length: int = 0
    resized_by: str = ""
    title: str = ""
    source: str = ""
    licence: str = ""
    protocol: str = ""
    tested: str = "the test part"

    def plain(self) -> dict[str, Any]:
        """The same as JSON values, which `Description(**values)` takes."""
        return asdict(self)

    @property
    def line(self) -> str:
        """Name, counts and shape in one line."""
        counts = ", ".join(f"{self.counts[split]:,} {split}" for split in SPLITS if split in self.counts)
        return f"{self.name}: {counts}" + (f"; {self.shape}" if self.shape else "")


class DataModule(LightningDataModule):
    """Base of all data modules: a subclass says what it holds (`setup`, `samples`, `load_batch`, `describe`), and where a trained
    model needs more of it than its weights, `kept`, `keep` and `restore`.

    A batch is a function of the split, the epoch and the samples' positions alone: so any number of worker processes gives the
    same batches, and a run goes on in mid-epoch.

    Args:
        name: the data set's name in results.
        loading: how batches are made.
    """

    source: Source | None = None  # where a published data set comes from
    splits: Mapping[str, Any] | None = None  # what `setup` has read, by split; None: nothing yet

    def __init__(self, name: str, loading: Loading):
        super().__init__()
        self.name, self.loading = name, loading

    def prepare_data(self) -> None:
        """Download what is missing; Lightning calls this in one process of each machine."""

    def setup(self, stage: str | None = None) -> None:
        """Read the samples, once; raises UserError naming the file that is wrong."""

    @abstractmethod
    def samples(self, split: str) -> int:
        """Number of samples of a split, after setup."""

    @abstractmethod
    def load_batch(self, split: str, epoch: int, positions: np.ndarray) -> Any:
        """The samples of a split at these positions, (batch,), as a batch; a function of its arguments and the seed alone."""

    @abstractmethod
    def describe(self) -> Description:
        """What a model and a report have to know of the data; reads (and downloads) them first, where that was not done."""

    def described(self, **more: Any) -> Description:
        """A Description of the name, the counts and the source; more: its other fields, and these where they are others."""
        counts = {split: count for split in SPLITS if (count := self.samples(split))}
        source, known = self.source, {"name": self.name, "counts": counts}
        if source is not None:
            known |= {"title": source.title, "source": source.homepage, "licence": source.licence}
            known |= {"protocol": source.protocol}
        return Description(**{**known, **more})

    def read(self) -> None:
        """Download what is missing and read the samples, where that was not done."""
        self.prepare_data()
        self.setup()

    def kept(self) -> Mapping[str, Any]:
        """What a trained model needs beside its weights and cannot be written as JSON (scaler, item index), by name.

        Models and tasks are given it together with `Description.for_model`. Reads the samples where it is made of them and was
        not restored.
        """
        return {}

    def keep(self, folder: Path) -> None:
        """Write what `kept` says into a folder, made where there is something to write; it travels with the run, its exports
        and `init=`."""

    def restore(self, folder: Path) -> None:
        """Use what another run has kept in a folder instead of making it anew from these data; before setup."""

    @classmethod
    def reading(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings with which other data are read as these were: of a run's own `settings`, those that its model rests on."""
        loading = settings.get("loading") or {}
        return {"loading": {key: loading[key] for key in ("batch_size", "workers", "seed") if key in loading}}

    def verify(self) -> None:
        """Read and check everything again, from the files; raises UserError naming the file that is wrong."""
        self.splits = None
        self.read()

    def example(self, batch: int = 1) -> Any:
        """A batch of the right form, of the first test samples: for costs, export and the plan."""
        self.setup()
        return self.load_batch("test", 0, np.arange(min(batch, self.samples("test"))))

    def train_dataloader(self) -> EpochLoader:
        """Shuffled batches."""
        return self.loader("train")

    def val_dataloader(self) -> EpochLoader:
        """Every validation sample once, in order."""
        return self.loader("val")

    def test_dataloader(self) -> EpochLoader:
        """Every test sample once, in order."""
        return self.loader("test")

    def predict_dataloader(self) -> EpochLoader:
        """The test samples."""
        return self.test_dataloader()

    def loader(self, split: str) -> EpochLoader:
        """The loader of a split, for this process."""
        self.setup()
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        count = self.samples(split)
        if count == 0:
            raise UserError(f"{self.name} has no {split} samples")
        if count < ranks:
            raise UserError(f"{self.name} has fewer {split} samples than there are processes", given=count)
        batches = Batches(partial(self.load_batch, split))
        return EpochLoader(batches, self.sampler(split, rank, ranks), self.loading.workers, self.loading.pin_memory)

    def sampler(self, split: str, rank: int, ranks: int) -> EpochSampler:
        """The order of a split's samples for one of several processes."""
        loading = self.loading
        return EpochSampler(self.samples(split), loading.batch_size, loading.seed, split == "train", rank, ranks)

    def __getstate__(self) -> dict[str, Any]:
        # Where worker processes are started anew, the module travels to them; its trainer cannot, and they need none.
        return {**self.__dict__, "trainer": None}
