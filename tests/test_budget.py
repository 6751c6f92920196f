"""Durations, budgets, stops and interrupts; the clock is a variable here."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import pytest

from fyi_bench.duration import format_duration, parse_duration
from fyi_bench.errors import BudgetExhausted, Interrupted, UsageError
from fyi_bench.run.deadline import Deadline


@pytest.fixture
def clock(monkeypatch):
    now = {"s": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["s"])

    def advance(seconds: float) -> None:
        now["s"] += seconds

    return advance


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("9m", 540),
        ("90s", 90),
        ("1h30m", 5400),
        ("1h 30m 5s", 5405),
        ("600", 600),
        ("0.5", 0.5),
        ("1.5H", 5400),
        ("2d", 172800),
        (" 3m ", 180),
    ],
)
def test_durations_as_people_write_them(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "9x", "9m9", "-5", "0", "0m", "30m1h", "5m5m", "1e3", "nan", "inf", "1,5h", "٣"]
)
def test_nonsense_is_a_usage_error_that_shows_how(text):
    with pytest.raises(UsageError, match="9m, 90s, 1h30m") as caught:
        parse_duration(text)
    assert f"'{text}'" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (59.6, "1 min 00 s"), (545, "9 min 05 s"), (5400, "1 h 30 min"), (183600, "2 d 3 h")],
)
def test_durations_for_people(seconds, text):
    assert format_duration(seconds) == text


def test_a_budget_counts_down_and_keeps_a_reserve(clock):
    budget = Deadline(100, reserve=20)
    assert (budget.spent(), budget.left()) == (0, 80)
    budget.check()
    clock(79)
    assert (budget.spent(), budget.left()) == (79, 1)
    clock(5)
    assert (budget.left(), budget.requested()) == (0, True)
    with pytest.raises(BudgetExhausted, match=r"1 min 24 s of the budget of 1 min 40 s\.\n.*same command") as caught:
        budget.check()
    assert caught.value.exit_code == 3


def test_no_budget_never_ends(clock):
    budget = Deadline()
    clock(1e9)
    budget.check()
    assert (budget.left(), budget.requested()) == (math.inf, False)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_budget_without_time_is_a_usage_error(seconds):
    with pytest.raises(UsageError, match="more than 0"):
        Deadline(seconds)


def test_the_reserve_follows_the_saves_but_leaves_half_for_work(clock):
    budget = Deadline(100)
    assert budget.reserve == 5
    budget.note_save(1)
    assert budget.reserve == 5
    budget.note_save(8)
    assert budget.reserve == 16
    budget.note_save(80)
    assert budget.reserve == 50
    assert Deadline(3600).reserve == 10


def test_the_wall_clock_does_not_matter(clock, monkeypatch):
    budget = Deadline(100, reserve=0)
    clock(10)
    for wall in (0.0, 4e9):  # the day jumps back to 1970, then far ahead
        monkeypatch.setattr(time, "time", lambda wall=wall: wall)
        assert budget.left() == 90


def test_a_stop_ends_before_a_step_that_would_not_fit(clock):
    stop = Deadline(100, reserve=5)
    done = 0
    while not stop.requested():
        clock(30)
        done += 1
    assert done == 3  # 90 s; a fourth would end at 120 s
    with pytest.raises(BudgetExhausted):
        stop.check()


def test_a_slow_start_is_forgotten_after_some_steps(clock):
    stop = Deadline(100, reserve=0)
    stop.requested()
    clock(40)
    done = 0
    while not stop.requested():
        clock(1)
        done += 1
    assert 40 + done == 100  # by then a step is known to take 1 s, and the last one just fits


def test_once_requested_a_stop_stays_requested_and_raises(clock):
    stop = Deadline(50, reserve=0)
    stop.requested()
    clock(40)
    assert stop.requested()  # 10 s are left, and 40 were needed before
    with pytest.raises(BudgetExhausted):
        stop.check()


def test_a_stop_by_default_never_stops(clock):
    stop = Deadline()
    for _ in range(20):
        clock(1e6)
        assert not stop.requested()
        stop.check()


def test_a_stop_can_be_asked_for_from_another_thread():
    stop = Deadline()
    thread = threading.Thread(target=stop.interrupt, args=("the dashboard",))
    thread.start()
    thread.join()
    assert stop.requested()
    with pytest.raises(Interrupted, match=r"Stopped by the dashboard\.\n.*same command") as caught:
        stop.check()
    assert caught.value.exit_code == 130


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_signals_set_the_flag_and_the_handlers_come_back(number, name):
    said = []
    before = signal.getsignal(number)
    stop = Deadline()
    with stop.signals(said.append) as entered:
        assert entered is stop
        assert not stop.requested()
        os.kill(os.getpid(), number)
        assert stop.requested()
        with pytest.raises(Interrupted, match=name):
            stop.check()
    assert signal.getsignal(number) is before
    assert len(said) == 1


def test_the_second_interrupt_is_a_keyboard_interrupt():
    stop = Deadline()
    with stop.signals(lambda text: None):
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.interrupted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Deadline().signals() as stop:
            seen.append((signal.getsignal(signal.SIGINT), stop.requested()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
