"""A picture of a report as a headless Chromium shows it: `python tests/screenshot.py PAGE OUT.png`.

A browser window cannot be as narrow as a telephone, but a frame inside it can: so the page stands in one.
"""

from __future__ import annotations

import argparse
import html
import shutil
import subprocess
import tempfile
from pathlib import Path

from fyi_bench.errors import DataError, FyiBenchError, UsageError
from fyi_bench.files import write_bytes

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SCHEMES = {"dark": 0, "light": 1}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--mute-audio",
         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars")  # fmt: skip
_FRAME = """<!doctype html><style>body {{ margin: 0 }}</style>
<iframe src="{page}" style="width:{width}px;height:{height}px;border:0;margin-top:-{top}px"></iframe>"""
_WAIT_MS, _LIMIT_S = 5000, 180
_SMALLEST = 500  # a window is at least that wide; what is beside the frame is left out


def screenshot(
    page: str | Path, out: str | Path, width: int = 1280, height: int = 1600, top: int = 0, scheme: str = "light"
) -> Path:
    """Write a PNG of `height` pixels of the page, from `top` down, as shown at this width.

    Raises UsageError for another scheme than light or dark, DataError without a page or a browser.
    """
    page, browser = Path(page), next(filter(None, map(shutil.which, BROWSERS)), None)
    if scheme not in SCHEMES:
        raise UsageError(f"Unknown scheme '{scheme}'.\nKnown: {', '.join(SCHEMES)}.")
    if not page.is_file():
        raise DataError(f"There is no page {page}.\nMake it with: fyi-bench report")
    if browser is None:
        raise DataError(f"No browser was found ({', '.join(BROWSERS)}).\nInstall Chromium.")
    with tempfile.TemporaryDirectory() as folder:
        frame, shot = Path(folder) / "frame.html", Path(folder) / "shot.png"
        address = html.escape(page.resolve().as_uri(), quote=True)
        frame.write_text(_FRAME.format(page=address, width=width, height=height + top, top=top), encoding="utf-8")
        look = (f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"--user-data-dir={folder}/profile")
        size = f"--window-size={max(width, _SMALLEST)},{height}"
        command = [browser, *FLAGS, *look, size, f"--virtual-time-budget={_WAIT_MS}", f"--screenshot={shot}"]
        done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        if not shot.is_file():
            raise DataError(f"{Path(browser).name} gave no picture.\n{done.stderr.strip().splitlines()[-1:]}")
        return write_bytes(Path(out), _cut(shot, width))


def _cut(shot: Path, width: int) -> bytes:
    import io

    from PIL import Image

    picture, buffer = Image.open(shot).convert("RGB"), io.BytesIO()
    picture.crop((0, 0, width, picture.height)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="A picture of a report in a headless Chromium.")
    parser.add_argument("page", type=Path, help="report.html, as `fyi-bench report` writes it")
    parser.add_argument("out", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=1600)
    parser.add_argument("--top", type=int, default=0, help="pixels of the page to leave out above")
    parser.add_argument("--scheme", choices=sorted(SCHEMES), default="light")
    try:
        print(screenshot(**vars(parser.parse_args())))
    except FyiBenchError as error:
        raise SystemExit(f"{error}") from None


if __name__ == "__main__":
    main()
