"""The progress display as lines, as a live display, and silent; the clock is a variable here."""

from __future__ import annotations

import io
import sys
import time

import pytest

from fyi_bench.errors import UnknownNameError
from fyi_bench.run.progress import LINE_EVERY_S, NOTEBOOK_EVERY_S, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    now = {"s": 1000.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["s"])

    def advance(seconds: float) -> None:
        now["s"] += seconds

    return advance


def test_lines_come_every_ten_seconds_and_once_at_the_end(clock):
    out = io.StringIO()
    with progress("lines", out) as shown:
        task = shown.add("distil dm fyi", total=100)
        for step in range(1, 51):
            clock(0.5)
            task.update(step, loss=1 / step)
        lines = out.getvalue().splitlines()
        assert len(lines) == 25 // LINE_EVERY_S
        assert lines[0] == "distil dm fyi 20/100, loss 0.05, 2 it/s, 40 s left"
    assert out.getvalue().splitlines()[2:] == ["distil dm fyi 50/100, loss 0.02, 2 it/s, 25 s left"]


def test_the_whole_and_its_present_part_share_a_line(clock):
    out = io.StringIO()
    with progress("lines", out) as shown:
        whole = shown.add("continual", total=10, unit="cell")
        with shown.add("distil step 1", total=4) as part:
            clock(10)
            part.update(1, loss=0.5)
        clock(90)
        whole.advance()
        shown.say("waiting")
    assert out.getvalue().splitlines() == [
        "continual 0/10 | distil step 1 1/4, loss 0.5, 10 s/it, 30 s left",
        "continual 1/10, 100 s/cell, 15 min 00 s left",
        "waiting",
    ]


def test_speed_counts_this_call_only_and_the_last_half_minute(clock):
    with progress("silent") as shown:
        task = shown.add("distil", total=1000, done=500)
        assert (task.speed(), task.left_s()) == (None, None)
        for _ in range(100):
            clock(1)
            task.advance(1)
        assert task.speed() == pytest.approx(1)
        assert task.left_s() == pytest.approx(400)
        for _ in range(100):
            clock(1)
            task.advance(3)
        assert task.speed() == pytest.approx(3)


def test_an_open_end_and_values_of_every_kind(clock):
    out = io.StringIO()
    with progress("lines", out) as shown:
        task = shown.add("experts")
        clock(20)
        task.update(5, loss=None, arch="convnet3", acc=float("nan"))
    assert out.getvalue() == "experts 5, arch convnet3, 4 s/it\n"


def test_on_a_terminal_one_live_display_shows_rows_and_messages(clock):
    out = Terminal()
    with progress("auto", out) as shown:
        whole = shown.add("continual", total=2)
        with shown.add("distil [dm]", total=3) as part:
            clock(1)
            part.update(3, loss=0.25)
            shown.say("a [bold]message")
        whole.advance()
    text = out.getvalue()
    assert "a [bold]message" in text
    assert "distil [dm]" in text
    assert "3/3" in text
    assert "loss 0.25" in text
    last = text[text.rindex("continual") :]
    assert "1/2" in last
    assert "distil" not in last


def test_the_answer_to_a_signal_stays_below_rows_of_one_line(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    with progress("live", out) as shown:
        row = shown.add("accuracy seed 1000", total=200)
        clock(1)
        row.update(169, loss=0.0001586)
        shown.answer("Stopping at the next safe point.")
    rows = out.getvalue()[out.getvalue().rindex("accuracy") :].splitlines()
    assert rows[1].startswith("Stopping at the next safe point.")
    assert "0 s left" in rows[0]


def test_a_plain_stream_and_a_dumb_terminal_get_lines(monkeypatch):
    for stream, term in ((io.StringIO(), "xterm"), (Terminal(), "dumb")):
        monkeypatch.setenv("TERM", term)
        with progress("auto", stream) as shown:
            shown.add("distil", total=2)
        assert stream.getvalue() == "distil 0/2\n"


def test_silent_says_nothing(capsys):
    with progress("silent") as shown:
        with shown.add("distil", total=2) as task:
            task.update(1, loss=0.5)
        shown.say("text")
    assert capsys.readouterr() == ("", "")


def test_a_notebook_redraws_one_output_twice_a_second_at_most(clock, monkeypatch):
    pytest.importorskip("IPython")
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data)

    def display(data, raw, display_id):
        shown.append(data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    with progress("notebook") as rows:
        whole = rows.add("runs", total=4, unit="run")
        part = rows.add("distill <dm>")
        for step in range(1, 101):
            clock(0.1)
            part.update(step, loss=0.5)
        assert len(shown) == 1 + 100 * 0.1 / NOTEBOOK_EVERY_S
        rows.say("a wait")
        part.finish()
        whole.update(4)
    assert shown[0]["text/plain"] == ""
    assert shown[1]["text/plain"].splitlines() == ["runs 0/4", "distill <dm> 5 loss 0.5, 10 it/s"]
    assert "<progress max='4' value='0'></progress>" in shown[1]["text/html"]
    assert "distill &lt;dm&gt;</td><td><progress></progress>" in shown[1]["text/html"]
    assert shown[-1]["text/plain"].splitlines()[:1] == ["a wait"]
    assert shown[-1]["text/plain"].splitlines()[1].startswith("runs 4/4")


def test_inside_another_the_outer_display_is_used(capsys):
    with progress("lines", sys.stderr) as outer:
        with progress("live") as inner:
            assert inner is outer
            inner.add("inner", total=1)
        assert outer.tasks[0].name == "inner"
    with progress("silent") as fresh:
        assert fresh is not outer
    assert capsys.readouterr().err == "inner 0/1\n"


def test_an_unknown_mode_is_answered_with_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'silent'"), progress("silnt"):
        pytest.fail("opened")
