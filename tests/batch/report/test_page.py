"""The page stands alone, tells the right numbers, and runs nobody's text."""

from __future__ import annotations

import html
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner.batch.report import write_report
from jobrunner.batch.store import Store
from jobrunner.errors import StoreError
from tests.batch.report.stores import StoreMaker, ising_store, many_store, small_store, write_rows

HOSTILE = '</script><script>alert("1")</script><img src=x onerror=alert(2)>\'"&amp;<!--\u202egnp\x00\ud800'


class Reader(HTMLParser):
    """Collects tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


Written = Callable[[Callable[[Path], None]], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Make a store, and write its only batch's report."""

    def make(fill: Callable[[Path], None]) -> str:
        path, page = tmp_path / "store.db", tmp_path / "page.html"
        fill(path)
        with Store(path) as store:
            write_report(store, store.batch(), page)
        return page.read_text(encoding="utf-8")

    return make


def hostile_store(path: Path) -> None:
    """A batch in which every text that a user may choose is an attack."""
    maker = StoreMaker(
        path,
        HOSTILE.replace("\ud800", ""),
        target=HOSTILE.replace("\ud800", ""),
        parameters=[HOSTILE, "x"],
        varying=[HOSTILE, "x"],
        fixed={"fixed": HOSTILE},
        options={HOSTILE: HOSTILE},
        code={"file": HOSTILE, HOSTILE: {HOSTILE: HOSTILE}},
        machine={"host": HOSTILE},
    )
    plain = HOSTILE.replace("\ud800", "")
    runner = maker.runner(0, 20, host=plain)
    for x in range(4):
        report = {"cause": HOSTILE, "stack": HOSTILE, "exit_code": 1}
        point = maker.point({HOSTILE: f"{HOSTILE}{x % 2}", "x": x, "fixed": HOSTILE})
        if x == 3:
            maker.outcome(point, runner, x, 1.0, status="failed", error=plain, report=report, host=plain, stderr=plain)
        else:
            maker.outcome(point, runner, x, 1.0, result={HOSTILE: x, "ok": HOSTILE}, host=plain)
    maker.note(plain, plain)
    maker.close()


def test_no_text_of_the_user_becomes_markup(written: Written) -> None:
    page = written(hostile_store)
    reader = Reader(page)
    assert reader.tags.count("script") == 1  # our own
    assert "img" not in reader.tags
    assert not [name for _, name, _ in reader.attributes if name.startswith("on")]
    assert page.count("</script") == 1
    assert "alert(" in html.unescape(page)  # it is all there, as text
    assert "\u202e" not in page and "\x00" not in page


def test_a_hostile_parameter_is_shown_as_it_is(written: Written) -> None:
    reader = Reader(written(hostile_store))
    assert any('<script>alert("1")</script>' in text for text in reader.texts)


def _plot(page: str) -> str:
    """The card of the first plot, one text."""
    return " ".join(Reader(page.split('id="results"')[1].split("Show as a table")[0]).texts)


def test_a_plot_names_all_parameters_that_its_colours_tell_apart(written: Written) -> None:
    rows = [
        ({"t": t, "size": size, "lattice": lattice}, t * size)
        for t in range(4)
        for size, lattice in ((16, "square"), (32, "square"), (32, "triangular"))
    ]
    page = written(lambda path: write_rows(path, rows))
    assert "size=32, lattice=square size=32, lattice=triangular" in _plot(page)
    assert "t = 3, size=32, lattice=triangular\n" in html.unescape(page)
    plot = page.split('id="results"')[1].split("</svg></div>")[0]
    assert {"s0 mark", "s1 mark", "s2 mark"} <= set(re.findall(r"s\d mark", plot))


def test_a_plot_says_what_it_is_the_mean_over(written: Written) -> None:
    rows = [({"t": t, "a": a, "b": b}, t * a + b) for t in range(12) for a in (1, 2, 3) for b in range(9)] * 2
    text = _plot(written(lambda path: write_rows(path, rows, replicates=2)))
    assert "Each mark is the mean over b and replicates. Bars: standard deviation." in text


