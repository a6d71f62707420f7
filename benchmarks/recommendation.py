"""Recommendation: a training step by history length, one event of serving, the best items of all users, a million items."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

from ..domains.recommendation import losses
from ..domains.recommendation.models.gru4rec import GRU4Rec
from ..domains.recommendation.models.mamba4rec import Mamba4Rec
from ..domains.recommendation.models.sasrec import SASRec
from ..domains.recommendation.models.sequential import Recommender
from ..domains.recommendation.serving import Server
from ..domains.recommendation.top_k import best_items
from .timing import Comparison, clock, in_turn, peak, row

ITEMS = 12_101  # Amazon Beauty's
LENGTHS = (50, 200, 1000)
MANY = 100_000
USERS = 512  # at a time
MODELS: dict[str, type[Recommender]] = {"Mamba4Rec": Mamba4Rec, "SASRec": SASRec, "GRU4Rec": GRU4Rec}

MILLION = """
import time, torch
from polymamba.domains.recommendation import losses
from polymamba.domains.recommendation.models.gru4rec import GRU4Rec
from polymamba.domains.recommendation.top_k import best_items
torch.manual_seed(0)
model = GRU4Rec(1_000_000, 50)
optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
rows, seconds, lost = torch.randint(1, 1_000_001, (32, 51)), [], []
for _ in range(4):
    begin = time.process_time()
    hidden, _ = model(rows[:, :-1])
    loss = losses.sampled(model, hidden.flatten(0, 1), rows[:, 1:].flatten(), 4096)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seconds.append(time.process_time() - begin)
    lost.append(float(loss))
best_items(model, model.eval().encode(rows[:, :-1]).detach(), 10, rows[:, -1])
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print([min(seconds), peak / 1024, lost[0], lost[-1]])
"""


def training_suite(device: str) -> Iterator[dict]:
    """CPU (on a GPU wall-clock) seconds of a training step, cross-entropy over Beauty's items, against SASRec's."""
    for length in LENGTHS:
        rows = torch.randint(1, ITEMS + 1, (max(1, 3200 // length), length + 1), device=device)
        models = {name: make(ITEMS, length).to(device).train() for name, make in MODELS.items()}

        def step(model: Recommender, rows: torch.Tensor = rows) -> None:
            hidden, _ = model(rows[:, :-1])
            losses.full(model, hidden.flatten(0, 1), rows[:, 1:].flatten()).backward()

        measured = in_turn({name: lambda model=model: step(model) for name, model in models.items()}, device)
        for name in models:
            yield row(
                "recommendation_training",
                f"{len(rows)} histories of {length}, forward+backward",
                measured,
                name,
                "SASRec",
            )


@torch.inference_mode()
def serving_suite(device: str) -> Iterator[dict]:
    """One event more of 64 users, by the length of their histories: from the kept states, and reading all again."""
    for name, make in MODELS.items():
        model = make(ITEMS, max(LENGTHS) + 16).to(device).eval()
        moves: dict[str, Callable[[], object]] = {}
        for length in LENGTHS:
            rows = torch.randint(1, ITEMS + 1, (64, length), device=device)
            hidden, states = model(rows)
            server = Server(model, device)
            server.put(range(64), rows, hidden, states)
            more = torch.randint(1, ITEMS + 1, (64,))
            moves[f"{name}, {length} events before"] = lambda server=server, more=more: server.update(range(64), more)
            moves[f"{name}, {length} read again"] = lambda rows=rows, model=model: model.encode(rows)
        measured = in_turn(moves, device)
        for what in moves:
            case = "an event of 64 users"
            yield row("recommendation_serving", case, measured, what, f"{name}, {LENGTHS[0]} events before")


@torch.inference_mode()
def top_k_suite(device: str) -> Iterator[dict]:
    """The ten best of 100,000 items for 100,000 users, against the product of their vectors alone."""
    model = GRU4Rec(MANY, 50).to(device).eval()
    hidden = torch.randn(MANY, 64, device=device)
    table = model.item_embedding.weight[1:].T
    seen = torch.randint(1, MANY + 1, (USERS, 50), device=device)
    ways = {
        "product alone": lambda part: part @ table,
        "ten best": lambda part: best_items(model, part, 10),
        "ten best, 50 seen hidden": lambda part: best_items(model, part, 10, hide=seen[: len(part)]),
        "product and torch.topk": lambda part: (part @ table).topk(10, 1),
    }
    seconds: dict[str, list[float]] = {name: [0.0] for name in ways}
    for part in hidden.split(USERS):
        for name, way in ways.items():
            begin = clock(device)
            way(part)
            seconds[name][0] += clock(device) - begin
    measured, case = Comparison(seconds), f"{MANY:,} users, {MANY:,} items, 64 channels"
    for name, way in ways.items():
        facts = {"users_an_hour": round(3600 * MANY / measured.best(name))}
        if device == "cpu" and sys.platform == "linux":
            facts["megabytes"] = peak(lambda way=way: way(hidden[:USERS]))
        yield row("recommendation_top_k", case, measured, name, "product alone", **facts)


def million_suite(device: str) -> Iterator[dict]:
    """A training step and a ranking with a million items in a process of its own: sampled softmax of 4,096, AdamW."""
    if device != "cpu" or sys.platform != "linux":
        return
    done = subprocess.run([sys.executable, "-c", MILLION], capture_output=True, text=True, check=True)
    seconds, megabytes, first, last = json.loads(done.stdout.strip().splitlines()[-1])
    weights = 1_000_001 * 64 * 4 / 2**20
    yield {
        "suite": "recommendation_million",
        "case": "32 histories of 50, a step of training and a ranking of all items",
        "what": "peak memory of the process",
        "against": "the table of items",
        "ratio": round(megabytes / weights, 2),
        "step_ms": round(1e3 * seconds, 1),
        "megabytes": round(megabytes, 1),
        "loss": [round(first, 3), round(last, 3)],
    }
