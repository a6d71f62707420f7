"""Selective copying, induction heads and multi-query associative recall."""

from __future__ import annotations

import numpy as np

from ...core.errors import UserError
from ...core.ranges import Length, Positive, Size, checked
from ..loading import Loading
from ..randomness import hashed, uniforms
from .sources import INDUCTION_HEADS, MQAR_SOURCE, SELECTIVE_COPYING
from .synthetic import Symbols, SyntheticData, chosen, integers, unscored


class SelectiveCopying(SyntheticData):
    """Remember the data tokens that stand at random places among noise, then write them in order.

    A sample is `length` tokens, `data_tokens` of them data (numbers 1 to vocab_size - 2) and the rest noise (0), then
    `data_tokens` marks (vocab_size - 1). At the marks the data tokens are asked for, in the order in which they came;
    accuracy is the share of them that is right.

    Args:
        length: tokens before the marks. data_tokens: how many are remembered. vocab_size: with noise and mark.
        samples: training samples in an epoch. val_samples, test_samples: of validation and test.
        fresh, test_lengths, train_lengths: see `SyntheticData`.
        loading, name: see `PythonDocs`.
    """

    source = SELECTIVE_COPYING
    noise = 0

    def __init__(
        self,
        length: Length = 4096,
        data_tokens: Size = 16,
        vocab_size: Size = 16,
        samples: Size = 64_000,
        val_samples: Size = 256,
        test_samples: Size = 512,
        fresh: bool = True,
        test_lengths: list[Size] | None = None,
        train_lengths: list[Size] | None = None,
        loading: Loading = Loading(batch_size=64),
        name: str = "selective_copying",
    ):
        self.data_tokens = self.extra_tokens = data_tokens
        super().__init__(
            name, loading, length, vocab_size, samples, val_samples, test_samples, fresh, test_lengths, train_lengths
        )
        if vocab_size < 4:
            raise UserError(
                "data.vocab_size does not fit", given=vocab_size, allowed="4 or more: noise, mark, two data"
            )

    def check_length(self, length: int) -> None:
        """See `SyntheticData.check_length`."""
        if not 1 <= self.data_tokens <= length:
            raise UserError(
                "data.data_tokens does not fit", given=self.data_tokens, allowed=f"1 to the shortest length ({length})"
            )

    def make(self, keys: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """See `SyntheticData.make`: (batch, length + data_tokens)."""
        count = self.data_tokens
        data = integers(keys, 1, count, 1, self.vocab_size - 1)
        places = np.sort(chosen(keys, 2, count, length), 1)
        inputs = np.full((len(keys), length + count), self.noise, np.int64)
        np.put_along_axis(inputs, places, data, 1)
        inputs[:, length:] = self.vocab_size - 1
        labels = unscored(inputs.shape)
        labels[:, length:] = data
        return inputs, labels

    def answers(self) -> int:
        """See `SyntheticData.answers`: the data tokens."""
        return self.vocab_size - 2

    def symbols(self) -> Symbols:
        """Noise is a dot, the mark a question mark."""
        return Symbols(self.vocab_size, {self.noise: "·", self.vocab_size - 1: "?"})


class InductionHeads(SyntheticData):
    """Say again what followed the special token when it came before.

    A sample is `length` random tokens (numbers 0 to vocab_size - 2); the special one (vocab_size - 1) stands at a random
    place and again at the end. There the token that followed it the first time is asked for, and nothing else is.

    Args:
        length: tokens of a sample. vocab_size: with the special token.
        samples: training samples in an epoch. val_samples, test_samples: of validation, and of each test length.
        fresh, test_lengths, train_lengths: see `SyntheticData`.
        loading, name: see `PythonDocs`.
    """

    source = INDUCTION_HEADS

    def __init__(
        self,
        length: Length = 256,
        vocab_size: Size = 16,
        samples: Size = 65_536,
        val_samples: Size = 512,
        test_samples: Size = 256,
        fresh: bool = True,
        test_lengths: list[Size] | None = None,
        train_lengths: list[Size] | None = None,
        loading: Loading = Loading(batch_size=8),
        name: str = "induction_heads",
    ):
        super().__init__(
            name, loading, length, vocab_size, samples, val_samples, test_samples, fresh, test_lengths, train_lengths
        )
        if vocab_size < 3:
            raise UserError("data.vocab_size does not fit", given=vocab_size, allowed="3 or more: special, two others")

    def check_length(self, length: int) -> None:
        """See `SyntheticData.check_length`."""
        if not isinstance(length, int) or length < 3:
            raise UserError(
                "data.length, data.test_lengths or data.train_lengths does not fit", given=length, allowed="3 or more"
            )

    def make(self, keys: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """See `SyntheticData.make`: (batch, length)."""
        special = self.vocab_size - 1
        inputs = integers(keys, 1, length, 0, special)
        # the token after it must not be the special one at the end
        place = integers(keys, 2, 1, 0, length - 2)
        np.put_along_axis(inputs, place, special, 1)
        inputs[:, -1] = special
        labels = unscored(inputs.shape)
        labels[:, -1] = np.take_along_axis(inputs, place + 1, 1)[:, 0]
        return inputs, labels

    def answers(self) -> int:
        """See `SyntheticData.answers`: all but the special one."""
        return self.vocab_size - 1

    def symbols(self) -> Symbols:
        """The special token is a star."""
        return Symbols(self.vocab_size, {self.vocab_size - 1: "*"})


class MQAR(SyntheticData):
    """Multi-query associative recall: pairs of keys and values first, then each key once more, its value asked for.

    A sample begins with `pairs` different keys (numbers 1 to vocab_size / 2 - 1), each followed by its value (vocab_size / 2
    to vocab_size - 1, all different). Behind them each key stands once more at an even distance, drawn with probability
    proportional to distance to the power of `power` - 1; there its value is asked for. All else is 0, or random
    tokens where `random_fill`.

    Args:
        length: tokens of a sample. pairs: of key and value. vocab_size: half of it keys.
        power: of the distances' distribution; the smaller, the nearer.
        random_fill: random tokens, not 0, where nothing stands.
        mixture: other (length, pairs), in training as `SyntheticData`'s train_lengths, and in the test too (as Zoology does in
            arXiv 2402.18668).
        samples: training samples in an epoch. val_samples, test_samples: of validation, and of each test length.
        fresh: other training samples in every epoch; False: the same ones (of a mixture the same ones of each length).
        loading, name: see `PythonDocs`.
    """

    source = MQAR_SOURCE

    @checked(group="data")
    def __init__(
        self,
        length: Length = 64,
        pairs: Size = 4,
        vocab_size: Size = 8192,
        power: Positive = 0.01,
        random_fill: bool = False,
        mixture: list[list[int]] | None = None,
        samples: Size = 100_000,
        val_samples: Size = 512,
        test_samples: Size = 3_000,
        fresh: bool = True,
        loading: Loading = Loading(batch_size=512),
        name: str = "mqar",
    ):
        self.power, self.random_fill = power, random_fill
        self.pairs = self._pairs([*(mixture or []), [length, pairs]])
        lengths = sorted(self.pairs)
        super().__init__(name, loading, length, vocab_size, samples, val_samples, test_samples, fresh, lengths, lengths)
        most = max(self.pairs.values())
        if vocab_size // 2 - 1 < most:
            raise UserError("data.vocab_size does not fit", given=vocab_size, allowed=f"{2 * most + 2} or more")

    @staticmethod
    def _pairs(mixture: list[list[int]]) -> dict[int, int]:
        """How many pairs a sample of each length has."""
        if any(len(each) != 2 for each in mixture) or len({each[0] for each in mixture}) < len(mixture):
            raise UserError(
                "data.mixture does not fit", given=mixture[:-1], do="data.mixture=[[64,4],[128,8]]",
                allowed="pairs of a length and a number of pairs, each length once and none of them data.length",
            )  # fmt: skip
        return dict(mixture)

    def check_length(self, length: int) -> None:
        """See `SyntheticData.check_length`."""
        pairs = self.pairs[length]
        if pairs < 1 or length % 2 or length < 4 * pairs:
            raise UserError(
                "data.length and data.pairs do not go together", given=f"length={length}, pairs={pairs}",
                allowed="an even length of at least 4 times the pairs",
            )  # fmt: skip

    def make(self, keys: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """See `SyntheticData.make`: (batch, length)."""
        pairs = self.pairs[length]
        half, start = self.vocab_size // 2, 2 * pairs
        asked = 1 + chosen(keys, 1, pairs, half - 1)
        values = half + chosen(keys, 2, pairs, self.vocab_size - half)
        places = start + 2 * self._gaps(keys, pairs, (length - start) // 2)
        inputs = np.zeros((len(keys), length), np.int64)
        inputs[:, 0:start:2], inputs[:, 1:start:2] = asked, values
        np.put_along_axis(inputs, places, asked, 1)
        labels = unscored(inputs.shape)
        np.put_along_axis(labels, places, values, 1)
        if self.random_fill:
            inputs = np.where(inputs == 0, integers(keys, 3, length, 0, self.vocab_size), inputs)
        return inputs, labels

    def answers(self) -> int:
        """See `SyntheticData.answers`: the values."""
        return self.vocab_size - self.vocab_size // 2

    def symbols(self) -> Symbols:
        """What stands where nothing stands is a dot."""
        return Symbols(self.vocab_size, {0: "·"})

    def _gaps(self, keys: np.ndarray, pairs: int, space: int) -> np.ndarray:
        """Different numbers below `space`, one a pair, the earlier ones likelier: int64 (batch, pairs).

        Drawing without replacement by weight is the same as taking the smallest exponential waiting times.
        """
        weights = np.arange(1, space + 1) ** (self.power - 1)
        waits = -np.log1p(-uniforms(space, hashed(keys, 4))) / weights
        return np.argsort(waits, 1, kind="stable")[:, :pairs]
