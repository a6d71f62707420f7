"""MiniRocket (arXiv 2012.08791): fixed convolutions whose outputs are counted, and a ridge classifier; a baseline without training.

Kernels of nine weights, three of them 2 and six -1, at many dilations; a feature is the share of a series' steps at which one
exceeds a bias. Several variables: each kernel and dilation sums a random subset of them, as the authors' multivariate form does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np

KERNELS = np.array(list(combinations(range(9), 3)))  # (84, 3), where the twos stand
MOST_DILATIONS = 32
GOLDEN = (5**0.5 + 1) / 2
MOST_CHANNELS = 9  # of a subset


class MiniRocket:
    """The transform: `fit` chooses dilations, biases and subsets by training series, calling it gives the features.

    Args:
        features: about how many; a multiple of 84 is kept.
        seed: of the series that biases are read from, and of the subsets.
    """

    def __init__(self, features: int = 10_000, seed: int = 0):
        self.features, self.seed = features, seed

    def fit(self, series: np.ndarray) -> MiniRocket:
        """Choose by training series, (series, length, variables)."""
        random = np.random.default_rng(self.seed)
        count, length, variables = series.shape
        self.dilations, each = _dilations(length, self.features // len(KERNELS))
        quantiles = iter((np.arange(1, len(KERNELS) * each.sum() + 1) * GOLDEN) % 1)
        most = min(variables, MOST_CHANNELS)
        self.subsets, self.biases = [], []
        for dilation, number in zip(self.dilations, each, strict=True):
            sizes = (2 ** random.uniform(0, np.log2(most + 1), len(KERNELS))).astype(int)
            self.subsets.append([random.choice(variables, size, replace=False) for size in sizes])
            rows, found = random.integers(count, size=len(KERNELS)), []
            for kernel, row in enumerate(rows):
                said = next(_convolved(series[row : row + 1], dilation, [self.subsets[-1][kernel]], [kernel]))
                found.append(np.quantile(said, [next(quantiles) for _ in range(number)]))
            self.biases.append(np.array(found))
        return self

    def __call__(self, series: np.ndarray) -> np.ndarray:
        """(series, length, variables) to features, (series, features) float32."""
        found = []
        for place, dilation in enumerate(self.dilations):
            convolved = _convolved(series, dilation, self.subsets[place], range(len(KERNELS)))
            for kernel, said in enumerate(convolved):
                # every second kernel counts only steps at which it lies within the series
                inner = 4 * dilation
                if (place + kernel) % 2 and said.shape[1] > 2 * inner:
                    said = said[:, inner:-inner]
                found += [(said > bias).mean(1, dtype=np.float32) for bias in self.biases[place][kernel]]
        return np.stack(found, 1)


def minirocket(train: np.ndarray, labels: np.ndarray, features: int = 10_000) -> Callable[[np.ndarray], np.ndarray]:
    """A ridge classifier over the features of training series: a function from series to their labels, (series,).

    Args:
        train: (series, length, variables). labels: (series,).
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    transform = MiniRocket(features).fit(train)
    # Not centred: the shares are few different numbers where series are short.
    model = make_pipeline(StandardScaler(with_mean=False), RidgeClassifierCV(np.logspace(-3, 3, 10)))
    model.fit(transform(train), labels)
    return lambda series: model.predict(transform(series))


def _dilations(length: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Dilations up to where a kernel fills a series, evenly in their logarithm, and features of each for a kernel."""
    most = min(each, MOST_DILATIONS)
    exponents = np.linspace(0, max(np.log2((length - 1) / 8), 0), most)
    dilations, counts = np.unique((2**exponents).astype(int), return_counts=True)
    counts = (counts * (each / most)).astype(int)
    # what rounding has left goes to the first ones, as many times round as it takes
    for number in range(each - counts.sum()):
        counts[number % len(counts)] += 1
    return dilations, counts


def _convolved(series: np.ndarray, dilation: int, subsets, kernels) -> Iterator[np.ndarray]:
    """What each kernel says at each step, zeros around the series, summed over a subset of variables: (series, length)."""
    length = series.shape[1]
    wide = np.pad(series.astype(np.float32), ((0, 0), (4 * dilation, 4 * dilation), (0, 0)))
    taps = np.stack([wide[:, tap * dilation : tap * dilation + length] for tap in range(9)])
    total = taps.sum(0)
    for subset, kernel in zip(subsets, kernels, strict=True):
        chosen = KERNELS[kernel]
        if series.shape[2] == 1:
            yield 3 * taps[chosen, ..., 0].sum(0) - total[..., 0]
        else:
            yield (3 * taps[chosen][..., subset].sum(0) - total[..., subset]).sum(-1)
