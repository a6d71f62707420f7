"""Sessions made by a process whose best possible ranking is known: the default, which needs no download."""

from __future__ import annotations

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Seed, Share, Size, checked
from ..loading import Loading
from ..module import Description
from ..randomness import hashed, uniforms
from .catalogue import Catalogue
from .histories import TRAIN, Histories, Log, leave_one_out
from .sources import SESSIONS

SHORTEST = 4
TOP = 10


class Sessions(Histories):
    """Users who begin with a signpost; it rules for the whole session what follows what.

    Each signpost has its own followers of each item, `followers` of them with probability falling as 1 / rank; with
    probability `noise` any item comes instead. So the last item alone does not say what is next: the first has to be remembered.
    As the probabilities are known, so is the best ranking, whose NDCG@10 on the same samples is in the description.

    Args:
        users: sessions of 4 to `length` events each. items: of them `signposts` are first events only.
        followers: of an item under a signpost. noise: probability of any item.
        process_seed: rules what follows what, and the sessions.
        length, loading, name: see `Histories`.
    """

    source = SESSIONS

    @checked(group="data")
    def __init__(
        self,
        users: Size = 4_000,
        items: Size = 60,
        signposts: Size = 3,
        followers: Size = 5,
        noise: Share = 0.1,
        length: Size = 20,
        process_seed: Seed = 0,
        loading: Loading = Loading(batch_size=64),
        name: str = "sessions",
    ):
        super().__init__(name, loading, length)
        if items < signposts + followers:
            raise UserError(
                "data.items does not fit",
                given=items,
                allowed=f"{signposts + followers} or more: signposts and followers",
            )
        if length < SHORTEST:
            raise UserError("data.length does not fit", given=length, allowed=f"{SHORTEST} or more")
        self.users, self.items, self.signposts, self.noise = users, items, signposts, noise
        self.process_seed = process_seed
        keys = hashed(1, process_seed, np.arange(signposts * (items + 1)))
        order = np.argsort(uniforms(items - signposts, keys), 1, kind="stable")[:, :followers]
        self.followers = (signposts + 1 + order).reshape(signposts, items + 1, followers)
        weights = 1 / np.arange(1, followers + 1)
        self.weights = (1 - noise) * weights / weights.sum()

    def load(self) -> Log:
        """See `Histories.load`."""
        keys = hashed(2, self.process_seed, np.arange(self.users))
        draws = uniforms(2 * self.length + 2, keys)
        lengths = SHORTEST + (draws[:, 0] * (self.length + 1 - SHORTEST)).astype(np.int64)
        items = np.empty((self.users, self.length), np.int64)
        items[:, 0] = 1 + (draws[:, 1] * self.signposts).astype(np.int64)
        bounds = np.cumsum(self.weights)
        for place in range(1, self.length):
            follower = np.searchsorted(bounds, draws[:, 2 * place], "right")
            usual = self.followers[items[:, 0] - 1, items[:, place - 1], np.minimum(follower, len(bounds) - 1)]
            any_item = self.signposts + 1 + draws[:, 2 * place + 1] * (self.items - self.signposts)
            items[:, place] = np.where(follower < len(bounds), usual, any_item)
        waits = 1 - 600 * np.log1p(-uniforms(self.length, hashed(keys, 3)))
        times = 1_700_000_000 + waits.cumsum(1).astype(np.int64)
        inside = np.arange(self.length) < lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        parts = leave_one_out(offsets)
        counts = np.bincount(items[inside][parts == TRAIN], minlength=self.items + 1)
        catalogue = Catalogue([f"item {number}" for number in range(1, self.items + 1)], counts)
        return Log(offsets, items[inside], parts, catalogue, times[inside])

    def probabilities(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Of each item after sessions that began with `first` and end with `last`, (batch,): (batch, items + 1)."""
        found = np.zeros((len(first), self.items + 1))
        found[:, self.signposts + 1 :] = self.noise / (self.items - self.signposts)
        followers = self.followers[first - 1, last]
        np.put_along_axis(found, followers, np.take_along_axis(found, followers, 1) + self.weights, 1)
        return found

    def best(self, split: str) -> float:
        """NDCG@10 of the best ranking of a split's samples; of equally likely items the mean over their orders is taken."""
        end = self.splits[split][:, 1]
        first = self.log.offsets[np.searchsorted(self.log.offsets, end - 1, "right") - 1]
        likely = self.probabilities(self.log.items[first], self.log.items[end - 1])
        own = np.take_along_axis(likely, self.log.items[end, None], 1)
        gains = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, TOP + 2))), np.full(self.items, np.nan)])
        gains[TOP + 1 :] = gains[TOP]
        ahead = (likely > own).sum(1)
        equal = (likely == own).sum(1)
        return float(((gains[np.minimum(ahead + equal, TOP)] - gains[np.minimum(ahead, TOP)]) / equal).mean())

    def describe(self) -> Description:
        """See `DataModule.describe`."""
        found = super().describe()
        best = {split: self.best(split) for split in ("val", "test") if self.samples(split)}
        return self.described(
            **{key: getattr(found, key) for key in ("shape", "values", "length", "resized_by", "tested")},
            for_model={**found.for_model, "best": best},
        )
