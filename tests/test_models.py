"""What every model of every domain has to stand; a model joins by its YAML file."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from domains_under_test import NAMES, packaged
from torch.utils._pytree import tree_leaves, tree_map

from polymamba.core.errors import UserError
from polymamba.core.mixers.mixer import PathMixer
from polymamba.core.stages import has_walks, walks_of
from polymamba.engine.command_line.compose import compose
from polymamba.engine.training.assembly import build_parts

MODELS = [(name, model) for name in NAMES for model in packaged(name).models()]


@pytest.fixture(scope="module", params=MODELS, ids=lambda param: "-".join(param))
def parts(request, tmp_path_factory):
    """Data, model and task of a small run."""
    name, model = request.param
    crossing = packaged(name).crossing
    further = getattr(crossing, "MODELS", {}).get(model, ())
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp(f"{name}-{model}")
        patch.chdir(folder)
        patch.setenv("POLYMAMBA_CACHE", str(folder / "cache"))
        getattr(crossing, "prepare", lambda folder: None)(Path(folder))
        try:
            yield build_parts(compose([f"domain={name}", f"model={model}", *crossing.SHORT, *further]))
        except UserError as error:
            if "not installed" not in str(error):
                raise
            pytest.skip(str(error).splitlines()[0])


@pytest.fixture
def batch(parts):
    return parts.data.example(3)


def answers(model, inputs):
    """The floating point numbers of what a model says, one tensor each."""
    model.eval()
    with torch.no_grad():
        return [each for each in tree_leaves(model(*inputs)) if torch.is_tensor(each) and each.is_floating_point()]


def in_dtype(inputs, dtype):
    """The same inputs, their floating point numbers in that dtype."""
    return tree_map(lambda each: each.to(dtype) if torch.is_tensor(each) and each.is_floating_point() else each, inputs)


def test_every_parameter_learns_from_every_batch(parts, batch):
    parts.task.train()
    parts.task.zero_grad()
    loss, _ = parts.task.step(batch, "train")
    loss.backward()
    parameters = dict(parts.model.named_parameters())
    assert loss.isfinite()
    assert [name for name, each in parameters.items() if each.requires_grad and each.grad is None] == []
    assert [name for name, each in parameters.items() if each.grad is not None and not each.grad.isfinite().all()] == []


def test_the_same_batch_gives_the_same_answer(parts, batch):
    inputs = parts.task.inputs(batch)
    assert all(map(torch.equal, answers(parts.model, inputs), answers(parts.model, inputs)))


def test_samples_do_not_see_one_another(parts, batch):
    # in float64: norms over a few tokens make much of how a convolution rounds in batches of another size
    batch = in_dtype(batch, torch.float64)
    try:
        together = answers(parts.model.double(), parts.task.inputs(batch))[0]
        for number in range(len(together)):
            one = tree_map(lambda each, n=number: each[n : n + 1] if torch.is_tensor(each) else each, batch)
            alone = answers(parts.model, parts.task.inputs(one))[0]
            torch.testing.assert_close(alone[0], together[number], rtol=1e-6, atol=1e-8)
    finally:
        parts.model.float()


def test_float64_says_the_same_and_bfloat16_something(parts, batch):
    inputs = parts.task.inputs(batch)
    single = answers(parts.model, inputs)[0]
    try:
        double = answers(parts.model.double(), in_dtype(inputs, torch.float64))[0]
        assert double.dtype == torch.float64
        torch.testing.assert_close(single.double(), double, rtol=2e-3, atol=2e-4)
        half = answers(parts.model.bfloat16(), in_dtype(inputs, torch.bfloat16))[0]
        assert half.isfinite().all()
        assert half.shape == single.shape
    finally:
        parts.model.float()


def test_weights_go_into_a_new_model_and_come_out_the_same(parts, batch):
    inputs = parts.task.inputs(batch)
    answers(parts.model, inputs)  # what a training step has left in the model has a graph, which cannot be copied
    other = deepcopy(parts.model)
    with torch.no_grad():
        for each in other.parameters():
            each.add_(torch.randn_like(each))
    state = {name: value.clone() for name, value in parts.model.state_dict().items()}
    other.load_state_dict(state)
    assert all(map(torch.equal, answers(parts.model, inputs), answers(other, inputs)))
    assert all(torch.equal(other.state_dict()[name], value) for name, value in state.items())


def test_it_says_what_it_costs(parts):
    sizes = [each.numel() for each in parts.model.parameters()]
    assert sum(sizes) > 0
    if hasattr(parts.model, "flops"):
        assert parts.model.flops(1) > 0


def test_what_it_says_is_walked_is_what_its_mixers_see(parts, batch):
    if parts.scan is None or not has_walks(parts.model):
        pytest.skip("it says no walks")
    said, seen = {grid.length for _, grid, _ in walks_of(parts.model, parts.scan)}, set()
    mixers = [each for each in parts.model.modules() if isinstance(each, PathMixer)]
    hooks = [each.register_forward_pre_hook(lambda mixer, given: seen.add(given[0].shape[1])) for each in mixers]
    answers(parts.model, parts.task.inputs(batch))
    for hook in hooks:
        hook.remove()
    assert not mixers or said <= seen


@pytest.mark.slow
def test_compiled_it_says_the_same(parts, batch):
    inputs = parts.task.inputs(batch)
    expected = answers(parts.model, inputs)
    torch._dynamo.reset()
    found = answers(torch.compile(parts.model, backend="aot_eager"), inputs)
    try:
        exact = answers(parts.model.double(), in_dtype(inputs, torch.float64))
    finally:
        parts.model.float()
    for one, other, true in zip(expected, found, exact, strict=True):
        rounding = float((one - true).abs().max())  # no sum in another order is nearer than float32 itself is
        torch.testing.assert_close(one, other, rtol=1e-4, atol=max(1e-5, 2 * rounding))
