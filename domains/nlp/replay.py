"""One token of a language model as a CUDA graph: its kernels, some hundred, are launched as one.

What launching them one by one takes is many times what they take: 30 ms a token for the 130m Mamba on an H100, 1.3 as a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .states import take_rows

WARM_UP = 2  # steps before the capture: kernels are compiled, and libraries take their memory, in them
DEVICES = ("cuda",)


class Replay:
    """A model's step on memory of its own, which each call moves on by one token.

    Args:
        model: called as model(token, states).
        token: (batch, 1) int64. states: after the tokens so far, of sizes that a step does not change; copied.
        capture: turns a function into one that repeats what it has launched.

    Raises:
        RuntimeError: the step cannot be captured: it waits for the card, say.
    """

    def __init__(self, model: nn.Module, token: Tensor, states: Sequence, capture: Callable | None = None):
        self.model, self.token = model, token.clone()
        self.states, self.scores = take_rows(states, range(len(token))), None
        self._again = (capture or captured)(self._step)
        for own, given in zip(tensors_of(self.states), tensors_of(states), strict=True):
            own.copy_(given)

    def __call__(self, token: Tensor) -> Tensor:
        """Scores (batch, vocabulary) of the token after this one, (batch, 1); the next call writes over them."""
        self.token.copy_(token)
        self._again()
        return self.scores

    def _step(self) -> None:
        scores, after = self.model(self.token, states=self.states)
        for own, new in zip(tensors_of(self.states), tensors_of(after), strict=True):
            own.copy_(new)
        self.scores = scores[:, -1]


def replayed(model: nn.Module, token: Tensor, before: Sequence, after: Sequence) -> Replay | None:
    """A Replay that goes on after a step, or None where there is none: another device, states that grow, what waits for the card.

    Args:
        token: (batch, 1), of the step. before, after: the states around it.
    """
    if token.device.type not in DEVICES:
        return None
    sizes = [[(t.shape, t.dtype) for t in tensors_of(states)] for states in (before, after)]
    if sizes[0] != sizes[1]:
        return None
    stream = torch.cuda.current_stream() if token.is_cuda else None
    try:
        return Replay(model, token, after)
    except RuntimeError:
        if stream is not None:
            torch.cuda.set_stream(stream)  # a capture that fails stays on its own
        return None


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph, after a few runs of it."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside), _waiting_is_an_error():
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """A step that reads numbers back, as experts without a limit of tokens do, fails here: a capture that fails leaves traces."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def tensors_of(nested) -> Iterator[Tensor]:
    """The tensors of states, in their order."""
    if torch.is_tensor(nested):
        yield nested
    else:
        for part in nested or ():
            yield from tensors_of(part)
