"""What a report tells is what the store holds: small cases are counted by hand."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobrunner.batch.report import ReportData, collect
from jobrunner.batch.report.distributions import histogram
from jobrunner.batch.report.timeline import make_axis
from jobrunner.batch.store import Store
from tests.batch.report.stores import BEGIN, StoreMaker, small_store, write_rows

Collected = Callable[[Callable[[Path], None]], ReportData]


@pytest.fixture
def collected(tmp_path: Path) -> Collected:
    """Make a store, and collect its only batch's report."""

    def make(fill: Callable[[Path], None]) -> ReportData:
        path = tmp_path / "store.db"
        fill(path)
        with Store(path) as store:
            return collect(store, store.batch())

    return make


def test_the_summary_of_ten_jobs_is_right(collected: Collected) -> None:
    summary = collected(small_store).summary
    assert (summary.total, summary.done, summary.failed, summary.pending) == (10, 9, 1, 0)
    assert (summary.jobs, summary.retried) == (11, 1)
    assert summary.run_s == pytest.approx(11.0)  # eight of 1 s, one of 1.5, the failed one of 1 and the retried of 0.5
    assert summary.worker_s == pytest.approx(24.0)  # two workers, 12 s
    assert summary.busy == pytest.approx(11 / 24)
    assert summary.rate == pytest.approx(10 / 12)
    assert summary.cpu_efficiency == pytest.approx(1.0)
    assert (summary.active_s, summary.workers, summary.hosts) == (12.0, 2, ("node1",))
    assert [(run.state, run.jobs) for run in summary.runs] == [("ended", 11)]
    assert not summary.running


def _worked(path: Path, jobs: int, run_s: float, cpu_s: float, **options: Any) -> None:
    """A batch of jobs that took so long, and so much CPU time, each."""
    maker = StoreMaker(path, parameters=["x"], varying=["x"], options=options)
    runner = maker.runner(0, jobs * run_s + 1)
    for x in range(jobs):
        maker.outcome(maker.point({"x": x}), runner, x * run_s, run_s, cpu_s=cpu_s, result=x)
    maker.close()


@pytest.mark.parametrize(
    ("jobs", "run_s", "cpu_s", "threads", "efficiency"),
    [
        pytest.param(270, 0.0003, 0.0006, 1, None, id="below a second together"),
        pytest.param(20_000, 0.0003, 0.0006, 1, None, id="many of which most CPU time is around the function"),
        pytest.param(4, 10.0, 10.1, 1, 1.0, id="clocks that differ"),
        pytest.param(4, 10.0, 9.0, 1, 0.9, id="some waiting"),
        pytest.param(4, 10.0, 38.0, 4, 0.95, id="threads as told"),
        pytest.param(4, 10.0, 38.0, 1, 3.8, id="threads that were not told"),
    ],
)
def test_cpu_efficiency_is_told_only_where_it_means_something(
    collected: Collected, jobs: int, run_s: float, cpu_s: float, threads: int, efficiency: float | None
) -> None:
    summary = collected(lambda path: _worked(path, jobs, run_s, cpu_s, threads=threads)).summary
    assert summary.threads == threads
    assert summary.cpu_efficiency == (None if efficiency is None else pytest.approx(efficiency))


def test_the_timeline_of_ten_jobs_is_right(collected: Collected) -> None:
    timeline = collected(small_store).timeline
    assert timeline is not None
    assert [(lane.name, lane.jobs, lane.failed) for lane in timeline.lanes] == [("5001", 5, 0), ("5002", 6, 2)]
    assert [(bar.start - BEGIN, bar.end - BEGIN, bar.status, bar.place) for bar in timeline.lanes[1].bars] == [
        (0.0, 1.0, "done", 1),
        (2.0, 3.0, "failed", 3),
        (4.0, 4.5, "retried", 5),
        (4.5, 5.5, "done", 5),
        (6.0, 7.0, "done", 7),
        (8.0, 9.5, "done", 9),
    ]
    assert [(segment.start - BEGIN, segment.end - BEGIN) for segment in timeline.segments] == [(0.0, 12.0)]


