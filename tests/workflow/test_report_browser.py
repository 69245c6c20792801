"""Reports in a real browser, from file://: no error, all pictures load, no sideways scrolling."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from afterimage.reports.assemble import assemble_group, assemble_subject

TESTS = Path(__file__).resolve().parents[1]
example = SimpleNamespace(**runpy.run_path(str(TESTS / "report_example.py")))
made = SimpleNamespace(**runpy.run_path(str(TESTS / "scan_example.py")))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--allow-file-access-from-files", "--enable-logging=stderr", "--v=0",
    "--virtual-time-budget=8000",
)  # fmt: skip
# A window cannot be as narrow as a phone; a frame can. It repeats what the page found out.
FRAME = """<!doctype html><title>frame</title>
<iframe src="{name}" style="width:{width}px;height:900px;border:0"></iframe>
<script>addEventListener("load", () => setTimeout(() => Object.assign(
document.documentElement.dataset, frames[0].document.documentElement.dataset), 500));</script>"""

# Press the heading of the third column twice, then filter; tell what the table shows.
PRESS = """<script>addEventListener("load", () => setTimeout(() => {
const page = frames[0].document, told = document.documentElement.dataset;
const table = page.querySelector("#score-table table");
const button = table.querySelectorAll("th button")[2];
const rising = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[2].dataset.sort))
  .every((value, i, all) => !i || value >= all[i - 1]);
told.risingBefore = Number(rising()); button.click(); told.risingAfter = Number(rising());
button.click(); told.risingTwice = Number(rising());
const input = page.querySelector("[data-filter=score-table]");
input.value = "retrieval diffusion"; input.dispatchEvent(new frames[0].Event("input"));
told.rowsLeft = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
}, 700));</script>"""

# A long table: count its rows, look for one of the last, press the button that shows all.
LONG = """<script>addEventListener("load", () => setTimeout(() => {
const page = frames[0].document, told = document.documentElement.dataset;
const box = page.querySelector("#subject-table"), table = box.querySelector("table");
const left = () => [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
told.rowsFirst = left();
const input = page.querySelector("[data-filter=subject-table]");
input.value = "failed"; input.dispatchEvent(new frames[0].Event("input"));
told.rowsFound = left();
input.value = ""; input.dispatchEvent(new frames[0].Event("input"));
box.querySelector("button.more").click();
told.rowsAll = left();
}, 700));</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    """Path of a Chromium-like browser."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser on PATH ({', '.join(BROWSERS)})")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with one page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    long = "a_very_long_name_without_any_place_to_break_" * 4
    gallery = replace(example.make_gallery(), seen=None, score=None, stimulus=[long] * 120)
    unscored = example.make_subject(
        subject=long, dataset=long, metrics=(), gallery=gallery, unscored="test images absent"
    )
    no_pictures = example.make_subject(
        scans=made.make_scans(14, late_s=7.0), without_pictures=True,
        gallery=None, metrics=(), audit=None, fits=(),
    )  # fmt: skip
    runs = [
        replace(run, name=f"{long}{i}", notes=[long])
        for i, run in enumerate(no_pictures.scans.runs)
    ]
    long_names = replace(no_pictures, scans=replace(no_pictures.scans, runs=runs))
    htmls = {
        "scans": assemble_subject(example.make_subject(scans=made.make_scans())),
        "no_pictures": assemble_subject(long_names),
        "subject": assemble_subject(example.make_subject()),
        "failed": assemble_subject(example.make_failed()),
        "unscored": assemble_subject(unscored),
        "group": assemble_group(example.make_group()),
        "many": assemble_group(example.make_group(120)),
    }
    for name, html in htmls.items():
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return folder


def inspect(browser: str, page: Path, width: int, profile: Path, more: str = "") -> dict[str, int]:
    """Open a page at a width; return what its self-check wrote, and fail on console errors."""
    frame = page.with_name(f"{page.stem}-{width}.html")
    frame.write_text(FRAME.format(name=page.name, width=width) + more, encoding="utf-8")
    window = f"--window-size={max(width, 600) + 60},1000"
    command = [browser, *FLAGS, window, f"--user-data-dir={profile}", "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not console, console
    root = re.search(r"<html[^>]*>", done.stdout)
    assert root is not None
    found = {key: int(value) for key, value in re.findall(r'data-([\w-]+)="(\d+)"', root.group())}
    assert found, "the page's own check did not run"
    return found


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize(
    "name", ["subject", "scans", "no_pictures", "failed", "unscored", "group"]
)
def test_page_in_browser(browser: str, pages: Path, tmp_path: Path, name: str, width: int) -> None:
    found = inspect(browser, pages / f"{name}.html", width, tmp_path / "profile")
    assert width - 20 <= found["viewport-px"] <= width
    assert found["images-total"] > 4
    assert found["images-loaded"] == found["images-total"]
    assert found["script-errors"] == 0
    assert found["overflow-px"] == 0


def test_table_sorts_and_filters(browser: str, pages: Path, tmp_path: Path) -> None:
    found = inspect(browser, pages / "subject.html", 1280, tmp_path / "profile", PRESS)
    assert found["rising-before"] == 0
    assert found["rising-after"] == 1
    assert found["rising-twice"] == 0
    assert found["rows-left"] == 2  # diffusion and its ceiling, metric retrieval


def test_a_long_table_is_folded(browser: str, pages: Path, tmp_path: Path) -> None:
    found = inspect(browser, pages / "many.html", 1280, tmp_path / "profile", LONG)
    assert (found["rows-first"], found["rows-found"], found["rows-all"]) == (100, 1, 120)
    assert found["script-errors"] == found["overflow-px"] == 0


def test_the_check_can_fail(browser: str, pages: Path, tmp_path: Path) -> None:
    html = (pages / "failed.html").read_text(encoding="utf-8")
    wide = (
        '<div style="width:3000px">wide</div><img src="data:image/png;base64,AAAA" alt="broken">'
    )
    broken = pages / "broken.html"
    broken.write_text(html.replace("<footer>", f"{wide}<footer>"), encoding="utf-8")
    found = inspect(browser, broken, 1280, tmp_path / "profile")
    assert found["overflow-px"] > 1000
    assert found["images-loaded"] == found["images-total"] - 1
    assert found["script-errors"] >= 1
