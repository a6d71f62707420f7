"""Whole mixers, decoding and training steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...core import mixers
from ...domains.nlp.models.language_model import LanguageModel
from ...domains.nlp.replay import Replay
from .cases import KERNEL, Calls, Case, Work, first, numbers, passes
from .device import Device, use_kernels

WIDTH, LAYERS, VOCABULARY = 768, 24, 50277
BATCH, LENGTH = 8, 2048
MIXERS = {
    "mamba": {},
    "mamba2": {},
    "mamba3": {},
    "mamba3, rank 4": {"is_mimo": True},
    "s4d": {},
    "attention": {"num_heads": 12},
}
SMALL = {"mamba": {"d_state": 4}, "mamba2": {"d_state": 4, "headdim": 8}, "mamba3": {"d_state": 4, "headdim": 8}}
SMALL |= {"s4d": {"d_state": 4}, "attention": {"num_heads": 2}}


def mixer_cases(device: Device) -> Iterator[Case]:
    batch, length, width = device.pick((BATCH, LENGTH, WIDTH), (1, 3, 8))
    for name, options in MIXERS.items():
        options = options | (SMALL[name.split(",")[0]] if device.small else {})
        with torch.device("meta"):
            layers = _linears(mixers.get(name.split(",")[0])(width, **options))
        products = sum(layer.weight.numel() for layer in layers) * batch * length
        for which in ("forward", "forward+backward"):
            times = 1 if which == "forward" else 3
            work = Work(times * 4 * batch * length * width, 0, times * 2 * products)
            build = partial(_mixers, name.split(",")[0], options, batch, length, width, which)
            label = f"{name} mixer {which}, d_model {width}, batch {batch}, length {length}, bfloat16"
            yield Case(label, build, work, batch * length)


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def _mixers(name, options, batch, length, width, which, device: Device) -> Calls:
    torch.manual_seed(0)
    mixer = use_kernels(mixers.get(name)(width, **options, device=device.name, dtype=torch.bfloat16))
    layers = _linears(mixer)
    ours = {"x": numbers(device, batch, length, width)} | dict(mixer.named_parameters())
    alone = {f"x{i}": numbers(device, batch, length, layer.in_features) for i, layer in enumerate(layers)}
    alone |= {f"w{i}": layer.weight for i, layer in enumerate(layers)}

    def linears(**given):
        return [F.linear(given[f"x{i}"], given[f"w{i}"]) for i in range(len(layers))]

    found = {KERNEL: passes(lambda x, **_: mixer(x), ours, which), "its linear layers": passes(linears, alone, which)}
    if name in ("mamba", "mamba2", "mamba3") and device.kind == "cuda" and "is_mimo" not in options:
        found["official mixer"] = _lazily(partial(_official_mixer, name, width, ours["x"], which, device))
    return found


def _official_mixer(name, width, x, which, device: Device):
    import mamba_ssm

    mixer = {"mamba": mamba_ssm.Mamba, "mamba2": mamba_ssm.Mamba2, "mamba3": mamba_ssm.Mamba3}[name](
        width, device=device.name, dtype=torch.bfloat16
    )
    return passes(lambda x, **_: mixer(x), {"x": x} | dict(mixer.named_parameters()), which)


def _lazily(make: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    """A call that is made when first called, so that its error is its own."""
    made: list[Callable[[], object]] = []

    def run():
        if not made:
            made.append(make())
        return made[0]()

    return run


def decoding_cases(device: Device) -> Iterator[Case]:
    sizes = device.pick((VOCABULARY, WIDTH, LAYERS), (32, 8, 1))
    for name in ("mamba", "mamba2"):
        for batch in device.pick((1, 128), (5,)):  # the quick way for few tokens on a CPU takes 4
            yield Case(
                f"decoding, {name} of 130m size, batch {batch}, bfloat16", partial(_decoding, name, sizes, batch),
                _decoding_work(device, name, sizes, batch), batch,
            )  # fmt: skip


def language_model(device: Device, mixer: str, sizes: tuple[int, int, int], dtype=torch.bfloat16) -> LanguageModel:
    torch.manual_seed(0)
    options = SMALL[mixer] if device.small else {}
    return use_kernels(LanguageModel(*sizes, mixer, options, backend="gpu", device=device.name, dtype=dtype))


def _decoding_work(device: Device, name: str, sizes: tuple[int, int, int], batch: int) -> Work:
    """Each weight once, each state once in and once out."""
    weights = sum(p.nbytes for p in language_model(device._replace(name="meta"), name, sizes).parameters())
    _, width, layers = sizes
    states = (device.pick(16, 4) if name == "mamba" else device.pick(128, 4)) * 2 * width * 4
    return Work(weights + 2 * batch * layers * states)


def _decoding(name, sizes, batch, device: Device) -> Calls:
    model = language_model(device, name, sizes).eval()
    token = torch.zeros(batch, 1, dtype=torch.long, device=device.name)
    with torch.no_grad():
        _, states = model(token)
        _, states = model(token, states)

    def step():
        with torch.no_grad():
            return model(token, states)

    found = {KERNEL: step}
    if device.kind == "cuda":
        found["as a CUDA graph"] = _lazily(partial(_replay, model, token, states))
    return found


def _replay(model: nn.Module, token: Tensor, states) -> Callable[[], Tensor]:
    with torch.no_grad():
        return partial(Replay(model, token, states), token)


def training_cases(device: Device) -> Iterator[Case]:
    image, batch = device.pick((224, 64), (8, 1))
    model = _vim(device._replace(name="meta"))
    yield Case(
        f"training step, Vim-tiny, {image} pixels, batch {batch}, bfloat16 autocast", partial(_train_vim, batch),
        Work(flops=3 * model.flops(batch)), batch * model.tokens,
    )  # fmt: skip
    batch, length = device.pick((BATCH, LENGTH), (1, 4))
    for name in ("mamba", "mamba2"):
        sizes = device.pick((VOCABULARY, WIDTH, LAYERS), (32, 8, 1))
        model = language_model(device._replace(name="meta"), name, sizes)
        flops = 3 * batch * (model.backbone.flops(length) + 2 * length * model.lm_head.weight.numel())
        yield Case(
            f"training step, {name} language model of 130m size, batch {batch}, length {length}, bfloat16 autocast",
            partial(_train_language, name, sizes, batch, length), Work(flops=flops), batch * length,
        )  # fmt: skip


def _vim(device: Device):
    from ...domains.vision.models.vim import SIZES, Vim

    torch.manual_seed(0)
    small = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "d_state": 4, "num_classes": 5}
    return use_kernels(Vim(**(small if device.small else SIZES["tiny"]), backend="gpu", device=device.name))


def _train_vim(batch: int, device: Device) -> Calls:
    model = _vim(device)
    side, classes = model.img_size[0], model.num_classes
    x = torch.randn(batch, 3, side, side, device=device.name)
    labels = torch.arange(batch, device=device.name) % classes
    return _training(device, model, lambda: F.cross_entropy(model(x.to(model.norm_f.weight.dtype)).float(), labels))


def _train_language(name, sizes, batch, length, device: Device) -> Calls:
    model = language_model(device, name, sizes, dtype=torch.float32)
    tokens = torch.arange(batch * (length + 1), device=device.name).view(batch, -1) % sizes[0]

    def loss():
        scores = first(model(tokens[:, :-1]))
        return F.cross_entropy(scores.flatten(0, 1).float(), tokens[:, 1:].flatten())

    return _training(device, model, loss)


def _training(device: Device, model: nn.Module, loss: Callable[[], Tensor]) -> Calls:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.kind == "cuda")
    # Tensors without numbers know no autocast: their weights are bfloat16.
    half = torch.autocast(device.name, torch.bfloat16) if device.kind != "meta" else nullcontext()
    if device.kind == "meta":
        model.to(torch.bfloat16)

    def step():
        with half:
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        return value

    return {KERNEL: step}