@pytest.mark.parametrize("fill", [small_store, ising_store], ids=["ten jobs", "500 jobs"])
def test_the_page_refers_to_nothing_outside(written: Written, fill: Callable[[Path], None]) -> None:
    page = written(fill)
    reader = Reader(page)
    assert not {"link", "iframe", "object", "embed", "base", "form", "img", "use"}.intersection(reader.tags)
    for tag, name, value in reader.attributes:
        assert name not in ("src", "srcset", "style", "xlink:href", "action"), (tag, name)
        if name == "href":
            assert value is not None and value.startswith("#")
    assert "url(" not in page and "@import" not in page and "http://" not in page and "https://" not in page


def test_links_within_the_page_have_their_ends_and_no_id_is_there_twice(written: Written) -> None:
    reader = Reader(written(ising_store))
    ids = [value for _, name, value in reader.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = {value.removeprefix("#") for _, name, value in reader.attributes if name == "href" and value}
    assert links and links <= set(ids)


def test_a_policy_forbids_all_but_the_page_itself(written: Written) -> None:
    reader = Reader(written(small_store))
    (policy,) = [
        value or "" for _, name, value in reader.attributes if name == "content" and "default-src" in str(value)
    ]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy and "data:" not in policy


def test_every_chart_is_told_to_who_can_not_see_it(written: Written) -> None:
    page = written(ising_store)
    for chart in re.findall(r"<svg [^>]*>", page):
        assert "aria-label=" in chart or "aria-hidden=" in chart
    assert page.count("Show as a table") == 7  # timeline, queue, two histograms, three plots


def test_the_numbers_of_ten_jobs_are_on_the_page(written: Written) -> None:
    text = " ".join(Reader(written(small_store)).texts)
    for expected in (
        "9 of 10 points done, 1 failed, 1 attempt retried",
        "ended, 1 failed",
        "46 %",  # busy: 11 s of 24
        "50 /min",
        "ValueError: three is not welcome",
        'File "model.py", line 3, in simulate',
        "11 (SIGSEGV)",
        "Median 1 s, mean 1 s, 95 % below 1.5 s; from 500 ms to 1.5 s",
        "node1 · 4242",
        "seed 1944",
    ):
        assert expected in text, expected


@pytest.mark.parametrize(
    ("run_s", "cpu_s", "told"),
    [
        (0.001, 0.002, None),
        (10.0, 9.0, "CPU efficiency 90 % CPU time by run time"),
        (10.0, 38.0, "CPU efficiency 380 % above 100 %: jobs use more than 1 thread"),
    ],
    ids=["short", "usual", "threads"],
)
def test_cpu_efficiency_is_no_nonsense(written: Written, run_s: float, cpu_s: float, told: str | None) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, 50)
        for x in range(5):
            maker.outcome(maker.point({"x": x}), runner, x * run_s, run_s, cpu_s=cpu_s, result=x)
        maker.close()

    text = " ".join(Reader(written(fill)).texts)
    assert told in text if told is not None else "CPU efficiency" not in text


def test_fifty_thousand_jobs_have_a_small_page(tmp_path: Path) -> None:
    many_store(tmp_path / "store.db")
    with Store(tmp_path / "store.db") as store:
        write_report(store, store.batch(), tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 3 * 10**6
    text = " ".join(Reader((tmp_path / "page.html").read_text(encoding="utf-8")).texts)
    assert re.search(r"49,\d{3} of 50,000 points done, \d{3} failed", text)


def test_very_wide_batches_have_a_bounded_page(written: Written) -> None:
    def fill(path: Path) -> None:  # many columns, parameters, failures with long stacks
        maker = StoreMaker(path, parameters=[f"p{n}" for n in range(30)], varying=["p0", "p1"])
        runner = maker.runner(0, 3000)
        for x in range(2000):
            point = maker.point({"p0": x, "p1": x % 8, **{f"p{n}": "long" * 100 for n in range(2, 30)}})
            if x % 4:
                maker.outcome(point, runner, x, 1.0, result={f"c{n}": x * n + 0.1 for n in range(100)})
            else:
                report = {"cause": "x" * 5000, "stack": "y\n" * 50_000}
                maker.outcome(point, runner, x, 1.0, status="failed", error="x" * 5000, report=report)
        maker.close()

    page = written(fill)
    assert len(page.encode()) < 6 * 10**6
    assert "Further columns are not drawn: c" in page


def test_a_batch_that_runs_shows_what_there_is(written: Written) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, None, here=True)
        maker.outcome(maker.point({"x": 0}), runner, 0, 1.0, result=1)
        maker.point({"x": 1}, "leased")
        maker.point({"x": 2})
        maker.close()

    text = " ".join(Reader(written(fill)).texts)
    assert "running at this moment" in text
    assert "1 of 3 points done, 1 taken up, 1 waiting" in text
    assert "The batch is running: 2 points to go" in text


