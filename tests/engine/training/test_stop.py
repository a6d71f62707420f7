import os
import signal

import pytest

from polymamba.core.errors import UserError
from polymamba.engine.training.stop import ECHO_SECONDS, Failed, Stopped, StopRequest, listening

NUMBERS = [(signal.SIGTERM, 143), (signal.SIGINT, 130)]


@pytest.mark.parametrize(("number", "code"), NUMBERS)
def test_a_signal_stops_at_once_where_there_is_nothing_to_save(number, code):
    with pytest.raises(Stopped) as stopped, listening():
        signal.raise_signal(number)
    assert stopped.value.exit_code == code


@pytest.mark.parametrize(("number", "code"), NUMBERS)
def test_a_deferred_signal_is_noted(number, code):
    reached = []

    def work(stop):
        with stop.deferred():
            signal.raise_signal(number)
            reached.append(stop.received)

    with listening() as stop, pytest.raises(Stopped) as stopped:
        work(stop)
    assert reached == [number]
    assert stopped.value.exit_code == code
    assert not stopped.value.at_once


def test_a_second_signal_stops_at_once_but_an_echo_does_not(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("polymamba.engine.training.stop.time.monotonic", lambda: now[0])
    stop, reached = StopRequest(), []

    def work():
        with stop.deferred():
            for wait in (0.0, ECHO_SECONDS / 2, ECHO_SECONDS):
                now[0] += wait
                stop.ask(signal.SIGTERM)
                reached.append(wait)

    with pytest.raises(Stopped) as stopped:
        work()
    assert len(reached) == 2
    assert stopped.value.at_once
    assert stopped.value.exit_code == 143


def test_listening_again_is_the_same_and_handlers_come_back():
    before = [signal.getsignal(number) for number, _ in NUMBERS]
    with listening() as outer, listening() as inner:
        assert inner is outer
    assert [signal.getsignal(number) for number, _ in NUMBERS] == before


def test_what_catches_exceptions_does_not_keep_a_stopped_process_going():
    assert not issubclass(Stopped, Exception)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 7)])
def test_a_forked_worker_leaves_ctrl_c_to_its_parent(number, code):
    with listening():
        worker = os.fork()
        if worker == 0:
            signal.raise_signal(number)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == code


def test_what_a_library_raises_while_it_cleans_up_does_not_hide_the_signal():
    def clean_up():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise UnboundLocalError("f")

    def work():
        with listening() as stop, stop.unmasked():
            clean_up()

    with pytest.raises(Stopped) as stopped:
        work()
    assert stopped.value.exit_code == 143


@pytest.mark.parametrize(("error", "seen"), [(Failed("the disk is full"), Failed), (ValueError("3"), Stopped)])
def test_a_signal_does_not_hide_that_training_broke_down(error, seen):
    def work():
        stop = StopRequest()
        with stop.unmasked(), stop.deferred():
            stop.ask(signal.SIGTERM)
            raise error

    with pytest.raises(seen):
        work()


@pytest.mark.parametrize(("number", "code"), NUMBERS)
def test_a_command_line_that_a_signal_breaks_in_a_library(command, monkeypatch, number, code):
    def compose(*_):
        try:
            signal.raise_signal(number)
        finally:
            raise UserError("the configs do not fit together")

    monkeypatch.setattr("polymamba.engine.command_line.compose.compose", compose)
    found, printed, message = command("domain=toy")
    assert (found, printed) == (code, "")
    assert message.strip() in ("SIGTERM: stopped.", "Ctrl-C: stopped.")
