"""What Python words return shows itself: records as tables and figures, sets as pictures, work as one output."""

from __future__ import annotations

import inspect
import io
import json
import pickle
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

import fyi_bench
from distill.image_set import ImageSet
from distill.spaces import PixelSpace
from fyi_bench.errors import UnknownNameError, UsageError
from fyi_bench.present.arms import COLUMNS, blocks, rows_of_record
from fyi_bench.present.result import Result
from fyi_bench.present.words import fitted, marked, numbered
from fyi_bench.tasks.base import TASKS
from sample_records import continual_record, distill_record, evaluate_record, robust_record
from sample_sets import NAMES, SPACE, image_set, with_sets


def result(record) -> Result:
    return Result(record, TASKS.get(record["task"])())


# records -----------------------------------------------------------------------------------------------------------


def test_a_result_is_the_record_and_nothing_else():
    record = distill_record()
    found = result(record)
    assert found == record
    assert json.dumps(found) == json.dumps(record)
    assert pickle.loads(pickle.dumps(found)) == record


def test_its_rows_are_the_numbers_of_its_arms():
    frame = result(distill_record()).to_pandas()
    assert list(frame.columns) == list(COLUMNS)
    accuracy = frame[frame["measure"] == "accuracy"]
    told = {(row["method"], row["flip"], row["architecture"]): row["value"] for _, row in accuracy.iterrows()}
    assert told == {
        (arm["method"], arm["flip"], entry["name"]): entry["mean"]
        for arm in distill_record()["arms"]
        for entry in arm["architectures"]
    }
    assert frame.iloc[-1]["measure"] == "accuracy difference"
    assert frame.iloc[-1]["value"] == 0.011


def test_it_is_printed_as_the_command_line_prints_it():
    record = distill_record()
    assert repr(result(record)) == fitted(TASKS.get("distill")().words(record))
    assert all(len(line) <= 80 for line in repr(result(record)).splitlines())


def test_a_table_is_text_where_colours_are_forced_too(monkeypatch):
    plain = repr(result(distill_record()))
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert repr(result(distill_record())) == plain
    assert "\x1b" not in plain


FIGURES = {"distill": ["accuracy", "unequalness", "loss"], "continual": ["curves"], "accuracy": ["accuracy"]}


@pytest.mark.parametrize("record", [distill_record(), continual_record(), evaluate_record()], ids=lambda r: r["task"])
def test_its_figures_are_those_of_the_report(record, tmp_path):
    from matplotlib.figure import Figure

    found = result(with_sets(record, tmp_path))
    names = FIGURES[record["task"]]
    first = found.plot()
    assert isinstance(first, Figure)
    assert first.axes
    for name in names:
        figure = found.plot(name, width=5.0)
        assert figure.get_figwidth() == 5.0
        figure.savefig(file := io.BytesIO(), format="png")
        assert Image.open(file).getcolors(256 * 256) is None or len(Image.open(file).getcolors(256 * 256)) > 3
    with pytest.raises(UnknownNameError) as error:
        found.plot(names[0][:-1])
    assert f"Did you mean '{names[0]}'" in str(error.value)


def test_a_drawn_value_is_the_records():
    axes = result(distill_record()).plot("accuracy").axes[0]
    drawn = sorted(round(float(x), 6) for line in axes.lines for x in line.get_xdata())
    values = [100 * v for arm in distill_record()["arms"] for v in arm["architectures"][0]["values"]]
    means = [100 * arm["architectures"][0]["mean"] for arm in distill_record()["arms"] for _ in range(2)]
    assert drawn == pytest.approx(sorted([*values, *means]), abs=1e-5)


def test_a_record_without_figures_says_where_its_numbers_are():
    with pytest.raises(UsageError, match=r"no figure\.\nSee to_pandas\(\)"):
        result(robust_record()).plot()


