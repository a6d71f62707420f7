"""Making operators of a forward and a backward: what autograd, gradients of gradients and torch.vmap need, once for all of them.

An operator's registration.py declares two custom operators with their shape functions and ties them together here:

    forward(*arguments, [save]) -> out, final state, *kept
    backward(grad of out, grad of final state, *arguments, *kept) -> a gradient for each of its inputs, without those that are None

`arguments` end with the backend's name. `kept` is what backward wants to have from forward; where there is any, forward has
the argument `save`, which says whether to keep it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor
from torch.library import CustomOpDef
from torch.nn import Parameter

from .transforms import differentiated, watched


def backend_module(name: str, package: str) -> ModuleType:
    """The module of a backend: imported when it is first wanted."""
    return import_module(f".{name}", package)


def wants_gradient(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a backward may follow a call with these arguments."""
    if not torch.is_grad_enabled():
        return False
    # Under a transform a tensor does not show what is asked of the one inside it.
    hidden = not torch.compiler.is_compiling() and watched()
    return hidden or any(t is not None and t.requires_grad for t in tensors)


def register(forward: CustomOpDef, backward: CustomOpDef, reference: Callable, inputs: Sequence[str]) -> Callable:
    """Tie a backward to a forward.

    Args:
        reference: takes forward's arguments before the backend's name, returns out and final state; plain PyTorch.
        inputs: names of the differentiable arguments.

    Returns:
        The operator: of forward's arguments up to the backend's name, out and final state. It saves what backward needs only
        where a gradient is wanted.
    """
    names = list(inspect.signature(forward._init_fn).parameters)
    tie = _Tie(forward, backward, reference, [names.index(name) for name in inputs], names)
    tie.register()
    return tie.call


class _Tie:
    def __init__(self, forward, backward, reference, inputs: list[int], names: list[str]):
        self.forward, self.backward, self.reference = forward, backward, reference
        self.inputs, self.names, self.backend = inputs, names, names.index("backend")
        self.saves = names[-1] == "save"
        # Whether a backward that is only told the gradient of the final state can do without the other.
        self.needs_grad_out = "Optional" not in str(backward._opoverload._schema.arguments[0].real_type)

    def register(self) -> None:
        self.forward.register_autograd(self.gradients, setup_context=self._keep)
        self.backward.register_autograd(self._second_gradients, setup_context=_keep_all)
        for operator in (self.forward, self.backward):
            operator.register_vmap(_one_by_one(operator))

    def call(self, *arguments) -> tuple[Tensor, Tensor]:
        save = wants_gradient([arguments[place] for place in self.inputs])
        if unwatched(arguments):
            if save:
                return _Straight.apply(self, *arguments)
            return self.forward._init_fn(*arguments, *[False] * self.saves)[:2]
        return self.forward(*arguments, *[save] * self.saves)[:2]

    def _keep(self, ctx, inputs, output) -> None:
        self.keep(ctx, inputs[:-1] if self.saves else inputs, output)
        ctx.saved = not self.saves or inputs[-1]
        ctx.mark_non_differentiable(*output[2:])

    def keep(self, ctx, arguments, output) -> None:
        _keep_all(ctx, [*arguments, *output[2:]], None)
        ctx.out_shape, ctx.saved = output[0].shape, True
        ctx.set_materialize_grads(False)

    def gradients(self, ctx, *grads):
        grad_out, grad_state, arguments = *grads[:2], _kept(ctx)
        found = [None] * len(self.names)
        if grad_out is None and grad_state is None:
            return tuple(found)
        if differentiated((grad_out, grad_state)):
            gradients = iter(self._by_reference(arguments)(grad_out, grad_state, *self._given(arguments)))
        else:
            if grad_out is None and self.needs_grad_out:
                grad_out = arguments[0].new_zeros(ctx.out_shape)
            if not ctx.saved:  # traced without gradients, run with them
                given = arguments[: self.backend + 1]
                arguments = [*given, *self.forward(*given, True)[2:]]
            straight = not torch.is_grad_enabled() and unwatched([grad_out, grad_state, *arguments])
            backward = self.backward._init_fn if straight else self.backward
            gradients = iter(backward(grad_out, grad_state, *arguments))
        for place in self.inputs:
            found[place] = None if arguments[place] is None else next(gradients)
        return tuple(found)

    def _second_gradients(self, ctx, grads):
        grad_out, grad_state, *arguments = _kept(ctx)
        given, places = self._given(arguments), [place for place in self.inputs if arguments[place] is not None]
        present = [t for t in (grad_out, grad_state) if t is not None]

        def gradients(*tensors):
            told = iter(tensors[: len(present)])
            outer = (None if t is None else next(told) for t in (grad_out, grad_state))
            return self._by_reference(arguments)(*outer, *tensors[len(present) :])

        values, pull = torch.func.vjp(gradients, *present, *given)
        asked = tuple(torch.zeros_like(v) if g is None else g for v, g in zip(values, grads, strict=True))
        answers = iter(pull(asked))
        found = [None if t is None else next(answers) for t in (grad_out, grad_state)] + [None] * len(arguments)
        for place, answer in zip(places, answers, strict=True):
            found[2 + place] = answer
        return tuple(found)

    def _given(self, arguments: list) -> list[Tensor]:
        return [arguments[place] for place in self.inputs if arguments[place] is not None]

    def _by_reference(self, arguments: list) -> Callable:
        """(grad_out, grad_state, *differentiable inputs) -> gradients, by the definition: differentiable without end."""
        places = [place for place in self.inputs if arguments[place] is not None]

        def outputs(*tensors):
            filled = arguments[: self.backend]
            for place, tensor in zip(places, tensors, strict=True):
                filled[place] = tensor
            return self.reference(*filled)

        def gradients(grad_out, grad_state, *tensors):
            values, pull = torch.func.vjp(outputs, *tensors)
            grads = (grad_out, grad_state)
            return pull(
                tuple(torch.zeros_like(v) if g is None else g.to(v.dtype) for v, g in zip(values, grads, strict=True))
            )

        return gradients


