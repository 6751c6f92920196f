"""The report: everything that was run is on one page, escaped, repeatable, and honest about what is missing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fyi_bench.errors import StoreError
from fyi_bench.files import write_text
from fyi_bench.present import report as pages
from fyi_bench.present.images import mosaic, mosaics, png_of
from fyi_bench.store.record import write_sealed
from fyi_bench.store.spec import RunSpec
from fyi_bench.store.store import Store
from fyi_bench.tasks.report import section_makers, write_report
from sample_records import (
    continual_arm,
    continual_record,
    distill_arm,
    distill_record,
    evaluate_record,
    record,
    robust_record,
    summary,
)
from sample_sets import image_set, with_sets

HOSTILE = '<script>alert("x")</script> & $\\frac$ \'"'


def report_html(records, title, store=None, notes=()) -> str:
    """The page with the sections of our tasks."""
    return pages.report_html(records, title, store, notes, section_makers())


class Page(HTMLParser):
    """Elements of a page and its text outside scripts and styles."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self._texts: list[str] = []
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self._texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._texts).split())


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    folder = tmp_path_factory.mktemp("report")
    found = [with_sets(distill_record(), folder), continual_record(), evaluate_record()]
    return Page(report_html(found, "A title"))


def test_a_title_names_the_sets_and_not_what_they_are_held_against():
    joint = continual_arm("joint", "none", [[0.5], [0.6]])
    both = [continual_arm("dsa", "none", [[0.4], [0.3]]), joint]
    text = Page(report_html([continual_record(both), continual_record([joint])], "t")).text
    assert "dsa on cifar100" in text
    assert "and joint on" not in text
    assert "joint on cifar100" in text


def test_every_record_is_on_the_page_with_its_numbers(page):
    for piece in ("A title", "46.0 ± 0.8", "31.8 ± 0.8", "51.0 ± 1.0", "average over steps", "time a set"):
        assert piece in page.text
    assert "dm on cifar10, 10 images per class" in page.text
    assert "dsa on cifar100, 10 images per class, 5 steps" in page.text
    assert page.text.count("95 % interval [−0.3, +2.7], 3 pairs: it contains 0") == 2
    assert page.text.count("convnet: dm 46.0 ± 0.8, dm+fyi 47.1 ± 0.8, random 29.0 ± 0.8 %. convnet, fyi − none") == 2
    assert page.text.count("Average over steps: dsa 38.8 ± 1.0, dsa+fyi 41.7 ± 0.8, random 25.1 ± 0.7 %.") == 2
    assert "convnet 51.0 ± 1.0, vgg11 41.0 %" in page.text
    assert "Beside the published numbers" not in page.text


def test_numbers_can_be_traced(page):
    for piece in ("00c0ffee00c0ffee", image_set("dm", "none").digest, "quick, version 1", "torch", "lr_img",
                  "0123456789abcdef", "precision", "numerics of engine", "fp32", "class orders"):  # fmt: skip
        assert piece in page.text


def test_commands_can_be_copied_and_lists_are_quoted(page):
    assert "fyi-bench continual --steps 5 --method dsa --fyi" in page.text
    listed = report_html([evaluate_record(command=["fyi-bench", "evaluate", "my set.safetensors"])], "t")
    assert "fyi-bench evaluate &#39;my set.safetensors&#39;" in listed


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name) or ""
            assert value == "" or value.startswith(("#", "data:")), f"<{tag} {name}={value[:60]}>"
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_identifiers_are_unique_and_links_lead_somewhere(page):
    found = [a["id"] for _, a in page.elements if "id" in a]
    assert len(found) == len(set(found))
    targets = {a["href"][1:] for t, a in page.elements if t in ("a", "use") and a.get("href", "").startswith("#")}
    assert targets
    assert targets <= set(found)


def test_images_of_the_arms_stand_side_by_side(page):
    images = [a for t, a in page.elements if t == "img"]
    assert [a["alt"] for a in images] == ["images of dm", "images of dm+fyi", "images of random real images"]
    assert len({(a["width"], a["height"]) for a in images}) == 1
    assert "Left to right, top to bottom, 2 images each: cat, dog, ship." in page.text


