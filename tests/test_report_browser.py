"""The report in a real browser: fits a telephone, can be read in light and dark, loads nothing, throws nothing."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile

import pytest

from fyi_bench.present.report import report_html
from fyi_bench.tasks.report import section_makers
from sample_records import (
    continual_arm,
    continual_record,
    distill_arm,
    distill_record,
    evaluate_record,
    record,
    robust_record,
)
from sample_sets import with_sets

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--mute-audio",
)  # fmt: skip
SCHEMES = {"dark": 0, "light": 1}

# goes before everything else in a copy of the page: what goes wrong, and every request that is made
WATCH = """<script>
const seen = {errors: [], blocked: []};
addEventListener("error", (e) => seen.errors.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => seen.errors.push(String(e.reason)));
document.addEventListener("securitypolicyviolation", (e) => seen.blocked.push(e.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...words) => seen.errors.push(words.join(" "));
</script>"""

# goes to the end: measures the page and tells the page around it
MEASURE = """<script>
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const numbers = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const color = numbers(getComputedStyle(at).backgroundColor);
    if (color.length === 3 || color[3] > 0) return color.slice(0, 3);
  }
  return [255, 255, 255];
};
addEventListener("load", () => {
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  const worst = {contrast: [99, ""], size: [99, ""]};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.getClientRects().length || node.closest("script")) continue;
    const style = getComputedStyle(node), inside = node.closest("svg");
    const [a, b] = [numbers(inside ? style.fill : style.color), ground(node)].map(luminance).sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    const scale = inside ? inside.getBoundingClientRect().width / inside.viewBox.baseVal.width : 1;
    const size = parseFloat(style.fontSize) * scale;
    if (contrast < worst.contrast[0]) worst.contrast = [contrast, walker.currentNode.data.trim()];
    if (size < worst.size[0]) worst.size = [size, walker.currentNode.data.trim()];
  }
  const page = document.documentElement;
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name)
    .filter((name) => !name.startsWith("data:"));
  parent.postMessage(JSON.stringify({...seen, ...worst, requests, inner: innerWidth, scroll: page.scrollWidth,
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    images: [...document.images].map((i) => i.naturalWidth)}), "*");
});
</script>"""


# a window cannot be as narrow as a telephone, a frame can; what the page inside says ends up in the title
AROUND = """<!doctype html><title></title>
<script>addEventListener("message", (e) => { document.title = e.data; });</script>
<iframe src="page.html" style="width:WIDTHpx;height:900px;border:0"></iframe>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything on it, long names among it."""
    folder = tmp_path_factory.mktemp("browser")
    long_name = "a-method-with-a-very-long-name"
    many = [
        distill_arm(long_name, flip, {f"architecture-{k}": [0.4, 0.5] for k in range(9)}) for flip in ("none", "fyi")
    ]
    steps = [continual_arm(long_name, "vertical", [[0.6 - k / 20, 0.61 - k / 20] for k in range(10)], 10)]
    protocol = "quick+epochs=3+eval_augment=color_crop_cutout_flip_scale_rotate+milestones=0.5,0.75"
    command = "fyi-bench distill --set eval_augment=color_crop_cutout_flip_scale_rotate --store /a/" + "long/" * 30
    found = [
        with_sets(distill_record(), folder / "a"),
        with_sets(
            record("distill", many, protocol=protocol, command=command, dataset="imagefolder:/" + "x" * 80),
            folder / "b",
        ),
        continual_record(),
        continual_record(arms=steps, steps=10, class_orders=[list(range(100))] * 5),
        evaluate_record(),
        robust_record(),
    ]
    title = "A title with a-word-that-is-much-too-long-to-fit-on-a-telephone-in-one-line"
    text = report_html(found, title, makers=section_makers())
    return text.replace("<head>", "<head>" + WATCH, 1).replace("</body>", MEASURE + "</body>", 1)


@pytest.fixture(scope="module")
def measured(page, tmp_path_factory):
    """Function(width, scheme) -> what the browser says about the page, each asked once."""
    folder = tmp_path_factory.mktemp("copy")
    (folder / "page.html").write_text(page, encoding="utf-8")
    known = {}

    def measure(width: int, scheme: str) -> dict:
        if (width, scheme) not in known:
            around = folder / f"around-{width}.html"
            around.write_text(AROUND.replace("WIDTH", str(width)), encoding="utf-8")
            known[width, scheme] = _visit(around.as_uri(), scheme)
        return known[width, scheme]

    return measure


def _visit(address: str, scheme: str) -> dict:
    with tempfile.TemporaryDirectory() as profile:
        look = (f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", "--window-size=1400,1000")
        command = [BROWSER, *FLAGS, *look, f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom"]
        done = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)[1]))


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(measured, width):
    found = measured(width, "light")
    assert found["inner"] == width
    assert found["scroll"] <= width


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_no_errors_and_no_requests(measured, width, scheme):
    found = measured(width, scheme)
    assert found["errors"] == []
    assert found["blocked"] == []
    assert found["requests"] == []
    assert found["images"]
    assert all(found["images"])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark")])
def test_every_text_stands_out_from_its_ground(measured, width, scheme):
    found = measured(width, scheme)
    assert found["dark"] == (scheme == "dark")
    contrast, text = found["contrast"]
    assert contrast >= 4.5, f"'{text}' has a contrast of {contrast:.2f}"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_text_is_tiny(measured, width):
    size, text = measured(width, "light")["size"]
    assert size >= 11, f"'{text}' is {size:.1f} pixels high"