class _Straight(torch.autograd.Function):
    """The operator past PyTorch's dispatcher, which takes longer than a narrow layer's kernel."""

    @staticmethod
    def forward(ctx, tie: _Tie, *arguments):
        output = tie.forward._init_fn(*arguments, *[True] * tie.saves)
        tie.keep(ctx, arguments, output)
        ctx.tie = tie
        return output[:2]

    @staticmethod
    def backward(ctx, *grads):
        return None, *ctx.tie.gradients(ctx, *grads)[: ctx.tie.backend + 1]


def unwatched(arguments: Sequence) -> bool:
    """Whether these are ordinary tensors, on a CPU or a card, that nothing watches, so that no one misses the dispatcher."""
    return not watched() and all(
        # Inside PyTorch's older vmap, which is_grads_batched uses, tensors have no memory of their own.
        type(value) in (Tensor, Parameter) and (value.is_cpu or value.is_cuda) and torch._C._has_storage(value)
        for value in arguments
        if isinstance(value, Tensor)
    )


def plain(arguments: Sequence) -> bool:
    """Whether they are that, and on the CPU, where its kernels may be told their addresses."""
    return unwatched(arguments) and all(value.is_cpu for value in arguments if isinstance(value, Tensor))


def _keep_all(ctx, inputs, output) -> None:
    ctx.save_for_backward(*(value if isinstance(value, Tensor) else None for value in inputs))
    ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]


def _kept(ctx) -> list:
    return [other if tensor is None else tensor for tensor, other in zip(ctx.saved_tensors, ctx.others, strict=True)]


def _one_by_one(operator: CustomOpDef) -> Callable:
    """The rule of torch.vmap: one call for each entry, whichever arguments have them."""

    def rule(info, in_dims, *arguments):
        calls = [
            operator(
                *(a if axis is None else a.select(axis, entry) for a, axis in zip(arguments, in_dims, strict=True))
            )
            for entry in range(info.batch_size)
        ]
        stacked = type(calls[0])(torch.stack(outputs) for outputs in zip(*calls, strict=True))
        return stacked, type(stacked)([0] * len(stacked))

    return rule