def test_the_queue_falls_from_all_points_to_none(collected: Collected) -> None:
    progress = collected(small_store).progress
    assert progress is not None
    assert (progress.waiting[0], progress.waiting[-1]) == (10, 0)
    assert (progress.done[-1], progress.failed[-1]) == (9, 1)
    at_three = next(place for place, moment in enumerate(progress.times) if moment >= BEGIN + 3)
    assert (progress.done[at_three], progress.failed[at_three]) == (3, 1)
    assert all(
        done + failed + waiting == 10
        for done, failed, waiting in zip(progress.done, progress.failed, progress.waiting, strict=True)
    )


def test_a_failure_has_its_cause_its_signal_and_its_stack(collected: Collected) -> None:
    failures = collected(small_store).failures
    assert failures.total == 1
    (failure,) = failures.shown
    assert failure.cause == "ValueError: three is not welcome"
    assert (failure.parameters, failure.exit_signal, failure.place) == ({"x": 3, "mode": "fast"}, 11, 3)
    assert failure.stack == 'File "model.py", line 3, in simulate'
    assert failure.stderr == "warning: three\n"


def test_failures_are_grouped_by_cause_whatever_its_numbers(collected: Collected) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, 300)
        for x in range(300):
            error = "KeyError: 'rare'" if x == 299 else f"ValueError: bad {x} at 0x{x:x}"
            maker.outcome(maker.point({"x": x}), runner, x, 1.0, status="failed", error=error)
        maker.close()

    failures = collected(fill).failures
    assert [(group.cause, group.count) for group in failures.groups] == [
        ("ValueError: bad 0 at 0x0", 299),
        ("KeyError: 'rare'", 1),
    ]
    assert failures.total == 300
    assert len(failures.shown) == 100
    assert failures.shown[-1].cause == "KeyError: 'rare'"  # not crowded out


def test_histogram_bins_are_round_and_counted_right() -> None:
    found = histogram("run_s", [1.0, 1.5, 2.0, 3.0], [2.9])
    assert found is not None
    assert found.edges == (1.0, 1.5, 2.0, 2.5, 3.0)
    assert found.done == (1, 1, 1, 1)  # the last bin has its upper edge
    assert found.failed == (0, 0, 0, 1)
    assert (found.least, found.median, found.mean, found.most) == (1.0, 2.0, 2.08, 3.0)
    assert not found.log


def test_a_wide_spread_gets_a_logarithmic_histogram() -> None:
    found = histogram("run_s", [0.01, 0.02, 0.05, 0.1, 10.0], [])
    assert found is not None
    assert found.log
    assert (found.edges[0], found.edges[-1]) == (0.01, 10.0)
    assert sum(found.done) == 5
    ratios = {round(after / before, 6) for before, after in zip(found.edges, found.edges[1:], strict=False)}
    assert len(ratios) == 1


def test_one_value_and_none_have_histograms_too() -> None:
    found = histogram("peak_rss_bytes", [float(50 * 2**20)], [])
    assert found is not None
    assert sum(found.done) == 1
    assert found.edges[0] <= 50 * 2**20 < found.edges[-1]
    assert all(edge % 2**20 == 0 for edge in found.edges)
    assert histogram("run_s", [], []) is None
    zero = histogram("run_s", [0.0, 0.0], [])
    assert zero is not None and sum(zero.done) == 2


def test_a_long_pause_is_left_out_of_the_axis_and_a_short_one_is_not() -> None:
    axis = make_axis([(0, 10), (11, 20), (1000, 1020)])
    assert axis is not None
    assert [(segment.start, segment.end) for segment in axis.segments] == [(0, 20), (1000, 1020)]
    assert axis.length == 40
    assert [axis.at(moment) for moment in (0, 10, 500, 1000, 1020)] == [0, 10, 20, 20, 40]
    assert axis.moment(30) == 1010