class Tags(HTMLParser):
    """Checks that every element is closed, and keeps sources of pictures and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.pictures: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.pictures += [dict(attrs)["src"]] if tag == "img" else []
        self.open += [] if tag in ("img", "br") else [tag]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_notebook_shows_tables_and_images(tmp_path):
    page = Tags(result(with_sets(distill_record(), tmp_path))._repr_html_())
    assert page.open == []
    assert "46.0 ± 0.8" in page.text
    assert len(page.pictures) == 3
    assert all(source.startswith("data:image/png;base64,") for source in page.pictures)


def test_nothing_of_a_record_is_taken_for_html():
    record = distill_record()
    record["arms"][0]["name"] = "<script>x</script>"
    assert "<script" not in result(record)._repr_html_()


@pytest.mark.parametrize("word", ["distill", "evaluate", "continual", "nas", "cross_arch", "card", "rank", "experts"])
def test_every_word_that_keeps_a_record_says_that_it_returns_a_result(word):
    assert inspect.signature(getattr(fyi_bench, word)).return_annotation == "Result"
    assert fyi_bench.Result is Result


# sets --------------------------------------------------------------------------------------------------------------


def test_a_set_is_short_in_words():
    made = image_set("dm", "fyi")
    assert repr(made) == "ImageSet(dm+fyi: 6 images, 3x8x8, 3 classes, normalized, 4,656 bytes)"
    soft = ImageSet(torch.rand(2, 1, 4, 4), torch.rand(2, 5), PixelSpace(), 5)
    assert repr(soft) == "ImageSet(2 images, 1x4x4, 2 classes, pixel, 168 bytes, soft labels)".replace(
        "2 classes", f"{len(soft.classes)} classes"
    )


def test_a_set_is_indexed_as_a_torch_data_set_is():
    made = image_set("dm", "fyi")
    image, label = made[3]
    assert torch.equal(image, made.images[3])
    assert (label, type(label)) == (1, int)
    assert torch.equal(made[-1][0], made.images[5])
    assert [label for _, label in made] == made.labels.tolist()
    with pytest.raises(IndexError):
        made[6]
    assert made[1:4].digest == made.select(torch.tensor([1, 2, 3])).digest
    images, labels = next(iter(torch.utils.data.DataLoader(made, batch_size=6)))
    assert torch.equal(images, made.images)
    assert torch.equal(labels, made.labels)


def test_soft_labels_and_whole_levels_come_as_they_are_and_as_pixels():
    levels = torch.arange(2 * 16, dtype=torch.uint8).reshape(2, 1, 4, 4)
    image, label = ImageSet(levels, torch.eye(2), PixelSpace(), 2)[1]
    assert torch.equal(image, levels[1] / 255)
    assert torch.equal(label, torch.tensor([0.0, 1.0]))


def test_a_sets_picture_has_a_row_a_class():
    made = image_set("dm", "fyi")
    page = Tags(made._repr_html_())
    assert page.open == []
    assert page.text == f"{made!r}Rows: {', '.join(NAMES)}"
    picture = Image.open(io.BytesIO(made._repr_png_()))
    assert picture.size == (2 * (2 * 10 + 2), 2 * (3 * 10 + 2))  # twice as large, as it is narrow
    for row, of_class in enumerate(NAMES):
        place = NAMES.index(of_class) * 2
        wanted = (made.pixels()[place, :, 0, 0].clamp(0, 1) * 255).round().tolist()
        assert picture.getpixel((2 * 2, 2 * (2 + 10 * row))) == tuple(map(int, wanted))


def test_a_set_of_a_slice_keeps_all_that_is_known():
    part = image_set("dm", "fyi")[:2]
    assert (part.space, part.class_names, part.provenance["method"]) == (SPACE, NAMES, "dm")


def test_condensing_a_set_takes_its_own_space():
    from downstream.continual.memory import MemoryDataset, read_images

    made = image_set("dm", "none")
    for data in (made, MemoryDataset(made)):
        read = read_images(data)
        assert read.space == SPACE
        assert torch.equal(read.images, made.images)


def test_tables_that_differ_in_a_seed_alone_are_told_apart():
    one = rows_of_record({**distill_record(), "digest": "0123456789abcdef", "command": "x"})
    other = rows_of_record({**distill_record(), "digest": "fedcba9876543210", "command": "x"})
    titles = [title for title, *_ in blocks([*one, *other])]
    assert len(set(titles)) == 2
    assert all(any(digest in title for title in titles) for digest in ("01234567", "fedcba98"))
    (alone,) = (title for title, *_ in blocks([{**row, "ipc": 1} for row in one]))
    assert "1 image a class" in alone
    assert "record" not in alone


def test_marks_stand_in_ascending_order_whatever_is_said_first():
    marks = numbered(["bf16", "inferred", "bf16", "fewer"])
    assert marks == {"bf16": 1, "inferred": 2, "fewer": 3}
    assert marked("28.2", ["fewer", "bf16"], marks) == "28.2 [1,3]"
    assert marked("28.2", [], marks) == "28.2"
