"""The base of data modules on a tiny one: loaders, ranks, limits, resuming, what is kept, errors."""

import itertools
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.module import DataModule, Description
from polymamba.data.randomness import uniforms
from polymamba.data.sources import Source

COUNTS = {"train": 23, "val": 7, "test": 5}


class Numbers(DataModule):
    """Numbers with noise that depends on seed and epoch; keeps their mean, which is made of the training numbers."""

    source = Source("Numbers", "https://example.org", "nobody", "CC0", "in order")

    def __init__(self, loading=Loading(batch_size=4), counts=COUNTS):  # noqa: B008
        super().__init__("numbers", loading)
        self.all, self.times_read, self.mean = counts, 0, None

    def setup(self, stage=None):
        if self.splits is not None:
            return
        self.times_read += 1
        limit = self.loading.limit
        self.splits = {split: np.arange(count)[:limit] for split, count in self.all.items()}
        if self.mean is None:
            self.mean = float(self.splits["train"].mean())

    def samples(self, split):
        return len(self.splits[split])

    def load_batch(self, split, epoch, positions):
        if (positions == 6).any() and split == "val":
            raise UserError("Broken number: 6")
        return self.splits[split][positions] + uniforms(1, self.loading.seed, epoch, positions)[:, 0] - self.mean

    def describe(self):
        self.read()
        return self.described(shape="a number", values=1, for_model={"range": [0, 23]})

    def kept(self):
        if self.mean is None:
            self.read()
        return {"mean": self.mean}

    def keep(self, folder):
        folder.mkdir()
        (folder / "mean.json").write_text(json.dumps(self.kept()))

    def restore(self, folder):
        if (folder / "mean.json").is_file():
            self.mean = json.loads((folder / "mean.json").read_text())["mean"]


def read(loader, count=None):
    return [batch.tolist() for batch in itertools.islice(loader, count)]


def made(**loading):
    return Numbers(Loading(**{"batch_size": 4, **loading}))


def test_each_split_has_its_order():
    data = made()
    train, val, test = data.train_dataloader(), data.loader("val"), data.test_dataloader()
    assert (len(train), len(val), len(test)) == (5, 2, 2)
    numbers = [int(value + data.mean) for batch in read(train) for value in batch]
    assert len(set(numbers)) == 20
    assert numbers != sorted(numbers)
    assert [int(value + data.mean) for batch in read(test) for value in batch] == list(range(5))
    assert read(data.predict_dataloader()) == read(data.test_dataloader())
    assert data.times_read == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_any_number_of_workers_goes_on_in_mid_epoch_with_the_same_batches(workers):
    whole = list(itertools.chain(*(read(loader) for loader in [made(seed=3).train_dataloader()] for _ in range(3))))
    loader = made(seed=3, workers=workers).train_dataloader()
    assert read(loader) + read(loader, 2) == whole[:7]
    resumed = made(seed=3, workers=workers).train_dataloader()
    resumed.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert read(resumed) + read(resumed) == whole[7:]


@pytest.mark.parametrize("split", ["train", "test"])
def test_processes_share_the_batches_of_one(split):
    def of_rank(rank, ranks, batch_size):
        data = made(batch_size=batch_size)
        data.trainer = SimpleNamespace(global_rank=rank, world_size=ranks)
        return read(data.loader(split))

    alone = [sorted(batch) for batch in of_rank(0, 1, 4)]
    parts = [of_rank(rank, 2, 2) for rank in range(2)]
    assert [sorted(itertools.chain(*each)) for each in zip(*parts, strict=True)] == alone


def test_more_processes_than_samples_and_no_samples_are_refused():
    data = made(limit=2)
    data.trainer = SimpleNamespace(global_rank=0, world_size=3)
    with pytest.raises(UserError, match="fewer test samples than there are processes"):
        data.test_dataloader()
    with pytest.raises(UserError, match="numbers has no val samples"):
        Numbers(counts={**COUNTS, "val": 0}).val_dataloader()


def test_a_limit_is_of_each_split():
    assert made(limit=6).describe().counts == {"train": 6, "val": 6, "test": 5}


def test_an_error_of_a_sample_arrives_as_it_was_raised():
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^Broken number: 6$"):
            read(made(workers=workers).val_dataloader())


def test_the_description_is_made_of_name_counts_and_source_and_survives_json():
    found = made().describe()
    assert found.line == "numbers: 23 train, 7 val, 5 test; a number"
    assert (found.title, found.source, found.licence, found.protocol) == (
        "Numbers", "https://example.org", "CC0", "in order",
    )  # fmt: skip
    assert Description(**json.loads(json.dumps(found.plain()))) == found
    nothing_to_validate_on = Numbers(counts={**COUNTS, "val": 0}).describe()
    assert nothing_to_validate_on.line == "numbers: 23 train, 5 test; a number"


def test_an_example_is_of_the_first_test_samples():
    data = made()
    assert data.example(3).tolist() == read(data.test_dataloader())[0][:3]
    assert len(data.example(9)) == 5


def test_what_is_kept_is_used_instead_of_made_anew(tmp_path):
    first = made()
    first.keep(tmp_path / "kept")
    assert first.mean == 11.0
    other = Numbers(counts={**COUNTS, "train": 3})
    other.restore(tmp_path / "kept")
    assert other.kept() == {"mean": 11.0}
    assert other.times_read == 0
    assert other.example().item() == first.example().item()
    other = made(limit=3)
    other.restore(tmp_path)  # where nothing was kept
    assert other.kept() == {"mean": 1.0}


def test_verify_reads_again():
    data = made()
    data.setup()
    data.verify()
    assert data.times_read == 2


def test_it_travels_to_worker_processes_without_its_trainer():
    data = made()
    data.trainer = SimpleNamespace(cannot=lambda: None)
    assert pickle.loads(pickle.dumps(data)).trainer is None


def test_other_data_are_read_in_batches_as_these_were():
    settings = {"loading": {"batch_size": 8, "workers": 2, "seed": 5, "limit": 3, "pin_memory": True}}
    assert Numbers.reading(settings) == {"loading": {"batch_size": 8, "workers": 2, "seed": 5}}
    assert Numbers.reading({}) == {"loading": {}}