def test_loss_curves_come_with_their_caveat(page):
    assert "Loss while condensing" in page.text
    assert "twice as many images" in page.text


def test_hostile_text_stays_text(tmp_path):
    arms = [distill_arm(HOSTILE, "none", {HOSTILE: [0.5]}), distill_arm(HOSTILE, HOSTILE, {"convnet": [0.6, 0.7]})]
    bad = record("distill", arms, dataset=HOSTILE, protocol=HOSTILE, command=HOSTILE, data={"note": HOSTILE})
    with_sets(bad, tmp_path, recipe={HOSTILE: HOSTILE})
    html = report_html([bad], HOSTILE, notes=[HOSTILE])
    assert "alert(&#34;x&#34;)" in html
    assert '<script>alert("x")' not in html
    scripts = [a for t, a in Page(html).elements if t == "script"]
    assert len(scripts) == 1


def test_the_same_records_give_the_same_page(tmp_path):
    found = [with_sets(distill_record(), tmp_path), continual_record()]
    assert report_html(found, "t") == report_html(found, "t")


def test_a_missing_or_damaged_set_is_said(tmp_path):
    found = with_sets(distill_record(), tmp_path)
    Path(found["arms"][0]["set"]).unlink()
    found["arms"][0].pop("cells")
    write_text(found["arms"][1]["set"], "no set at all")
    found["arms"][2]["set_digest"] = "0123456789abcdef"
    text = Page(report_html([found], "t")).text
    assert "The images of dm are not shown." in text
    assert "The images of dm+fyi are not shown." in text
    assert "is not the set that was measured" in text


def test_whitened_images_are_not_shown_but_the_rest_is(tmp_path):
    from dataclasses import replace

    from distill.spaces import WhitenedSpace

    found = with_sets(distill_record(), tmp_path)
    whitened = replace(image_set("dm", "none"), space=WhitenedSpace("kornia zca"))
    whitened.save(Path(found["arms"][0]["set"]), preview=False)
    found["arms"][0]["set_digest"] = whitened.digest
    page = Page(report_html([found], "t"))
    assert "The images of dm are not shown. These images are whitened" in page.text
    assert [a["alt"] for t, a in page.elements if t == "img"] == ["images of dm+fyi", "images of random real images"]
    assert "set of dm " in page.text


def test_sets_of_a_continual_record_are_found_in_the_store(tmp_path):
    store, found = Store(tmp_path / "runs"), continual_record()
    for arm in found["arms"]:
        cell = RunSpec("distill", {"method": arm["method"], "flip": arm["flip"]})
        with store.run(cell) as run:
            image_set(arm["method"], arm["flip"]).save(run.path("set.safetensors"), preview=False)
            run.finish({"set": "set.safetensors"})
        arm["cells"] = [cell.digest]
    images = [a for t, a in Page(report_html([found], "t", store)).elements if t == "img"]
    assert [a["alt"] for a in images] == ["images of dsa", "images of dsa+fyi", "images of random real images"]


def test_architecture_search_has_its_table():
    keys = ("spearman_all", "spearman_top50", "kendall_all", "kendall_top50", "top10_recall")
    arm = {"method": "mtt", "flip": "none", "ipc": 50, "space": 720, "evaluated": 718, "failed": 2}
    arm |= {key: {"value": 0.67, "low": 0.6, "high": 0.73} for key in keys}
    arm["regret"] = {"value": 0.012, "low": None, "high": None}
    text = Page(report_html([record("nas", [arm], ceiling={}, reference={})], "t")).text
    assert "0.67 [0.60, 0.73]" in text
    assert "718" in text
    assert "regret, points 1.2" in text


def test_experts_are_listed_without_looking_for_sets():
    arm = {"method": "mtt", "flip": "none", "ipc": 10, "cells": ["aaaabbbbccccdddd"], "bytes": 3 * 2**20}
    arm |= {"losses": [[2.0, 1.0], [2.2, 1.4]], "expert_s": [30.0, 31.0]}
    text = Page(report_html([record("experts", [arm], command="fyi-bench experts")], "t")).text
    assert "mtt 2 2 1.2 3.0 MiB 1 min 01 s" in text
    assert "are not shown" not in text


