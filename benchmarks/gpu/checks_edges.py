"""What only a card can get wrong: edges of sizes, layouts of memory, streams, graphs, other devices, long sequences."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ...core.ops.causal_conv1d import causal_conv1d
from ...core.ops.selective_scan import selective_scan
from ...core.ops.state_space_duality import state_space_duality
from ...core.ops.tolerances import RELATIVE_ERROR
from ...domains.nlp.generation import generate
from ...domains.nlp.replay import Replay, tensors_of
from .cases_models import language_model
from .checks import Checks, Refused, near
from .device import Device

F32 = RELATIVE_ERROR[torch.float32]
TOKENS = ("x", "delta", "dt", "B", "C", "z")  # tensors with a row a token
BY_NAME = {"selective_scan": selective_scan, "causal_conv1d": causal_conv1d, "state_space_duality": state_space_duality}


def edge_checks(device: Device) -> Checks:
    for name in BY_NAME:
        for batch, length in ((2, 0), (2, 1), (0, 3), (1, 0)):
            yield f"{name}, batch {batch}, length {length}", partial(edge, name, batch, length, device)
        yield f"{name}, no steps in the order", partial(no_steps, name, device)
        yield f"{name}, rows that are slices of wider and shifted memory", partial(slices, name, device)
        for kind in (torch.int64, torch.int32):
            yield f"{name}, order and sequences of {str(kind)[6:]}", partial(integers, name, kind, device)
    if device.kind == "cuda":
        for name in BY_NAME:
            yield f"{name}, on a stream of its own", partial(stream, name, device)
            yield f"{name}, under autocast", partial(autocast, name, device)
        yield "decoding as a CUDA graph says what decoding says", partial(graph, device)
        yield "text is generated as a CUDA graph as without one", partial(generated, device)
        if torch.cuda.device_count() > 1:
            yield "every operator on the second card", partial(second_card, device)


def call(name: str, device: Device, batch: int = 2, length: int = 37, order: bool = False) -> tuple[dict, dict]:
    """(tensors, options) of a call with every argument, on the CPU."""
    length, (channels, states) = device.pick(length, min(length, 4)), device.pick((33, 16), (4, 3))
    g = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=g)

    if name == "causal_conv1d":
        tensors = {"x": normal(batch, length, channels), "weight": normal(channels, 4), "bias": normal(channels)}
        tensors |= {"initial_state": normal(batch, channels, 3)}
        options = {"activation": "silu"}
    elif name == "selective_scan":
        tensors = {"x": normal(batch, length, channels), "delta": normal(batch, length, channels)}
        tensors |= {
            "A": -normal(channels, states).exp(),
            "B": normal(batch, length, states),
            "C": normal(batch, length, states),
        }
        tensors |= {"D": normal(channels), "z": normal(batch, length, channels), "delta_bias": normal(channels)}
        tensors |= {"initial_state": normal(batch, channels, states)}
        options = {"delta_softplus": True}
    else:
        tensors = {"x": normal(batch, length, 4, 8), "dt": normal(batch, length, 4), "A": -normal(4).exp()}
        tensors |= {"B": normal(batch, length, 2, states), "C": normal(batch, length, 2, states), "D": normal(4)}
        tensors |= {"initial_state": normal(batch, 4, 8, states)}
        options = {"dt_softplus": True}
    if order:
        options["order"] = torch.randperm(length, generator=g)[None]
        options["seq_idx"] = (
            torch.arange(length).div(max(1, length // 3), rounding_mode="floor").expand(batch, -1).contiguous()
        )
    return tensors, options | {"return_final_state": True}


def compare(name: str, tensors: dict, options: dict, device: Device, prepare: Callable = lambda t: t) -> None:
    """Outputs and gradients on the device against the float64 reference on the CPU."""
    expected = _everything(name, tensors, options, lambda t: t, torch.float64, "cpu", "reference")
    found = _everything(name, tensors, options, prepare, torch.float32, device.name, "gpu")
    for part, value in expected.items():
        near(found[part], value, F32, part)


def _everything(name: str, tensors: dict, options: dict, prepare: Callable, kind: torch.dtype, on: str, backend: str):
    """Outputs and gradients by name; the gradient of what nothing was computed from is zero."""
    given = {n: t.to(on, kind).requires_grad_() for n, t in tensors.items()}
    laid = {n: prepare(t) if n in TOKENS else t for n, t in given.items()}
    moved = {n: v.to(on) if torch.is_tensor(v) else v for n, v in options.items()}
    out, state = BY_NAME[name](**laid, **moved, backend=backend)
    g = torch.Generator().manual_seed(0)
    incoming = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t) for t in (out, state)]
    found = torch.autograd.grad((out, state), list(given.values()), incoming, allow_unused=True, materialize_grads=True)
    return {"out": out, "state": state} | {f"d{n}": t for n, t in zip(given, found, strict=True)}


def edge(name: str, batch: int, length: int, device: Device) -> None:
    compare(name, *call(name, device, batch, length), device)


def no_steps(name: str, device: Device) -> None:
    tensors, options = call(name, device)
    compare(name, tensors, options | {"order": torch.zeros(1, 0, dtype=torch.int32)}, device)


def slices(name: str, device: Device) -> None:
    """Rows further apart than they are long, and an address that is no multiple of 16 bytes."""

    def embed(t):
        wide = torch.nn.functional.pad(t, (3, 2))
        return wide[..., 3 : 3 + t.shape[-1]]

    compare(name, *call(name, device, order=True), device, embed)

    def turned(t):
        return t.transpose(1, 2).contiguous().transpose(1, 2)

    compare(name, *call(name, device, order=True), device, turned)


def integers(name: str, kind: torch.dtype, device: Device) -> None:
    tensors, options = call(name, device, order=True)
    compare(name, tensors, options | {n: options[n].to(kind) for n in ("order", "seq_idx")}, device)


def stream(name: str, device: Device) -> None:
    """Inputs are still being written on that stream when the kernels are launched: they must be launched there too."""
    tensors, options = call(name, device, batch=4, length=512)
    on_card = {n: t.cuda() for n, t in tensors.items()}
    expected, _ = BY_NAME[name](**on_card, **options, backend="gpu")
    aside = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(aside), torch.no_grad():
        late = {n: torch.full_like(t, float("nan")) for n, t in on_card.items()}
        torch.cuda._sleep(50_000_000)
        for n, t in on_card.items():
            late[n].copy_(t)
        found, _ = BY_NAME[name](**late, **options, backend="gpu")
    aside.synchronize()
    if not torch.equal(found, expected):
        raise Refused("other numbers than on the default stream")


def autocast(name: str, device: Device) -> None:
    tensors, options = call(name, device)
    expected, _ = BY_NAME[name](**{n: t.double() for n, t in tensors.items()}, **options, backend="reference")
    moved = {n: t.cuda() for n, t in tensors.items()}
    with torch.autocast("cuda", torch.bfloat16):
        found, _ = BY_NAME[name](**moved | {"x": moved["x"].bfloat16()}, **options)
    near(found, expected, RELATIVE_ERROR[torch.bfloat16], "output")


def graph(device: Device) -> None:
    for name in ("mamba", "mamba2", "mamba3"):
        model = language_model(device, name, (64, 64, 2), torch.float32).eval()
        token = torch.tensor([[3], [5]], device="cuda")
        with torch.no_grad():
            _, states = model(token)
            replay = Replay(model, token, states)
            for number in range(3):
                token = (token + number) % 64
                expected, states = model(token, states)
                near(replay(token), expected[:, -1], F32, name)


def generated(device: Device) -> None:
    for name in ("mamba", "mamba2", "mamba3"):
        model = language_model(device, name, (64, 64, 2), torch.float32).eval()
        found = generate(model, [[3, 4], [5, 6]], max_new_tokens=8, temperature=0.0, return_states=True)
        tokens, states = torch.tensor([[3, 4], [5, 6]], device="cuda"), None
        for place in range(8):
            with torch.no_grad():
                scores, states = model(tokens, states)
            tokens = scores[:, -1].argmax(-1, keepdim=True)
            said = [row[place] for row in found.tokens]
            if said != tokens[:, 0].tolist():
                raise Refused(f"{name}, token {place}: {said}, expected {tokens[:, 0].tolist()}")
        with torch.no_grad():
            _, states = model(tokens, states)
        for a, b in zip(tensors_of(found.states), tensors_of(states), strict=True):
            near(a, b, 10 * F32, f"{name}, states after the text")


def second_card(device: Device) -> None:
    for name in BY_NAME:
        tensors, options = call(name, device, order=True)
        first, second = (
            BY_NAME[name](
                **{n: t.to(card) for n, t in tensors.items()},
                **{n: v.to(card) if torch.is_tensor(v) else v for n, v in options.items()},
            )
            for card in ("cuda:0", "cuda:1")
        )
        for a, b in zip(tensors_of(first), tensors_of(second), strict=True):
            if not torch.equal(a.cpu(), b.cpu()):
                raise Refused(f"{name} says something else on cuda:1")


def long_checks(device: Device) -> Checks:
    length = device.pick(131_072, 12)
    for name in BY_NAME:
        yield f"{name}, {length} tokens, chunks against the reference", partial(long, name, length, device)


def long(name: str, length: int, device: Device) -> None:
    """Outputs and gradients of chunks at the begin, in the middle and at the end of one long call against the float64
    reference, which is given the state before the chunk and the gradient of the state after it, both found by pieces.
    """
    chunk, (batch, channels) = device.pick(256, 2), device.pick((2, 64), (1, 4))
    tensors, options = _long_call(name, batch, length, channels, device)
    rows = [n for n in tensors if n in TOKENS]
    grad = torch.randn(tensors["x"].shape, generator=torch.Generator().manual_seed(1)).to(device.name)
    operator = partial(BY_NAME[name], **options, return_final_state=True)

    def leaves(part: slice, kind=torch.float32, **more):
        given = {n: (t[:, part] if n in rows else t).to(kind).detach().requires_grad_() for n, t in tensors.items()}
        return given | {n: t.to(kind).detach().requires_grad_() for n, t in more.items()}

    whole = leaves(slice(0, length))
    out, _ = operator(**whole, backend="gpu")
    gradients = dict(zip(whole, torch.autograd.grad(out, list(whole.values()), grad), strict=True))
    for begin in (0, length // 2, length - chunk):
        part, before, after = slice(begin, begin + chunk), slice(0, begin), slice(begin + chunk, length)
        with torch.no_grad():
            _, state = operator(**leaves(before), backend="gpu")
            _, reached = operator(**leaves(slice(0, begin + chunk)), backend="gpu")
        told = torch.zeros_like(state)
        if after.start < length:
            rest = leaves(after, initial_state=reached)
            said, _ = operator(**rest, backend="gpu")
            (told,) = torch.autograd.grad(said, [rest["initial_state"]], grad[:, after])
        exact = leaves(part, torch.float64, initial_state=state)
        expected, last = operator(**exact, backend="reference")
        wanted = [exact[n] for n in rows]
        found = torch.autograd.grad((expected, last), wanted, (grad[:, part].double(), told.double()))
        near(out[:, part], expected, F32, f"output from token {begin}")
        for n, value in zip(rows, found, strict=True):
            near(
                gradients[n][:, part], value, 2 * F32, f"d{n} from token {begin}"
            )  # state and its gradient are rounded too


def _long_call(name: str, batch: int, length: int, channels: int, device: Device) -> tuple[dict, dict]:
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g).to(device.name)

    states = device.pick(16, 3)
    if name == "causal_conv1d":
        return {"x": normal(batch, length, channels), "weight": normal(channels, 4)}, {"activation": "silu"}
    if name == "selective_scan":
        tensors = {"x": normal(batch, length, channels), "delta": normal(batch, length, channels) - 3}
        tensors |= {
            "A": -normal(channels, states).exp(),
            "B": normal(batch, length, states),
            "C": normal(batch, length, states),
        }
        return tensors | {"z": normal(batch, length, channels)}, {"delta_softplus": True}
    heads = max(1, channels // 32)
    tensors = {"x": normal(batch, length, heads, channels // heads), "dt": normal(batch, length, heads) - 3}
    tensors |= {"A": -normal(heads).exp(), "B": normal(batch, length, 1, states), "C": normal(batch, length, 1, states)}
    return tensors, {"dt_softplus": True}