def test_a_batch_of_which_nothing_was_run_has_a_page(written: Written) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, "none", parameters=["x"], varying=["x"])
        maker.point({"x": 0})
        maker.close()

    text = " ".join(Reader(written(fill)).texts)
    assert "nothing done yet" in text
    assert "0 of 1 point done, 1 waiting" in text


def test_a_batch_without_points_has_a_page(written: Written) -> None:
    assert "empty: it has no points" in written(lambda path: StoreMaker(path, parameters=[]).close())


def test_withheld_pickles_are_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "store.db", [({"x": x}, (x,)) for x in range(3)])
    (tmp_path / "store.db").chmod(0o666)
    with Store(tmp_path / "store.db") as store:
        write_report(store, store.batch(), tmp_path / "page.html")
    assert "3 results that are pickles were not loaded" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_page_is_its_owners_alone_and_replaces_the_old_one(tmp_path: Path) -> None:
    small_store(tmp_path / "store.db")
    page = tmp_path / "page.html"
    page.write_text("old")
    page.chmod(0o644)
    with Store(tmp_path / "store.db") as store:
        write_report(store, store.batch(), page)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"store.db", "store.db-wal", "store.db-shm", "page.html"}


NUMBERS = st.one_of(st.floats(), st.integers(), st.just(0.0), st.floats(min_value=1e-320, max_value=1e-300))


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12), st.lists(st.floats(0, 1e12), max_size=5))
@settings(max_examples=60, deadline=None)
def test_any_numbers_can_be_drawn(rows: list[tuple[float, float]], took: list[float]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path, page = Path(directory, "store.db"), Path(directory, "page.html")
        maker = StoreMaker(path, parameters=["x", "n"], varying=["x", "n"])
        runner = maker.runner(0, 5)
        for place, (x, y) in enumerate(rows):
            point = maker.point({"x": x if math.isfinite(x) else str(x), "n": place % 2})
            run_s = took[place] if place < len(took) else 0.0
            maker.outcome(point, runner, place, run_s, result={"y": y, "y_error": abs(x)}, rss=int(run_s))
        maker.close()
        with Store(path) as store:
            write_report(store, store.batch(), page)
        for tag, name, value in Reader(page.read_text(encoding="utf-8")).attributes:
            if name in ("d", "x", "y", "width", "height"):
                assert "nan" not in (value or "") and "inf" not in (value or ""), (tag, name, value)


@pytest.mark.parametrize("place", ["missing/page.html", "."])
def test_a_page_that_can_not_be_written_is_a_store_error(tmp_path: Path, place: str) -> None:
    small_store(tmp_path / "store.db")
    with Store(tmp_path / "store.db") as store, pytest.raises(StoreError, match="the report can't be written"):
        write_report(store, store.batch(), tmp_path / place)


def test_a_page_that_fails_half_way_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_store(tmp_path / "store.db")
    page = tmp_path / "page.html"
    page.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with Store(tmp_path / "store.db") as store, pytest.raises(StoreError, match="No space left on device"):
        write_report(store, store.batch(), page)
    assert page.read_text() == "old"
    assert not list(tmp_path.glob(".page*"))
