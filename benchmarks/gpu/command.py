"""`make gpu`: every step in a process of its own, results on disk after each, a table at the end.

This process needs nothing but Python: whatever the card, the driver or PyTorch does, it is still there to say so.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .process import Outcome, Running, write_whole
from .report import complete, table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
TOTAL = 470.0  # seconds for everything
PATIENCE = 10  # with the interpreter, and other people's work on the same processor
KINDS = ("machine", "checks", "tests", "times")


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    from .steps import STEPS, run_step

    if asked.step:
        run_step(asked.step, asked.device)
        return 0
    chosen = [step for step in STEPS if not asked.only or any(step.name.startswith(name) for name in asked.only)]
    if not chosen:
        print(f"no step begins with {' or '.join(asked.only)}; steps: {', '.join(s.name for s in STEPS)}", file=sys.stderr)
        return 2
    patience = 1 if asked.device == "cuda" else PATIENCE
    plan = [(step.kind, step.name, patience * step.limit, _command(step.name, asked.device)) for step in chosen]
    run = Run(asked.device, Path(asked.out), patience * asked.total)
    run.steps(plan, asked.beside)
    return run.finish()


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make gpu ARGS=", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "interpret"), help="interpret: a stand-in, no card needed")
    parser.add_argument("--only", action="append", default=[], help="steps whose name begins so; may be given several times")
    parser.add_argument("--out", default=str(RESULTS), help="folder of the results")
    parser.add_argument("--total", type=float, default=TOTAL, help="seconds for everything")
    parser.add_argument("--beside", type=int, default=16, help="checks that run beside each other at most")
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
        self.folder, self.end = folder, time.monotonic() + total
        self.results: dict = {"date": datetime.date.today().isoformat(), "device": device, "machine": {}, "ceilings": {}}
        self.results |= {"steps": [], "checks": [], "rows": []}

    def steps(self, plan: Sequence[tuple[str, str, float, list[str]]], beside: int = 1) -> None:
        """Run (kind, name, limit, command): machine, checks beside each other, tests, then each that is timed."""
        for kind in KINDS:
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
                    running.append(Running(name, command, min(limit, left)))
            for step in running:
                self._keep(step.wait())
        finally:
            for step in running:
                step.stop()

    def _keep(self, outcome: Outcome) -> None:
        said = {"step": outcome.step, "outcome": outcome.outcome, "seconds": outcome.seconds}
        self.results["steps"].append(said | ({"message": outcome.message} if outcome.message else {}))
        for row in outcome.rows:
            if "facts" in row:
                self.results["machine"] |= row["facts"]
            elif "ceilings" in row:
                self.results["ceilings"] |= row["ceilings"]
            else:
                self.results["checks" if "check" in row else "rows"].append({"step": outcome.step} | row)
        complete(self.results)
        write_whole(self.file, self.results)
        print(f"{outcome.step}: {outcome.outcome}, {outcome.seconds} s, {len(outcome.rows)} rows", flush=True)
        if outcome.message:
            print("    " + outcome.message.replace("\n", "\n    "), flush=True)

    @property
    def file(self) -> Path:
        card = self.results["machine"].get("card", "unknown")
        return self.folder / f"gpu_{re.sub(r'[^a-z0-9]+', '_', card.lower()).strip('_')}.json"

    def finish(self) -> int:
        """The picture, the table, and 1 where something was wrong."""
        print(table(self.results))
        try:
            from .plot import plot

            plot(self.results, self.file.with_suffix(".png"))
        except Exception as error:
            print(f"no picture: {type(error).__name__}: {error}")
        print(f"written: {self.file}")
        return 0 if self.results["correct"] else 1


