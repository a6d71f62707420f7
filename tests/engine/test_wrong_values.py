"""Every setting of every config option with values that it cannot have: it works with them, or says what is wrong with them."""

import copy
import math
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from domains_under_test import packaged
from torch import nn

from polymamba.core.errors import UserError
from polymamba.data.loading import Loading
from polymamba.data.module import Description
from polymamba.engine.command_line.compose import check, compose
from polymamba.engine.command_line.groups import Groups
from polymamba.engine.command_line.help import keys
from polymamba.engine.training.assembly import build_parts, build_scan
from polymamba.engine.training.hardware import choose_hardware
from polymamba.engine.training.memory import check_memory
from polymamba.engine.training.optimizer import build_optimizer
from polymamba.engine.training.plan import plan_length
from polymamba.engine.training.targets import build
from polymamba.engine.training.trainer import make_trainer

VALUES = (
    0,
    -1,
    2**63,
    2**64,
    10**400,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    True,
    None,
    "",
    "abc",
    [],
    [1],
    [0, "x"],
    {},
    {"a": 1},
)
SHIPPED = Groups()


@cache
def bases():
    """A configuration for every option of every group, by "group=option"."""
    found = {}
    for domain in SHIPPED.domains:
        for group in ("data", "model", "task", "scan", "optimizer"):
            for name in SHIPPED.options(group, domain):
                if f"{group}={name}" not in found:
                    found[f"{group}={name}"] = compose([f"domain={domain}", f"{group}={name}"]).plain()
    found["trainer=default"] = compose([]).plain()
    return found


def cases():
    """(option, key) of every setting; those that several options take from one constructor, or with one meaning, once."""
    seen = set()
    for option, values in bases().items():
        group = option.partition("=")[0]
        for key, _, kind in keys(values):
            if key.partition(".")[0] == group or (group == "trainer" and "." not in key):
                same = (key, kind if group == "data" else values[group].get("_target_", option))
                if same not in seen:
                    seen.add(same)
                    yield option, key


def changed(values, key, value):
    values = copy.deepcopy(values)
    *path, last = key.split(".")
    place = values
    for word in path:
        place = place[word]
    place[last] = value
    return values


DATA = SimpleNamespace(loading=Loading(), train_dataloader=lambda: range(3))


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What the data of a domain say of themselves to a task, by the task's name."""

    @cache
    def ask(domain, task):
        found = packaged(domain)
        described = getattr(found.crossing, "described", None)
        if described is not None:
            return described(task)
        with pytest.MonkeyPatch.context() as patch:
            folder = tmp_path_factory.mktemp(domain)
            patch.chdir(folder)
            getattr(found.crossing, "prepare", lambda folder: None)(folder)
            return build_parts(compose([*found.chosen, *found.crossing.SHORT])).describe

    return lambda config: ask(config.domain, config.task.get("name"))


def prepare(config, group, tmp_path, told):
    """As far as a run goes before its first step, without reading data."""
    if group == "data":
        build(config.data)
    elif group in ("model", "task", "scan"):
        describe, scan = told(config), build_scan(config)
        with torch.device("meta"):
            check_memory(
                config, build(config.model, describe=describe, scan=scan), Description("some", {"train": 100}), 4
            )
        build(config.task, model=build(config.model, describe=describe, scan=scan), describe=describe)
    else:
        before = torch.get_num_threads()
        hardware, length = choose_hardware(config.trainer), plan_length(config, DATA)
        torch.set_num_threads(before)
        build_optimizer(nn.Linear(2, 2), config.optimizer, length.steps)
        make_trainer(config, hardware, tmp_path, length=length)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("group", ["data", "model", "task", "scan", "optimizer", "trainer"])
def test_a_run_can_be_prepared_or_one_message_says_why_not(group, tmp_path, told):
    messages = []
    for option, key in cases():
        if option.partition("=")[0] != group:
            continue
        for value in VALUES:
            try:
                prepare(check(changed(bases()[option], key, value)), group, tmp_path, told)
            except UserError as error:
                messages.append(str(error))
            except Exception as error:
                raise AssertionError(f"{option} {key}={value!r}") from error
    assert max(map(len, messages)) < 2000
