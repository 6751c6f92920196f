"""Figures: the same bytes from the same records, nothing left behind, names that do not touch."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from fyi_bench.present.figures import continual_drawing, continual_figure, continual_panels
from fyi_bench.present.figures.style import inline_svg, lines_of, spread
from sample_records import continual_arm, continual_record, texts


def test_continual_figure_writes_png_and_svg(tmp_path):
    png, svg = continual_figure(continual_record(), tmp_path / "new" / "folder")
    assert png.name == "continual.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    shown = texts(svg.read_text())
    assert {"dsa", "dsa+fyi", "random", "classes seen", "20", "100"} <= set(shown)
    assert any("protocol quick, version 1" in text for text in shown)
    assert any("95 % interval [+2.1, +3.6]" in text for text in shown)


def test_what_ran_on_the_first_order_alone_is_named_under_the_curves(tmp_path):
    arms = [*continual_record()["arms"], continual_arm("joint", "none", [[0.6], [0.5], [0.45], [0.4], [0.38]])]
    _, svg = continual_figure(continual_record(arms), tmp_path)
    assert any("3 class orders (the first alone: joint)" in text for text in texts(svg.read_text()))


def test_the_same_record_gives_the_same_bytes():
    first, second = continual_drawing(continual_record()), continual_drawing(continual_record())
    assert first.svg == second.svg
    assert first.png == second.png
    assert "dc:date" not in first.svg


def test_settings_of_matplotlib_are_left_alone(tmp_path):
    import matplotlib

    matplotlib.rcParams["axes.grid"] = False
    before = dict(matplotlib.rcParams)
    continual_figure(continual_record(), tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_settings_of_the_user_do_not_change_a_figure():
    import matplotlib

    plain = continual_drawing(continual_record()).svg
    with matplotlib.rc_context({"lines.linewidth": 9, "font.size": 30}):
        assert continual_drawing(continual_record()).svg == plain


def test_panels_share_one_scale_and_hide_what_is_empty():
    small = continual_record(arms=[continual_arm("dm", "none", [[0.2]] * 2, 50)], steps=2, class_orders=[[0]])
    shown = texts(continual_panels([continual_record(), small, continual_record()]).svg)
    assert [text for text in shown if "steps" in text and ", " in text] == [
        "DSA, 5 steps",
        "DM, 2 steps",
        "DSA, 5 steps",
    ]
    assert shown.count("classes seen") == 3


def test_one_step_with_one_value_has_no_band():
    one = continual_record(arms=[continual_arm("dm", "none", [[0.2]], 100)], steps=1, class_orders=[[0]])
    assert not any("band" in text for text in texts(continual_drawing(one).svg))


def test_arms_that_would_look_alike_are_told_apart():
    arms = [{"method": m, "flip": f} for m in ("dm", "dsa") for f in ("none", "fyi")]
    lines = lines_of([*arms, {"method": "random", "flip": "none"}])
    assert len({line.color for line in lines}) == 5
    assert len({line.marker for line in lines}) == 5


@pytest.mark.parametrize(
    ("values", "gap", "moved"),
    [
        ([1.0, 5.0], 1.0, [1.0, 5.0]),
        ([5.0, 5.0], 1.0, [4.5, 5.5]),
        ([5.0, 1.0, 5.2], 1.0, [4.6, 1.0, 5.6]),
        ([0.0, 0.0, 0.0, 1.0], 1.0, [-1.25, -0.25, 0.75, 1.75]),
        ([], 1.0, []),
    ],
)
def test_spread_moves_as_little_as_needed(values, gap, moved):
    assert spread(values, gap) == pytest.approx(moved)


def test_inline_svg_has_its_own_identifiers_and_follows_the_page():
    whole = continual_drawing(continual_record(), "first").inline('curves of "dsa" & <random>')
    root = ET.fromstring(whole.replace("<svg", '<svg xmlns:xlink="http://www.w3.org/1999/xlink"', 1)
                         if "xmlns:xlink" not in whole else whole)  # fmt: skip
    found = re.findall(r'\bid="([^"]+)"', whole)
    assert found
    assert all(name.startswith("first-") for name in found)
    assert {name[1:] for name in re.findall(r'(?:href="|url\()(#[^")]+)', whole)} <= set(found)
    assert root.get("aria-label") == 'curves of "dsa" & <random>'
    assert root.get("width") is None
    assert "currentColor" in whole
    assert "<metadata" not in whole
    assert not re.search(r'(?:src|href)="http', whole)


def test_inline_svg_keeps_the_two_apart():
    svg = continual_drawing(continual_record()).svg
    ids = [set(re.findall(r'\bid="([^"]+)"', inline_svg(svg, prefix, "x"))) for prefix in ("a", "b")]
    assert not ids[0] & ids[1]
