"""Compiles what the cases of `make gpu` launch for a card that is not there.

The device that has no numbers is set up once for a whole process, so this runs as a program of its own:

    python compiled_cases.py 90 scan [float32]

Prints one JSON object a line, a kernel in one configuration: see ahead_of_time.Launch.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import torch
from ahead_of_time import launches

from polymamba.benchmarks.gpu import cases, cases_models, cases_other, cases_scan
from polymamba.benchmarks.gpu.device import Device, prepare
from polymamba.benchmarks.gpu.exponentials import KEPT, exponentials_kernel

MAKE = {
    "scan": cases_scan.cases,
    "convolution": cases_other.convolution_cases,
    "duality": cases_other.duality_cases,
    "mixers": cases_models.mixer_cases,
    "decoding": cases_models.decoding_cases,
    "training": cases_models.training_cases,
}


def run(name: str, device: Device) -> None:
    if name == "machine":
        exponentials_kernel[(1,)](torch.empty(KEPT, device="meta"), 5, KEPT=KEPT, num_warps=4)
        return
    for case in MAKE[name](device):
        case.build(device)[cases.KERNEL]()


def main() -> None:
    architecture, name, *dtype = sys.argv[1:]
    device = prepare("meta")
    for kind in dtype:
        cases.numbers.__kwdefaults__["dtype"] = getattr(torch, kind)
    with launches(int(architecture)) as found:
        run(name, device)
    for launch in found:
        print(json.dumps(dataclasses.asdict(launch)))


if __name__ == "__main__":
    main()
