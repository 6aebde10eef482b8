"""What is made of the samples: ratios, targets, pyperf's JSON, pictures, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import page, plots
from benchmarks.cases import CASES
from benchmarks.peers import MACHINE, OURS
from benchmarks.results import Row, Run, Series, as_pyperf, from_pyperf, rows
from benchmarks.targets import CASES_NEEDED, Target, targets

_METADATA: dict[str, str | int | float] = {
    "python_version": "3.11.7",
    "platform": "Linux",
    "cpu_count": 2,
    "memory_bytes": 2**34,
    "workers": 2,
    "repeats": 3,
    "scale_jobs": 10_000,
}


def _series(key: str, peer: str, *values: float, notes: tuple[str, ...] = (), errors: tuple[str, ...] = ()) -> Series:
    case, _, name = key.partition("/")
    figure = next(figure for figure in CASES[case].figures if figure.name == name)
    dates = [1e9 + number for number in range(len(values))]
    return Series(CASES[case], figure, peer, values=list(values), dates=dates, notes=list(notes), errors=list(errors))


def _run(*series: Series) -> Run:
    names = dict.fromkeys(each.peer for each in series if each.peer != MACHINE)
    return Run(series=series, peers=dict.fromkeys(names, ("1.0", "as it comes")), metadata=_METADATA)


def _rows(run: Run) -> dict[str, Row]:
    return {row.series.peer: row for row in rows(run)}


def test_ratios_are_to_the_best_of_the_others_and_to_the_machine() -> None:
    key = "round_trip"
    run = _run(
        _series(key, OURS, 9, 2, 1), _series(key, "loky", 4), _series(key, "pebble", 8), _series(key, MACHINE, 0.5)
    )
    found = _rows(run)
    assert (found[OURS].median, found[OURS].low, found[OURS].high) == (2, 1, 9)
    assert [row.to_best for row in found.values()] == [0.5, 1.0, 2.0, None]
    assert [row.to_limit for row in found.values()] == [4.0, 8.0, 16.0, None]


def test_a_peer_that_does_something_else_is_never_the_best() -> None:
    run = _run(
        _series("throughput", OURS, 2.0), _series("throughput", "joblib", 1.0), _series("throughput", "loky", 4.0)
    )
    assert run.best("throughput") == ("loky", 4.0)


def test_a_series_without_samples_has_no_figures() -> None:
    run = _run(_series("throughput", OURS, 1.0), _series("throughput", "loky", errors=("it fell over",)))
    found = _rows(run)
    assert found["loky"].median is None
    assert found[OURS].to_best is None


def test_the_json_is_pyperfs_and_gives_the_same_run_again() -> None:
    run = _run(
        _series("round_trip", OURS, 1e-4, 2e-4),
        _series("round_trip", "loky", errors=("it fell over",)),
        _series("round_trip", MACHINE, 1e-5),
        _series("cancel", OURS, 1e-2, notes=("jobs beside it: kept", "ü; x")),
        _series("idle/wake_ups", OURS, 0.0, 0.0),
        _series("idle/memory", OURS, 3e7),
    )
    run.series[1].skipped = "never"
    text = json.dumps(as_pyperf(run))
    again = from_pyperf(json.loads(text))
    places = list(CASES)
    ordered = sorted(run.series, key=lambda series: places.index(series.case.name))
    by_key = {(series.key, series.peer): series for series in again.series}
    assert by_key == {(series.key, series.peer): series for series in run.series}
    assert [series.case.name for series in again.series] == [series.case.name for series in ordered]
    assert again.peers == run.peers
    assert again.metadata == run.metadata


def test_pyperf_reads_the_json(tmp_path: Path) -> None:
    pyperf = pytest.importorskip("pyperf")
    file = tmp_path / "results.json"
    run = _run(_series("round_trip", OURS, 1e-4, 2e-4), _series("idle/wake_ups", "loky", 0.0))
    file.write_text(json.dumps(as_pyperf(run)))
    suite = pyperf.BenchmarkSuite.load(str(file))
    assert suite.get_benchmark_names() == ["round_trip/jobrunner", "idle/wake_ups/loky"]
    assert suite.get_benchmark("round_trip/jobrunner").get_values() == (1e-4, 2e-4)


@pytest.mark.parametrize("document", [[], {}, {"metadata": {}, "benchmarks": []}, {"version": "1.0"}])
def test_other_json_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="no results of this suite"):
        from_pyperf(document)


def _target(run: Run, title: str, wanted: str | None = None) -> Target:
    [found] = [each for each in targets(run) if each.title == title and wanted in {None, each.wanted}]
    return found


@pytest.mark.parametrize(("ours", "ratio", "met"), [(0.5, 0.5, True), (0.6, 0.6, False)])
def test_a_target_against_the_best_peer(ours: float, ratio: float, met: bool) -> None:
    run = _run(*(_series("argument/64MB", peer, value) for peer, value in ((OURS, ours), ("ray", 1), ("loky", 2))))
    target = _target(run, "64 MB array in")
    assert (target.against, target.ratio, target.met) == ("ray", ratio, met)


@pytest.mark.parametrize(("ours", "ratio", "met"), [(0.5, 2.0, True), (0.8, 1.25, False)])
def test_a_target_of_speed(ours: float, ratio: float, met: bool) -> None:
    run = _run(_series("throughput", OURS, ours), _series("throughput", "loky", 1.0))
    target = _target(run, "no-ops submitted one by one")
    assert (target.ratio, target.met) == (ratio, met)


def test_a_target_against_the_machine() -> None:
    run = _run(
        _series("round_trip", OURS, 3.0), _series("round_trip", "loky", 9.0), _series("round_trip", MACHINE, 1.0)
    )
    assert _target(run, "no-op round trip", "≤ 4 ×").met
    assert _target(run, "no-op round trip", "≤ 0.5 ×").met


def test_a_cancel_that_loses_bystanders_meets_no_target() -> None:
    for note, met in (("jobs beside it: kept", True), ("jobs beside it: lost", False)):
        run = _run(_series("cancel", OURS, 0.01, notes=(note,)), _series("cancel", "pebble", 1.0))
        assert _target(run, "cancel until the slot has run the next").met is met


def test_the_cost_of_a_job_is_that_of_handing_it_in_and_running_it() -> None:
    figures = {"queue_1k/submit": 1.0, "queue_1k/drain": 3.0, "queue_1M/submit": 2.0, "queue_1M/drain": 4.0}
    run = _run(*(_series(key, OURS, value) for key, value in figures.items()))
    target = _target(run, "cost of a job, submit and drain: 1 M queued against 1 k")
    assert (target.ratio, target.met) == (1.5, False)


def test_the_import_may_take_a_little_longer_than_the_standard_librarys() -> None:
    for ours, met in ((0.034, True), (0.036, False)):
        run = _run(_series("import", OURS, ours), _series("import", "concurrent.futures", 0.015))
        assert _target(run, "import of the module").met is met


def test_a_single_wake_up_misses_the_target() -> None:
    for value, met in ((0.0, True), (1.0, False)):
        assert (
            _target(_run(_series("idle/wake_ups", OURS, value)), "wake-ups of the caller, idle with workers up").met
            is met
        )


def test_efficiency_is_judged_by_that_of_plain_processes() -> None:
    run = _run(
        _series("efficiency/1ms", OURS, 2.0),
        _series("efficiency/1ms_plain", OURS, 1.04),
        _series("efficiency/1ms", MACHINE, 1.92),
    )
    target = _target(run, "efficiency at 1ms jobs, of plain processes'")
    assert target.met
    assert "50.0 %" in target.note


def test_a_target_that_the_run_cannot_tell_is_not_met_nor_missed() -> None:
    assert _target(_run(_series("map", OURS, errors=("it fell over",))), "map of no-ops, automatic chunks").met is None
    assert _target(_run(_series("map", OURS, 1.0)), "map of no-ops, automatic chunks").met is None


def test_targets_need_cases_that_there_are() -> None:
    assert set(CASES_NEEDED) <= set(CASES)
    everything = [
        _series(Series(CASES[name], figure, "").key, OURS, 1.0)
        for name in CASES_NEEDED
        for figure in CASES[name].figures
    ]
    assert len(targets(_run(*everything))) == 16
    assert targets(_run(_series("crash", OURS, 1.0))) == []


def _all_figures() -> Run:
    series = []
    for case in CASES.values():
        for place, figure in enumerate(case.figures, 1):
            key = Series(case, figure, "").key
            series += [_series(key, OURS, 0.0 if figure.unit == "count/s" else 1e-3 * place, 2e-3 * place)]
            series += [_series(key, "loky", 3e-3 * place), _series(key, "ray", errors=("it fell over",))]
            series += [_series(key, MACHINE, 1e-4)] if case.limit is not None else []
    return _run(*series)


def test_every_figure_is_in_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = _all_figures()
    pictures = plots.draw(run, tmp_path)
    assert sorted(picture.path for picture in pictures) == sorted(tmp_path.iterdir())
    for picture in pictures:
        assert picture.path.read_bytes().startswith(b"\x89PNG")
    # What is told of the machine alone stands in the tables.
    assert plots.keys() == {series.key for series in run.series} - {"round_trip/one_core"}


def test_a_run_of_one_case_has_one_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    [picture] = plots.draw(_run(_series("cancel", OURS, 1.0)), tmp_path)
    assert picture.path.name == "ends.png"


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[plot\]'"):
        plots.draw(_run(_series("cancel", OURS, 1.0)), tmp_path)


def test_the_documentation_is_the_page_that_the_tool_writes() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert text.startswith(page.INTRODUCTION)


def test_the_page_has_every_figure_the_targets_and_the_pictures() -> None:
    run = _all_figures()
    text = page.as_markdown(run, [("A picture", "benchmarks/picture.png")])
    assert "![A picture](benchmarks/picture.png)" in text
    assert "16 GiB" in text
    for case in CASES.values():
        assert f"### {case.name}\n" in text
    for target in targets(run):
        assert f"| {target.title} |" in text
    assert "it fell over" in text
    assert "jobs 10,000" in text
    # Every table is a table: as many cells in each of its rows.
    for table in text.split("\n\n"):
        if table.startswith("| "):
            assert len({line.count("|") for line in table.splitlines()}) == 1
