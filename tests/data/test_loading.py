"""Order, state and resumption of loaders, alone and under Lightning."""

import itertools
import json

import lightning.pytorch as lightning
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from polymamba.core.errors import UserError
from polymamba.data.loading import Batches, EpochLoader, EpochSampler, Loading
from polymamba.data.randomness import uniforms

SAMPLES, BATCH = 50, 8

worker_cases = pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
MANY_WORKERS = "ignore:The '.*_dataloader' does not have many workers"
LEAF_SPEC = "ignore:`isinstance.treespec, LeafSpec.` is deprecated:FutureWarning"


def varied(epoch, positions):
    """Stands for augmented images: the sample's number, and a draw that depends on the epoch."""
    draws = uniforms(1, 3, epoch, positions)[:, 0]
    return torch.from_numpy(positions + draws).float().view(-1, 1, 1, 1), torch.from_numpy(positions)


def loader(seed=0, workers=0, training=True, batch_size=BATCH, samples=SAMPLES, rank=0, ranks=1):
    sampler = EpochSampler(samples, batch_size, seed, training, rank, ranks)
    return EpochLoader(Batches(varied), sampler, workers)


def read(source, count=None):
    return [images.flatten().tolist() for images, _ in itertools.islice(source, count)]


def epochs(source, count):
    return [read(source) for _ in range(count)]


