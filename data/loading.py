"""Batches in a fixed order that any number of workers gives, and that goes on in mid-epoch after a restart."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from ..core.errors import UserError
from ..core.ranges import Seed, Size, Workers, check_fields
from .randomness import shuffled

Key = tuple[int, np.ndarray]


@dataclass(frozen=True)
class Loading:
    """How a data module makes batches.

    Args:
        batch_size: samples in a batch, on each device.
        workers: processes that prepare batches; 0: the training process does it.
        seed: rules the order of the batches and the augmentation.
        limit: use no more than this many samples of each split.
        pin_memory: put batches into page-locked memory, from which copies to a GPU are quicker.
    """

    batch_size: Size = 32
    workers: Workers = 0
    seed: Seed = 0
    limit: Size | None = None
    pin_memory: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "data.loading")


class Batches(Dataset):
    """Whole batches, made at once from the samples' positions.

    Args:
        load: given the epoch and sample positions of shape (batch,), returns the batch.
    """

    def __init__(self, load: Callable[[int, np.ndarray], Any]):
        self.load = load

    def __getitem__(self, key: Key) -> Any:
        try:
            return self.load(*key)
        except UserError as error:
            # raised by the loader: what a worker raises reaches the user wrapped in two stack traces
            return error


class EpochSampler(DistributedSampler):
    """The batches of an epoch as (epoch, sample positions), a function of the seed and the epoch alone.

    It is a DistributedSampler because Lightning replaces every other kind when there is more than one process. The
    union of the processes' n-th batches is the n-th batch of one process with `ranks` times the batch size.

    Args:
        samples: number of samples.
        batch_size: samples in a batch of one process.
        seed: seed of the order.
        training: shuffle, and leave an incomplete last batch out where there is a complete one.
        rank, ranks: this process, and how many there are.
    """

    def __init__(self, samples: int, batch_size: int, seed: int, training: bool, rank: int = 0, ranks: int = 1):
        super().__init__(range(samples), num_replicas=ranks, rank=rank, shuffle=training, seed=seed, drop_last=training)
        self.samples, self.batch_size, self.training = samples, batch_size, training
        self.start = 0
        self.epoch_was_set = False
        together = batch_size * ranks
        self.batches = max(samples // together, 1) if training else -(-samples // together)

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is read next; without this each finished epoch is followed by the next."""
        self.epoch = epoch
        self.epoch_was_set = True

    def __iter__(self) -> Iterator[Key]:
        epoch, start = self.epoch, self.start
        order = shuffled(self.samples, self.seed, 0, epoch) if self.training else np.arange(self.samples)
        together = self.batch_size * self.num_replicas
        for batch in range(start, self.batches):
            members = order[batch * together : (batch + 1) * together]
            yield epoch, members[self.rank :: self.num_replicas]


class EpochLoader(DataLoader):
    """A DataLoader over `EpochSampler` with a state: the epoch and the number of batches read.

    Every batch is a function of the seed, the epoch and its number, so this state is all there is to save, and it fits
    a loader with another number of workers too. Lightning saves and restores it with the fit loop.
    """

    def __init__(self, dataset: Dataset, sampler: EpochSampler, workers: int = 0, pin_memory: bool = False):
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_trainer,
            persistent_workers=workers > 0,
            # without a generator of its own, a loader draws from the one that the model's dropout uses
            generator=torch.Generator().manual_seed(0),
        )
        self._epoch = sampler.epoch
        self._read = 0
        self._resume = False

    def __iter__(self) -> Iterator[Any]:
        # A generator starts when it is first read. Lightning makes iterators that it never reads: those must not
        # start workers, nor take the epoch's number before it is set.
        sampler: EpochSampler = self.sampler
        resume = self._resume and (not sampler.epoch_was_set or sampler.epoch == self._epoch)
        if self._read >= len(self) and not sampler.epoch_was_set:
            sampler.epoch += 1
            resume = False
        sampler.start = self._read if resume and self._read < len(self) else 0
        sampler.epoch_was_set = self._resume = False
        self._epoch, self._read = sampler.epoch, sampler.start
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                try:
                    raise batch
                finally:
                    # what an exception's frames hold is freed late, and the workers then take seconds to end
                    del batch
                    self._iterator = None
            self._read += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches have been read, and what these numbers depend on."""
        started = self._read > 0 or self._resume
        return {"epoch": self._epoch if started else self.sampler.epoch, "batch": self._read, **self._order()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that were read when the state was saved.

        Raises:
            UserError: in mid-epoch, and the batches are not the same as then.
        """
        changed = {name: (state[name], now) for name, now in self._order().items() if state[name] != now}
        if changed and 0 < state["batch"] < state["batches"]:
            raise UserError(
                "An epoch that was interrupted cannot go on: the data set or its batches have changed",
                given="; ".join(f"{name} was {then}, is {now}" for name, (then, now) in changed.items()),
                do="resume with the same data.* settings, or start a new run from the weights",
            )
        finished = state["batch"] >= state["batches"]
        self._epoch = self.sampler.epoch = state["epoch"]
        self.sampler.epoch_was_set = False
        self._read = len(self) if finished else state["batch"]
        self._resume = True

    def _order(self) -> dict[str, int]:
        sampler: EpochSampler = self.sampler
        together = sampler.batch_size * sampler.num_replicas
        return {"batches": len(self), "samples": sampler.samples, "batch_size": together, "seed": sampler.seed}


def _leave_signals_to_the_trainer(worker: int) -> None:
    # A terminal and a cluster signal every process of a job. The trainer still needs batches until its next step is done;
    # a worker without a trainer ends by itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch
