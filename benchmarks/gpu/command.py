"""`make gpu`: every step in a process of its own, results on disk after each, a table at the end.

This process needs nothing but Python: whatever the card, the driver or PyTorch does, it is still there to say so.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .process import Outcome, Running, write_whole
from .report import complete, table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
TOTAL = 520.0  # seconds for everything
PATIENCE = 10  # with the interpreter, and other people's work on the same processor
KINDS = ("machine", "checks", "tests", "times")


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    from .steps import STEPS, run_step

    if asked.step:
        run_step(asked.step, asked.device)
        return 0
    unknown = [name for name in asked.only if not any(step.name.startswith(name) for step in STEPS)]
    if unknown:
        print(f"no step begins with {unknown[0]!r}; steps: {', '.join(s.name for s in STEPS)}", file=sys.stderr)
        return 2
    chosen = [
        s for s in STEPS if s.kind == "machine" or not asked.only or any(s.name.startswith(n) for n in asked.only)
    ]
    patience = 1 if asked.device == "cuda" else PATIENCE
    plan = [(step.kind, step.name, patience * step.limit, _command(step.name, asked.device)) for step in chosen]
    run = Run(asked.device, Path(asked.out), patience * asked.total)
    run.steps(plan, asked.beside)
    return run.finish()


NO_CARD = """no card was found: nothing was run, nothing written
  do:      on a machine with a card, make gpu; here, make gpu ARGS=--device=interpret goes through every step without one"""


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu ARGS=", description=__doc__)
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "interpret"), help="interpret: a stand-in, no card needed"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="steps whose name begins so; may be given several times"
    )
    parser.add_argument("--out", default=str(RESULTS), help="folder of the results")
    parser.add_argument("--total", type=float, default=TOTAL, help="seconds for everything")
    parser.add_argument("--beside", type=int, default=32, help="checks that run beside each other at most")
    parser.add_argument("--step", help="run this step in this process")
    return parser.parse_args(arguments)


def _command(step: str, device: str) -> list[str]:
    return [sys.executable, str(ROOT / "benchmarks" / "gpu" / "run.py"), f"--step={step}", f"--device={device}"]


class Run:
    """The steps of one run and what they found.

    Args:
        device: "cuda" or "interpret".
        folder: of the results.
        total: seconds for all steps; what is not begun by then is left out.
    """

    def __init__(self, device: str, folder: Path, total: float):
        self.folder, self.end, self.planned = folder, time.monotonic() + total, set[str]()
        self.results: dict = {
            "date": datetime.date.today().isoformat(),
            "device": device,
            "machine": {},
            "ceilings": {},
        }
        self.results |= {"steps": [], "checks": [], "rows": []}

    def steps(self, plan: Sequence[tuple[str, str, float, list[str]]], beside: int = 1) -> None:
        """Run (kind, name, limit, command): machine, checks beside each other, tests, then each that is timed.

        Where the machine's step finds no card, nothing more is run. What an earlier run found in other steps is kept.
        """
        self.planned = {name for _, name, _, _ in plan}
        for kind in KINDS:
            if kind != "machine" and any(k == "machine" for k, *_ in plan) and not self.card:
                return
            group = [step for step in plan if step[0] == kind]
            width = beside if kind == "checks" else 1
            while group:
                now, group = group[:width], group[width:]
                self._together(now)

    def _together(self, group: Sequence[tuple[str, str, float, list[str]]]) -> None:
        left = self.end - time.monotonic()
        running: list[Running] = []
        try:
            for _, name, limit, command in group:
                if left < 1:
                    self._keep(Outcome(name, "not run", 0.0, [], "no time was left"))
                else:
                    # The reference's threads would be in each other's way.
                    variables = {"OMP_NUM_THREADS": "1"} if len(group) > 1 else None
                    running.append(Running(name, command, min(limit, left), variables))
            for step in running:
                self._keep(step.wait())
        finally:
            for step in running:
                step.stop()

    def _keep_earlier(self) -> None:
        """Once it is known which card, and so which file, this is about."""
        before = json.loads(self.file.read_text()) if self.file.exists() else {}
        for kind in ("steps", "checks", "rows"):
            earlier = [entry for entry in before.get(kind, []) if entry["step"] not in self.planned]
            self.results[kind] = earlier + self.results[kind]

    def _keep(self, outcome: Outcome) -> None:
        knew = self.card
        said = {"step": outcome.step, "outcome": outcome.outcome, "seconds": outcome.seconds}
        self.results["steps"].append(said | ({"message": outcome.message} if outcome.message else {}))
        for row in outcome.rows:
            if "facts" in row:
                self.results["machine"] |= row["facts"]
            elif "ceilings" in row:
                self.results["ceilings"] |= row["ceilings"]
            else:
                self.results["checks" if "check" in row else "rows"].append({"step": outcome.step} | row)
        if self.card and not knew:
            self._keep_earlier()
        complete(self.results)
        if self.card:
            write_whole(self.file, self.results)
        print(f"{outcome.step}: {outcome.outcome}, {outcome.seconds} s, {len(outcome.rows)} rows", flush=True)
        if outcome.message:
            print("    " + outcome.message.replace("\n", "\n    "), flush=True)

    @property
    def card(self) -> str | None:
        return self.results["machine"].get("card")

    @property
    def file(self) -> Path:
        name = re.sub(r"[^a-z0-9]+", "_", (self.card or "unknown").lower()).strip("_")
        return self.folder / f"gpu_{name}.json"

    def finish(self) -> int:
        """The table and the picture; 0, 1 where something was wrong, 2 where there is no card."""
        if not self.card:
            print(NO_CARD, file=sys.stderr)
            return 2
        print(table(self.results))
        try:
            from .plot import plot

            plot(self.results, self.file.with_suffix(".png"))
        except Exception as error:
            print(f"no picture: {type(error).__name__}: {error}")
        print(f"written: {self.file}")
        return 0 if self.results["correct"] else 1