def test_an_unknown_task_still_has_its_provenance():
    arms = [{"method": "dm", "flip": "none", "ipc": 1, "thing": 1}]
    text = Page(report_html([record("novel", arms)], "t")).text
    assert "no layout for records of the task 'novel'" in text
    assert "00c0ffee00c0ffee" in text


def test_report_of_a_store_gathers_commands_and_names_what_is_damaged(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="No command has finished"):
        write_report(store)
    write_sealed(tmp_path / "reports" / "continual-a.json", continual_record())
    write_sealed(tmp_path / "reports" / "distill-b.json", distill_record())
    write_text(tmp_path / "reports" / "distill-c.json", "{ not a record")
    path = write_report(Store(tmp_path))
    text = Page(path.read_text()).text
    assert path == tmp_path / "reports" / "report.html"
    assert text.index("dm on cifar10, 10 images per class") < text.index("dsa on cifar100, 10 images per class")
    assert re.search(r"Left out: \S*distill-c.json is not a readable record", text)


def test_a_grid_has_every_image_at_its_place():
    import numpy as np
    from PIL import Image

    one = image_set("dm", "none", ipc=2, size=8)
    pixels = np.asarray(Image.open(io.BytesIO(png_of(mosaic(one, [0, 2], 2, columns=2)))))
    assert pixels.shape == (17, 17, 4)
    expected = (one.pixels().clamp(0, 1) * 255).round()
    for place, index in (((0, 0), 0), ((0, 9), 1), ((9, 0), 4), ((9, 9), 5)):
        tile = pixels[place[0] : place[0] + 8, place[1] : place[1] + 8]
        assert (tile[..., 3] == 255).all()
        np.testing.assert_array_equal(tile[..., :3].transpose(2, 0, 1), expected[index].numpy())
    assert (pixels[8:9, :, 3] == 0).all()


@pytest.mark.parametrize(
    ("ipc", "size", "legend"),
    [
        (1, (26, 8), "Left to right, top to bottom: cat, dog, ship."),
        (2, (35, 17), "Left to right, top to bottom, 2 images each: cat, dog, ship."),
        (4, (35, 26), "Rows, top to bottom, 4 images each: cat, dog, ship."),
    ],
)
def test_classes_with_few_images_share_rows(ipc, size, legend):
    found, said = mosaics([("dm", image_set("dm", "none", ipc=ipc))])
    assert (found[0].width, found[0].height) == size
    assert said == legend
    assert base64.b64decode(found[0].address.split(",")[1]).startswith(b"\x89PNG")


def test_values_that_are_no_numbers_do_not_break_the_page(tmp_path):
    arm = distill_arm("dm", "none", {"convnet": [0.5]}, loss_last=float("nan"), unequalness=None)
    found = with_sets(record("distill", [arm]), tmp_path, loss_curve=[3.0, "nan", "inf", 2.0])
    text = Page(report_html([found], "t")).text
    assert "31.2 → nan" in text
    assert summary([0.5])["std"] == 0


def test_the_papers_tables_are_there_where_the_store_has_numbers_for_them(tmp_path):
    from fyi_bench.store.commands import save_record
    from fyi_bench.store.store import Store
    from sample_store import fill

    store = Store(tmp_path)
    save_record(store, distill_record())
    assert "Beside the published numbers" not in write_report(store).read_text(encoding="utf-8")
    fill(store, "dm", "none", {0: [0.48, 0.49]})
    fill(store, "dm", "fyi", {0: [0.50, 0.51]})
    text = Page(write_report(store).read_text(encoding="utf-8")).text
    assert "Table 1: Accuracy on CIFAR-10" in text
    assert "50.5 ± 0.5" in text
    assert "fyi-bench table 1 --protocol paper" in text
    assert "Table 3" not in text


def test_robust_scores_are_in_percent_with_what_they_are_made_of():
    text = Page(report_html([robust_record()], "t")).text
    pieces = ("label-robust score 25.5 ± 0.5", "random images, not augmented", "Step sizes tried for every arm: 0.01")
    for piece in (*pieces, "1.2 MiB with labels (hard labels)"):
        assert piece in text


def test_choices_on_test_images_are_said():
    assert "picked by test accuracy as published" in Page(report_html([distill_record(chosen_on_test=True)], "t")).text