def test_many_pauses_leave_a_bounded_number_of_segments() -> None:
    axis = make_axis([(1000.0 * place, 1000.0 * place + 1) for place in range(200)])
    assert axis is not None
    assert len(axis.segments) <= 9


def test_density_is_the_part_of_each_bin_that_jobs_ran(collected: Collected) -> None:
    def fill(path: Path) -> None:  # 700 jobs of half a second, one each second, on one worker
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, 700, workers=1)
        for x in range(700):
            maker.outcome(maker.point({"x": x}), runner, x, 0.5, result=x)
        maker.close()

    timeline = collected(fill).timeline
    assert timeline is not None
    (lane,) = timeline.lanes
    assert lane.bars == ()
    assert sum(lane.density) / timeline.bins == pytest.approx(0.5, abs=1e-3)
    assert max(lane.density) < 0.7


def test_workers_that_followed_each_other_share_a_row(collected: Collected) -> None:
    def fill(path: Path) -> None:  # a process for each job, two at a time
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, 100)
        for x in range(200):
            maker.outcome(maker.point({"x": x}), runner, x // 2, 0.9, result=x, pid=10_000 + x)
        maker.close()

    timeline = collected(fill).timeline
    assert timeline is not None
    assert timeline.kind == "slot"
    assert [(lane.name, lane.workers, lane.jobs) for lane in timeline.lanes] == [
        ("slot 1", 100, 100),
        ("slot 2", 100, 100),
    ]


def test_results_are_drawn_against_the_parameter_of_most_values_a_series_for_the_other(collected: Collected) -> None:
    rows = [
        ({"size": size, "t": t / 10}, {"m": size * t, "m_error": 0.5, "name": "x", "ok": True})
        for size in (8, 16)
        for t in range(5)
    ]
    results = collected(lambda path: write_rows(path, rows)).results
    (panel,) = results.panels  # text, booleans and errors are no columns of their own
    assert (panel.column, panel.x, panel.by, panel.errors) == ("m", "t", ("size",), "given")
    assert [series.label for series in panel.series] == ["8", "16"]
    assert [(dot.x, dot.y, dot.low, dot.high) for dot in panel.series[1].dots][:2] == [
        (0.0, 0.0, -0.5, 0.5),
        (0.1, 16.0, 15.5, 16.5),
    ]
    assert all(series.line for series in panel.series)
    assert (results.done, results.read) == (10, 10)


def _grid(**values: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(zip(values, found, strict=True)) for found in itertools.product(*values.values())]


def test_each_combination_of_the_further_parameters_has_a_series_of_its_own(collected: Collected) -> None:
    zipped = [(16, "square"), (32, "square"), (32, "triangular")]
    rows: list[tuple[dict[str, Any], Any]] = [
        ({"t": t, "size": size, "lattice": lattice}, t * size + len(lattice))
        for t in range(4)
        for size, lattice in zipped
    ]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert (panel.x, panel.by, panel.over) == ("t", ("size", "lattice"), ())
    assert [series.label for series in panel.series] == [f"size={size}, lattice={lattice}" for size, lattice in zipped]
    assert [[dot.y for dot in series.dots] for series in panel.series] == [
        [float(t * size + len(lattice)) for t in range(4)] for size, lattice in zipped
    ]
    assert all(series.line for series in panel.series)


def test_a_parameter_that_goes_one_to_one_with_another_is_not_named_twice(collected: Collected) -> None:
    rows: list[tuple[dict[str, Any], Any]] = [
        ({"t": t, "kelvin": 273 + t, "size": size, "steps": 10 * size, "mode": mode}, t * size)
        for t in range(5)
        for size in (8, 16)
        for mode in ("a", "b")
    ]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert (panel.x, panel.by, panel.over) == ("t", ("size", "mode"), ())
    assert [series.label for series in panel.series] == [
        f"size={size}, mode={mode}" for size in (8, 16) for mode in ("a", "b")
    ]


def test_a_parameter_that_goes_with_the_axis_one_way_only_has_its_series(collected: Collected) -> None:
    rows: list[tuple[dict[str, Any], Any]] = [({"t": t, "mode": "abc"[t % 3]}, t) for t in range(9)]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert [(series.label, [dot.x for dot in series.dots]) for series in panel.series] == [
        ("a", [0.0, 3.0, 6.0]),
        ("b", [1.0, 4.0, 7.0]),
        ("c", [2.0, 5.0, 8.0]),
    ]


def test_a_point_that_lacks_a_parameter_has_a_series_too(collected: Collected) -> None:
    rows: list[tuple[dict[str, Any], Any]] = [
        ({"t": t, **({"size": size} if size else {})}, t) for t in range(3) for size in (0, 8, 16)
    ]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert [series.label for series in panel.series] == ["8", "16", "–"]


def test_of_too_many_combinations_the_mean_over_the_rest_is_drawn_with_its_spread(collected: Collected) -> None:
    grid = _grid(t=range(12), size=[8, 16, 32], n=[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    rows: list[tuple[dict[str, Any], Any]] = [(point, point["size"] + 2.0 * point["n"]) for point in grid]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert (panel.x, panel.by, panel.over, panel.errors) == ("t", ("size",), ("n",), "standard deviation")
    assert [(series.label, len(series.dots)) for series in panel.series] == [("8", 12), ("16", 12), ("32", 12)]
    dot = panel.series[0].dots[0]
    spread = statistics.stdev(2.0 * n for n in range(1, 11))
    assert (dot.y, dot.count) == (8 + 11, 10)
    assert [dot.low, dot.high] == pytest.approx([19 - spread, 19 + spread])


def test_where_no_further_parameter_has_few_values_all_are_averaged(collected: Collected) -> None:
    grid = _grid(t=range(12), a=range(9), b=range(10))
    rows: list[tuple[dict[str, Any], Any]] = [(point, point["a"] - point["b"]) for point in grid]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert (panel.by, panel.over) == ((), ("a", "b"))
    (series,) = panel.series
    assert [dot.y for dot in series.dots] == pytest.approx([-0.5] * 12)
    assert {dot.count for dot in series.dots} == {90}


def test_replicates_are_averaged_with_the_standard_error_of_the_mean(collected: Collected) -> None:
    rows = [({"x": x}, float(value)) for x in (1, 2) for value in (x, x + 2, x + 4)]
    (panel,) = collected(lambda path: write_rows(path, rows, replicates=3)).results.panels
    (series,) = panel.series
    assert panel.errors == "standard error"
    assert [(dot.x, dot.y, dot.count) for dot in series.dots] == [(1.0, 3.0, 3), (2.0, 4.0, 3)]
    error = (4 / 3) ** 0.5  # standard deviation 2, of three
    assert series.dots[0].low == pytest.approx(3 - error)
    assert series.dots[0].high == pytest.approx(3 + error)


def test_a_parameter_of_text_becomes_categories(collected: Collected) -> None:
    rows: list[tuple[dict[str, Any], Any]] = [({"mode": mode}, len(mode)) for mode in ("fast", "exact")]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert panel.categories == ("fast", "exact")
    assert [(dot.x, dot.y) for dot in panel.series[0].dots] == [(0.0, 4.0), (1.0, 5.0)]


def test_a_whole_number_and_its_float_are_one_value(collected: Collected) -> None:
    rows: list[tuple[dict[str, Any], Any]] = [
        ({"size": size, "t": t}, t) for t, size in enumerate([16, 16.0, 32, 32.0, 16, 32])
    ]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert [(series.label, [dot.x for dot in series.dots]) for series in panel.series] == [
        ("16", [0.0, 1.0, 4.0]),
        ("32", [2.0, 3.0, 5.0]),
    ]


def test_points_need_not_have_the_same_parameters(collected: Collected) -> None:
    rows: list[tuple[dict[str, Any], Any]] = [({"x": 1}, 1), ({"x": 2, "y": 3}, 2), ({"y": [1, 2]}, 3), ({}, 4)]
    data = collected(lambda path: write_rows(path, rows))
    assert {parameter.name: parameter.points for parameter in data.parameters} == {"x": 2, "y": 2}
    json.dumps(data.as_dict(), allow_nan=False)


def test_numbers_that_can_not_be_drawn_are_left_out(collected: Collected) -> None:
    rows = [({"x": x}, {"y": y}) for x, y in enumerate([1.0, float("nan"), float("inf"), 10**400, 1e308, -2.0])]
    (panel,) = collected(lambda path: write_rows(path, rows)).results.panels
    assert [dot.y for dot in panel.series[0].dots] == [1.0, -2.0]


def test_pickled_results_are_drawn_of_an_own_store_and_withheld_of_one_that_others_may_write(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    write_rows(path, [({"x": x}, {"y": (x, x), "z": float(x), "w": {1, x}}) for x in range(5)])
    with Store(path) as store:
        results = collect(store, store.batch()).results
    assert [panel.column for panel in results.panels] == ["z"]
    assert (results.read, results.withheld) == (5, 0)
    path.chmod(0o666)
    with Store(path) as store:
        results = collect(store, store.batch()).results
    assert results.panels == ()
    assert (results.read, results.withheld, results.unread_pickles) == (0, 5, 0)


def test_a_pickle_of_an_untrusted_store_is_never_loaded(tmp_path: Path) -> None:
    path, trace = tmp_path / "store.db", tmp_path / "trace"
    write_rows(path, [({"x": 1}, _Trace(str(trace))), ({"x": 2}, _Trace(str(trace)))])
    with Store(path) as store:
        collect(store, store.batch())
    trace.rmdir()  # it was made: loading them leaves a trace
    path.chmod(0o666)
    with Store(path) as store:
        collect(store, store.batch())
    assert not trace.exists()


def _make(path: str) -> None:
    Path(path).mkdir(exist_ok=True)


class _Trace:
    """Makes a directory where its pickle is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.path,)


def test_few_of_many_pickles_are_loaded(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobrunner.batch.report.results._READ", {"json": 100, "pickle": 50})
    rows: list[tuple[dict[str, Any], Any]] = [
        ({"x": x}, {"y": x, "s": {x}} if x % 2 else {"y": x}) for x in range(2000)
    ]
    results = collected(lambda path: write_rows(path, rows)).results
    assert 100 <= results.read <= 200
    assert 900 <= results.unread_pickles <= 980
    (panel,) = results.panels
    places = [dot.x for dot in panel.series[0].dots]
    assert places[0] < 50 and places[-1] > 1950  # evenly over the batch


def test_a_batch_that_runs_says_so(collected: Collected) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, None, here=True)
        maker.outcome(maker.point({"x": 0}), runner, 0, 1.0, result=1)
        maker.point({"x": 1}, "leased")
        maker.point({"x": 2})
        maker.close()

    summary = collected(fill).summary
    assert summary.running
    assert (summary.done, summary.leased, summary.pending) == (1, 1, 1)
    assert summary.runs[0].state == "running"


def test_a_run_that_was_killed_is_lost_not_running(collected: Collected) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        runner = maker.runner(0, None)
        maker.outcome(maker.point({"x": 0}), runner, 0, 7.0, result=1)
        maker.point({"x": 1}, "leased")
        maker.close()

    summary = collected(fill).summary
    assert not summary.running
    assert summary.runs[0].state == "lost"
    assert summary.active_s == pytest.approx(7.01)  # to its last outcome


def test_a_batch_of_which_nothing_has_ended_has_no_charts(collected: Collected) -> None:
    def fill(path: Path) -> None:
        maker = StoreMaker(path, parameters=["x"], varying=["x"])
        maker.point({"x": 0})
        maker.close()

    data = collected(fill)
    assert data.timeline is None and data.progress is None and data.histograms == ()
    assert (data.summary.total, data.summary.rate, data.summary.busy) == (1, None, None)
    json.dumps(data.as_dict(), allow_nan=False)