def test_an_epoch_has_each_sample_once_and_drops_the_rest():
    batches = [labels.tolist() for _, labels in loader()]
    assert [len(batch) for batch in batches] == [BATCH] * (SAMPLES // BATCH) == [BATCH] * len(loader())
    seen = [label for batch in batches for label in batch]
    assert len(set(seen)) == len(seen)
    assert seen != sorted(seen)


def test_evaluation_reads_every_sample_in_order():
    source = loader(training=False)
    assert [label for _, labels in source for label in labels.tolist()] == list(range(SAMPLES))
    assert len(source) == 7


def test_a_set_smaller_than_a_batch_is_one_batch():
    assert [len(labels) for _, labels in loader(samples=5)] == [5]


def test_epochs_differ_and_seeds_differ():
    first, second, third = epochs(loader(), 3)
    assert first != second != third
    assert epochs(loader(seed=1), 1) != [first]


@worker_cases
def test_the_same_seed_gives_the_same_batches(workers):
    assert epochs(loader(workers=workers), 3) == epochs(loader(), 3)


@worker_cases
@pytest.mark.parametrize("stop", [(0, 0), (0, 3), (1, 1), (1, 6), (2, 5)])
def test_state_in_mid_epoch_gives_the_next_batches(workers, stop):
    whole = list(itertools.chain(*epochs(loader(), 4)))
    interrupted = loader(workers=workers)
    for _ in range(stop[0]):
        read(interrupted)
    read(interrupted, stop[1])
    state = json.loads(json.dumps(interrupted.state_dict()))
    resumed = loader(workers=workers)
    resumed.load_state_dict(state)
    done = stop[0] * 6 + stop[1]
    assert list(itertools.chain(*epochs(resumed, 2)))[:8] == whole[done : done + 8]


def test_state_fits_another_number_of_workers():
    interrupted = loader()
    read(interrupted, 2)
    resumed = loader(workers=2)
    resumed.load_state_dict(interrupted.state_dict())
    assert read(resumed) == epochs(loader(), 1)[0][2:]


def test_state_of_a_restored_loader_is_the_restored_one():
    interrupted, resumed = loader(), loader()
    read(interrupted, 2)
    resumed.load_state_dict(interrupted.state_dict())
    assert resumed.state_dict() == interrupted.state_dict()


def test_state_that_does_not_fit_is_refused():
    interrupted = loader()
    read(interrupted, 2)
    with pytest.raises(UserError, match="batch_size was 8, is 4"):
        loader(batch_size=4).load_state_dict(interrupted.state_dict())


def test_a_finished_epoch_may_be_followed_by_other_batches():
    finished, resumed = loader(), loader(batch_size=4)
    read(finished)
    resumed.load_state_dict(finished.state_dict())
    assert read(resumed) == epochs(loader(batch_size=4), 2)[1]


def test_set_epoch_chooses_the_epoch():
    source = loader()
    expected = epochs(loader(), 4)
    for epoch in (3, 1, 1, 2):
        source.sampler.set_epoch(epoch)
        assert read(source) == expected[epoch]
    assert read(source) == expected[3]


def test_iterators_that_are_not_read_change_nothing():
    source = loader()
    expected = epochs(loader(), 2)
    iter(source)
    assert read(source) == expected[0]
    iter(source)
    assert source._iterator is None
    assert read(source) == expected[1]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_processes_share_the_batches_of_one(ranks, training):
    alone = [sorted(batch) for batch in read(loader(batch_size=4 * ranks, training=training))]
    parts = [read(loader(batch_size=4, training=training, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert [sorted(itertools.chain(*batches)) for batches in zip(*parts, strict=True)] == alone


def test_global_generators_are_left_alone():
    before = torch.get_rng_state()
    epochs(loader(), 2)
    assert torch.equal(torch.get_rng_state(), before)


def broken(epoch, positions):
    raise UserError("Broken image: a.png", do="delete it")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_users_error_arrives_as_it_was_raised(workers):
    source = EpochLoader(Batches(broken), EpochSampler(9, 3, 0, True), workers)
    with pytest.raises(UserError) as caught:
        read(source)
    assert str(caught.value) == "Broken image: a.png\n  do:      delete it"


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": 2.5}, {"workers": -1}, {"seed": -1}, {"limit": 0}, {"batch_size": True}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(UserError, match=f"data.loading.{next(iter(wrong))}"):
        Loading(**{"batch_size": 4, **wrong})


class Recorder(lightning.LightningModule):
    """Notes what it saw."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.seen = []

    def training_step(self, batch, index):
        images = batch[0].flatten()
        self.seen.append(images.tolist())
        return self.layer(images[:, None] / SAMPLES).square().mean()

    def validation_step(self, batch, index):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)


class Data(lightning.LightningDataModule):
    def __init__(self, workers):
        super().__init__()
        self.workers = workers

    def train_dataloader(self):
        return loader(workers=self.workers)

    def val_dataloader(self):
        return loader(training=False)


class Save(Callback):
    """Saves after every step and every epoch."""

    def on_train_batch_end(self, trainer, *_):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/step={trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer, *_):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/epoch={trainer.current_epoch}.ckpt")


def fit(folder, workers=0, resume=None, **options):
    module = Recorder()
    settings = {"max_epochs": 3, "accelerator": "cpu", "logger": False, "enable_progress_bar": False}
    quiet = {"enable_model_summary": False, "enable_checkpointing": False, "callbacks": [Save()]}
    trainer = lightning.Trainer(**{**settings, **quiet, **options}, default_root_dir=folder)
    trainer.fit(module, Data(workers), ckpt_path=resume and folder / f"{resume}.ckpt")
    return module


def resumed_equals_whole(folder, stop, workers):
    """Train in one go, and again with a stop after `stop` steps; compare batches and weights."""
    torch.manual_seed(0)
    whole = fit(folder / "whole", workers)
    torch.manual_seed(0)
    fit(folder, workers, max_steps=stop)
    resumed = fit(folder, workers, f"step={stop}")
    assert resumed.seen == whole.seen[stop:]
    assert torch.equal(resumed.layer.weight, whole.layer.weight)
    return whole.seen


@pytest.mark.filterwarnings(MANY_WORKERS, LEAF_SPEC)
@worker_cases
@pytest.mark.parametrize("stop", [3, 5, 6, 8, 12])
def test_lightning_goes_on_with_the_next_batch(tmp_path, workers, stop):
    seen = resumed_equals_whole(tmp_path, stop, workers)
    assert seen == list(itertools.chain(*epochs(loader(), 3)))


@pytest.mark.filterwarnings(MANY_WORKERS, LEAF_SPEC)
def test_lightning_goes_on_after_an_epoch_that_was_cut_short(tmp_path):
    whole = fit(tmp_path, limit_train_batches=4)
    assert whole.seen[4:8] == epochs(loader(), 2)[1][:4]
    resumed = fit(tmp_path, resume="epoch=0", limit_train_batches=4)
    assert resumed.seen == whole.seen[4:]
