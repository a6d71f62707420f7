"""The steps of `make gpu`, what each runs, how long it may take, and which of them run beside each other.

Checks run beside each other: compiling their kernels takes a processor's time, not the card's. Whatever is timed has the card
to itself.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from .device import Device
from .process import write_row

ROOT = Path(__file__).resolve().parents[2]


class Step(NamedTuple):
    """limit: seconds. kind: "machine", "checks" or "times"; checks come first and run beside each other."""

    name: str
    limit: float
    kind: str
    run: Callable[[Device], None]


def _machine(device: Device) -> None:
    from .machine import ceilings, facts

    found = facts(device)
    write_row({"facts": found})
    if "card" not in found:
        raise SystemExit("PyTorch finds no card")
    write_row({"ceilings": ceilings(device)})


def _checks(module: str, name: str, part: int, parts: int, device: Device) -> None:
    from .checks import run_check, share

    made = getattr(importlib.import_module(f".{module}", __package__), name)
    for title, check in share(made(device), part, parts):
        write_row(run_check(title, check))


def _times(module: str, name: str, device: Device) -> None:
    from .cases import rows_of

    for case in getattr(importlib.import_module(f".{module}", __package__), name)(device):
        for row in rows_of(case, device):
            write_row(row)


def _first_calls(device: Device) -> None:
    """In a process of its own with an empty cache, and once more with what that one left."""
    with tempfile.TemporaryDirectory() as empty:
        for _ in range(2):
            command = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "run.py"), "--step=first call, inside"]
            subprocess.run(
                [*command, f"--device={device.kind}"], env=os.environ | {"TRITON_CACHE_DIR": empty}, check=True
            )  # fmt: skip


def _first_calls_inside(device: Device) -> None:
    from .first_call import rows

    for row in rows(device):
        write_row(row)


def _tests(device: Device) -> None:
    """The project's own GPU tests, where pytest is; in several processes where pytest-xdist is; as many as there is time for."""
    if importlib.util.find_spec("pytest") is None:
        write_row(
            {"check": "tests marked gpu", "ok": None, "error": "pytest is not installed: the checks stand for them"}
        )
        return
    import pytest

    count, end = {"passed": 0, "failed": 0, "skipped": 0}, time.monotonic() + TESTS - 15

    def say(ended: str, ok: bool | None) -> None:
        said = ", ".join(f"{number} {outcome}" for outcome, number in count.items())
        write_row({"check": f"tests marked gpu: {said}", "ok": ok, "error": ended})

    class Reports:
        def pytest_runtest_logreport(self, report):
            if report.when == "call" or report.outcome == "skipped":
                count[report.outcome] += 1
            if report.outcome == "failed":
                write_row(
                    {"check": report.nodeid, "ok": False, "error": report.longreprtext.strip().splitlines()[-1][:300]}
                )
            if time.monotonic() > end and not device.small:
                say("the time is over", not count["failed"])
                sys.stdout.flush()
                os._exit(0)  # workers that compile do not listen; the step's process group ends with it

    arguments = ["-m", "gpu", "-p", "no:cacheprovider", "-W", "default", "-q", "--no-header", "--tb=short"]
    if importlib.util.find_spec("xdist") is not None:
        arguments += ["-n", str(min(12, os.cpu_count() or 1))]
    files = sorted(str(file) for file in (ROOT / "tests" / "core" / "ops").rglob("test_gpu.py"))
    with tempfile.TemporaryDirectory() as folder:  # for pytest-xdist's processes, which do not begin with run.py
        (Path(folder) / "polymamba").symlink_to(ROOT, target_is_directory=True)
        os.environ["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        code = pytest.main([*arguments, f"--rootdir={ROOT}", *files], plugins=[Reports()])
    ran = count["passed"] or count["failed"] or code not in (0, 5)  # 5: there are no such tests
    ok = code == 0 and not count["failed"] if ran else None
    say("" if ok is not False else f"pytest ended with {int(code)}", ok)


def _warm(module: str, name: str, device: Device) -> None:
    """Compiles the kernels of what will be timed, ours and then the official ones, onto the disk, by one call of each."""
    from .cases import KERNEL

    if device.small:
        return
    for whose in (KERNEL, "official"):
        for case in getattr(importlib.import_module(f".{module}", __package__), name)(device):
            try:
                for what, call in case.build(device).items():
                    if what.startswith(whose):
                        call()
            except Exception as error:  # its turn to be told comes when it is timed
                print(f"{case.name}: {error}")


def _in_parts(name: str, module: str, checks: str, parts: int) -> list[Step]:
    return [
        Step(f"{name} {part + 1}/{parts}", 100, "checks", partial(_checks, module, checks, part, parts))
        for part in range(parts)
    ]


TESTS = 90
TIMED = {  # name: seconds, module and function of the cases
    "scan": (65, "cases_scan", "cases"),
    "convolution": (20, "cases_other", "convolution_cases"),
    "duality": (50, "cases_other", "duality_cases"),
    "mixers": (50, "cases_models", "mixer_cases"),
    "decoding": (30, "cases_models", "decoding_cases"),
    "training": (45, "cases_models", "training_cases"),
}
STEPS = (
    Step("machine", 25, "machine", _machine),
    *_in_parts("check scan", "checks", "scan_checks", 5),
    *_in_parts("check convolution", "checks", "convolution_checks", 2),
    *_in_parts("check duality", "checks", "duality_checks", 4),
    *_in_parts("check edges", "checks_edges", "edge_checks", 2),
    *_in_parts("check long", "checks_edges", "long_checks", 1),
    *_in_parts("check mixers", "checks_mixers", "mixer_checks", 4),
    *_in_parts("check compile", "checks_mixers", "compile_checks", 3),
    *(Step(f"warm {name}", 100, "checks", partial(_warm, *where)) for name, (_, *where) in TIMED.items()),
    Step("tests", TESTS, "tests", _tests),
    *(Step(name, limit, "times", partial(_times, *where)) for name, (limit, *where) in TIMED.items()),
    Step("first call", 45, "times", _first_calls),
)
INSIDE = (Step("first call, inside", 0, "times", _first_calls_inside),)


def step_named(name: str, steps: Iterable[Step] = (*STEPS, *INSIDE)) -> Step:
    return next(step for step in steps if step.name == name)


def run_step(name: str, kind: str) -> None:
    """Within a step's process."""
    from .device import prepare

    step_named(name).run(prepare(kind))
