"""A real browser shows the page as it is meant: without an error, on a phone, light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobrunner.batch.report import write_report
from jobrunner.batch.store import Store
from tests.batch.report.browser import Browser, browser
from tests.batch.report.stores import ising_store, many_store, small_store
from tests.batch.report.test_page import hostile_store

__all__ = ["browser"]

STORES: dict[str, Callable[[Path], None]] = {
    "10 jobs": small_store,
    "500 jobs": ising_store,
    "50,000 jobs": many_store,
    "hostile texts": hostile_store,
}


@pytest.fixture(scope="module", params=STORES, ids=str)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a batch."""
    directory = tmp_path_factory.mktemp("page")
    STORES[request.param](directory / "store.db")
    with Store(directory / "store.db") as store:
        write_report(store, store.batch(), directory / "page.html")
    return directory / "page.html"


def test_the_page_loads_without_an_error_and_its_script_runs(browser: Browser, page: Path) -> None:
    document, said = browser.dom(page)
    assert said == []
    assert 'id="tip"' in document  # the script made it: the policy lets our own run
    assert "<button" in document


def test_the_page_is_not_wider_than_a_phone(browser: Browser, page: Path) -> None:
    # A window has a least width, a frame does not.  In the copy a script without a policy may measure, with all that
    # can be opened open.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    measure = (
        "<script>for (const one of document.querySelectorAll('details')) one.open = true;"
        "parent.postMessage(document.documentElement.scrollWidth, '*');</script></body>"
    )
    inner, outer = page.with_name("inner.html"), page.with_name("outer.html")
    inner.write_text(text.replace("</body>", measure), encoding="utf-8")
    outer.write_text(
        "<script>addEventListener('message', (event) => { document.title = 'width ' + event.data; });</script>"
        f'<iframe src="{inner.name}" width="360" height="800" style="border:0"></iframe>'
    )
    document, _ = browser.dom(outer)
    assert "<title>width 360</title>" in document


def test_the_page_is_light_or_dark_as_the_reader_has_it(browser: Browser, page: Path, tmp_path: Path) -> None:
    light = browser.picture(page, tmp_path / "light.png", width=600, height=450, dark=False)
    dark = browser.picture(page, tmp_path / "dark.png", width=600, height=450, dark=True)
    assert min(light.colour(2, 2)) > 230
    assert max(dark.colour(2, 2)) < 40
    for picture in (light, dark):
        assert any(blue > red + 80 for red, _, blue in picture.colours())  # what is done
    assert sum(max(colour) < 60 for colour in dark.colours()) >= 2  # page and cards, both dark


def test_a_table_is_sorted_by_its_numbers_at_a_click(browser: Browser, tmp_path: Path) -> None:
    ising_store(tmp_path / "store.db")
    with Store(tmp_path / "store.db") as store:
        write_report(store, store.batch(), tmp_path / "page.html")
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", (tmp_path / "page.html").read_text("utf-8"))
    click = """<script>
        const table = document.querySelector("table.sortable");
        const busy = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[4].dataset.key));
        const inOrder = (list) => list.every((value, place) => place === 0 || list[place - 1] <= value);
        const button = table.tHead.rows[0].cells[4].querySelector("button");
        const seen = [inOrder(busy())];
        button.click();
        seen.push(inOrder(busy()));
        button.click();
        seen.push(inOrder(busy().reverse()));
        document.title = seen.join(" ");
    </script></body>"""
    (tmp_path / "clicked.html").write_text(text.replace("</body>", click), encoding="utf-8")
    document, _ = browser.dom(tmp_path / "clicked.html")
    assert "<title>false true true</title>" in document


def test_the_policy_stops_a_script_that_is_not_ours(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    small_store(tmp_path / "store.db")
    with Store(tmp_path / "store.db") as store:
        write_report(store, store.batch(), page)
    smuggled = "<script>document.title = 'smuggled';</script></body>"
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", smuggled), encoding="utf-8")
    document, said = browser.dom(page)
    assert "<title>smuggled</title>" not in document
    assert any("Content Security Policy" in line for line in said)
