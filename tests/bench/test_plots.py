"""Plots: each is there when there is something to draw, says what it shows, and takes any name and any samples."""

from __future__ import annotations

import dataclasses
import itertools
import math
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobrunner.bench.compare import Baseline, comparisons
from jobrunner.bench.plots import draw
from jobrunner.bench.plots.canvas import Canvas, style
from jobrunner.bench.plots.comparison import comparison_figure
from jobrunner.bench.plots.growth import growth_figure
from jobrunner.bench.plots.samples import samples_figure
from jobrunner.bench.plots.speedup import speedup_figure
from jobrunner.bench.plots.texts import labels, point_text, shorten
from jobrunner.bench.plots.ticks import decimal_ticks, spaced, time_text
from jobrunner.bench.result import BenchmarkResult, Sample, Scaling
from jobrunner.errors import SpecError, StoreError
from tests.bench.results import made_result, made_scaling

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("matplotlib.image")

SIZES = [{"size": size} for size in (100, 1000, 10_000)]
BAD_NAME = "$x^<script>alert('&')\\frac{1\n\x1b[31m\ud800"


def square(implementation: str, point: Mapping[str, Any]) -> float:
    return 1e-9 * float(point["size"]) ** 2


def drawn(result: BenchmarkResult, directory: Path, **how: Any) -> list[str]:
    """The names of the plots, whose files are those that it told, whole and not blank."""
    paths = draw(result, directory, **how)
    assert sorted(paths) == sorted(str(path) for path in directory.iterdir())
    names = [Path(path).stem for path in paths if path.endswith(".png")]
    assert paths == [str(directory / f"{name}{suffix}") for name in names for suffix in (".png", ".svg")]
    for name in names:
        assert colours(directory / f"{name}.png") > 5
        texts(directory / f"{name}.svg")
    return names


def colours(path: Path) -> int:
    """How many colours a picture has; those of a blank one are few."""
    image = matplotlib.image.imread(path)
    height, width, _ = image.shape
    assert height > 200 and width > 500
    return len(set((image[::5, ::5, :3] @ [255.0, 2**8 * 255.0, 2**16 * 255.0]).ravel().tolist()))


def texts(path: Path) -> str:
    """All text of an SVG file, which is well formed."""
    root = ET.parse(path).getroot()  # noqa: S314 - our own file
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [element for element in root.iter() if "script" in element.tag]
    return "\n".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))


def saved(figure: Callable[[BenchmarkResult], Canvas | None], result: BenchmarkResult, directory: Path) -> str:
    """All text of one plot."""
    with style():
        canvas = figure(result)
        assert canvas is not None
        png, svg = canvas.save(directory, "plot")
    assert colours(Path(png)) > 5
    return texts(Path(svg))


# --- which plots there are --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (made_result(), ["samples"]),
        (made_result(points=SIZES, seconds=square), ["samples", "growth"]),
        (made_result(points=SIZES[:2], seconds=square), ["samples"]),
        (made_result(widths=(1, 2, 4)), ["samples", "speedup"]),
        (made_result(["m:one", "m:other"]), ["samples", "comparison"]),
        (
            dataclasses.replace(made_result(["m:one", "m:other"], SIZES, square), scaling=(made_scaling("m:one"),)),
            ["samples", "growth", "speedup", "comparison"],
        ),
        (made_result(["m:one", "m:other"], failures=lambda implementation, point: 20), []),
    ],
    ids=["one function", "growth", "two sizes", "speedup", "comparison", "all", "nothing but failures"],
)
def test_a_plot_is_drawn_where_there_is_something_to_draw(
    tmp_path: Path, result: BenchmarkResult, expected: list[str]
) -> None:
    assert drawn(result, tmp_path) == expected


def test_the_directory_is_made_and_files_are_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there"
    draw(made_result(), directory)
    (directory / "samples.png").write_bytes(b"old")
    draw(made_result(), str(directory))
    assert (directory / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_result_gives_the_same_svg_files(tmp_path: Path) -> None:
    result = made_result(["m:one"], SIZES, square, samples=5)
    first, second = (draw(result, tmp_path / directory) for directory in ("first", "second"))
    for one, other in zip(first[1::2], second[1::2], strict=True):
        text = Path(one).read_text(encoding="utf-8")
        assert text == Path(other).read_text(encoding="utf-8")
        assert "<dc:date>" not in text


# --- what they say ----------------------------------------------------------------------------------------------------


def test_samples_tell_functions_points_units_medians_and_failures(tmp_path: Path) -> None:
    seconds = {1: 3e-9, 2: 4e-6, 3: 5e-3, 4: 6.0}
    result = made_result(
        ["sorting:merge", "sorting:quick", "sorting:never"],
        [{"n": n} for n in seconds],
        lambda implementation, point: seconds[point["n"]],
        noise=0.0,
        failures=lambda implementation, point: {"sorting:quick": 7, "sorting:never": 20}.get(implementation, 0),
        complete=False,
    )
    told = saved(samples_figure, result, tmp_path).split("\n")
    assert {"merge", "quick", "never", "n=1", "n=4", "failed", "× 7", "× 20"} <= set(told)
    assert {f"time of a call [{unit}]" for unit in ("ns", "µs", "ms", "s")} <= set(told)
    assert {"3.000 ns", "4.000 µs", "5.000 ms", "6.000 s"} <= set(told)
    assert any(line.startswith("Time of a call, not complete: ") for line in told)


def test_functions_that_differ_much_share_a_logarithmic_axis(tmp_path: Path) -> None:
    seconds = {"m:one": 1e-6, "m:other": 1e-2}
    result = made_result(list(seconds), seconds=lambda implementation, point: seconds[implementation])
    told = saved(samples_figure, result, tmp_path).split("\n")
    assert "time of a call, logarithmic" in told
    assert {"1 µs", "1 ms"} <= set(told)


def test_growth_tells_what_was_fitted_and_the_other_parameters(tmp_path: Path) -> None:
    points = [{"size": size, "kind": kind} for size in (100, 1000, 10_000) for kind in ("random", "sorted")]
    result = made_result(["m:one", "m:other"], points, square)
    told = saved(growth_figure, result, tmp_path)
    assert len(result.growths) == 4
    for growth in result.growths:
        assert f"{growth.implementation.removeprefix('m:')}: {growth.fit.text}" in told
    assert "kind=random" in told and "kind=sorted" in told
    assert "n = size, logarithmic" in told and "10k" in told


def test_speedup_tells_the_fit_the_efficiencies_and_failed_widths(tmp_path: Path) -> None:
    result = dataclasses.replace(
        made_result(), scaling=(made_scaling("module:function", (1, 2, 4, 8), serial=0.2, failed=[8]),)
    )
    told = saved(speedup_figure, result, tmp_path)
    (fit,) = [scaling.fit for scaling in result.scaling]
    assert fit is not None and fit.text in told
    for efficiency in fit.efficiencies[1:]:
        assert f"{100 * efficiency.value:.0f} %" in told
    assert {"runs failed", "ideal", "Amdahl's law, fitted", "speedup over 1 worker"} <= set(told.split("\n"))


def test_every_scaling_is_drawn(tmp_path: Path) -> None:
    scaling = (
        made_scaling("from two", (2, 4), noise=0.0),
        made_scaling("one round", rounds=1),
        made_scaling("slower with more", (1, 4, 16, 64), serial=1.3),
        made_scaling("faster than ideal", serial=-0.2),
        made_scaling("many widths", tuple(range(1, 17))),
    )
    told = saved(speedup_figure, dataclasses.replace(made_result(), scaling=scaling), tmp_path).split("\n")
    assert {each.name for each in scaling} <= set(told)
    assert {"speedup over 1 worker", "speedup over 2 workers", "workers, logarithmic", "measured, no interval"} <= set(
        told
    )


def test_a_scaling_of_one_width_has_no_speedup(tmp_path: Path) -> None:
    scaling = (made_scaling("module:function", (1, 2), failed=[2]), Scaling(name="?", widths=(1, 2), jobs=2, loops=1))
    assert drawn(dataclasses.replace(made_result(), scaling=scaling), tmp_path) == ["samples"]


def test_comparison_tells_ratios_and_which_way_is_faster(tmp_path: Path) -> None:
    factors = {"m:old": 1.0, "m:fast": 0.5, "m:slow": 1.5, "m:same": 1.0, "m:never": 1.0}
    result = made_result(
        list(factors),
        seconds=lambda implementation, point: 0.1 * factors[implementation],
        failures=lambda implementation, point: 20 * (implementation == "m:never"),
    )
    assert drawn(result, tmp_path) == ["samples", "comparison"]
    told = texts(tmp_path / "comparison.svg")
    assert "← faster     times as long as old     slower →" in told
    for comparison in comparisons(result):
        if comparison.ratio is not None:
            assert f"{comparison.ratio.value:.3f}  (" in told
    assert {"faster", "slower", "no difference seen", "failed", "never"} <= set(told.split("\n"))


def test_a_comparison_with_a_baseline_says_so(tmp_path: Path) -> None:
    result = made_result(samples=5)
    baseline = Baseline(path="b", machine={}, samples={each.name: (0.5, 0.6, 0.7) for each in result.series})
    compared = comparisons(result, baseline)
    assert drawn(result, tmp_path, compared=compared) == ["samples", "comparison"]
    assert "times as long as the baseline" in texts(tmp_path / "comparison.svg")
    draw(result, tmp_path, compared=compared, against="yesterday's")
    assert "times as long as yesterday's" in texts(tmp_path / "comparison.svg")


def test_comparisons_that_can_not_be_made_are_no_plot(tmp_path: Path) -> None:
    result = made_result(
        ["m:one", "m:never"], failures=lambda implementation, point: 20 * (implementation == "m:never")
    )
    assert drawn(result, tmp_path) == ["samples"]


@pytest.mark.parametrize(
    ("figure", "result", "told"),
    [
        (samples_figure, made_result(points=[{"n": n} for n in range(12)], samples=1), "Time of a call: "),
        (samples_figure, made_result(points=[{"n": n} for n in range(20)], samples=1), "(12 of 20 points): "),
        (samples_figure, made_result([f"m:f{n}" for n in range(45)], samples=1), "(40 of 45 functions): "),
        (
            growth_figure,
            made_result(points=[{"size": n, "k": f"{k}"} for n in (1, 2, 3) for k in range(7)], samples=1),
            "(6 of 7 panels): ",
        ),
        (
            speedup_figure,
            made_result(points=[{"n": n} for n in range(10)], widths=(1, 2), samples=1),
            "(9 of 10 series): ",
        ),
        (
            lambda result: comparison_figure(result, comparisons(result), None),
            made_result([f"m:f{n}" for n in range(70)], samples=1),
            "(60 of 69, those farthest from 1): ",
        ),
    ],
    ids=["nothing", "points", "functions", "growth", "speedup", "comparisons"],
)
def test_what_is_left_out_is_told(
    figure: Callable[[BenchmarkResult], Canvas | None], result: BenchmarkResult, told: str
) -> None:
    with style():
        canvas = figure(result)
    assert canvas is not None
    assert told in canvas.title


def test_of_too_many_comparisons_the_largest_differences_are_kept() -> None:
    result = made_result(
        [f"m:f{n}" for n in range(70)], seconds=lambda implementation, point: 1.0 + int(implementation[3:]), samples=1
    )
    with style():
        canvas = comparison_figure(result, comparisons(result), None)
        assert canvas is not None
        (axes,) = canvas.axes
        rows = [label.get_text() for label in axes.get_yticklabels()]
    assert rows == [f"f{n}" for n in range(10, 70)]


# --- any names, any samples -------------------------------------------------------------------------------------------


def test_names_of_any_kind_are_text(tmp_path: Path) -> None:
    names = [BAD_NAME, "f" * 200, "", "漢字" * 40, "مرحبا", "😀", "$other_{$"]
    points = [{BAD_NAME: size, "": name} for size in (1, 2, 4) for name in names[:1]]
    result = made_result([f"m:{name}" for name in names], points, samples=1, name=BAD_NAME)
    result = dataclasses.replace(result, scaling=(made_scaling(result.series[0].name),))
    assert drawn(result, tmp_path) == ["samples", "growth", "speedup", "comparison"]
    for name in ("samples", "growth", "speedup", "comparison"):
        told = texts(tmp_path / f"{name}.svg")
        # Shortened in the middle.
        assert "$x^<script>" in told and "\\ud800" in told
        assert "$other_{$" in told or name == "speedup"


#: For each kind, samples of which something may be singular.
KINDS: dict[str, list[float]] = {
    "none": [],
    "one": [0.1],
    "two": [0.1, 0.1],
    "equal": [0.1] * 20,
    "nearly equal": [0.1] * 19 + [math.nextafter(0.1, 1)],
    "all but one": [0.1] * 19 + [0.2],
    "outlier": [0.1] * 19 + [1e6],
    "extreme": [1e-12, 1.0, 1e12],
    "minute spread": [1.0 + 1e-12 * number for number in range(20)],
    "many": [1.0 + number for number in range(1000)],
}


def test_samples_of_any_kind_are_drawn(tmp_path: Path) -> None:
    result = made_result(points=[{"kind": kind} for kind in KINDS])
    series = tuple(
        dataclasses.replace(
            each,
            samples=tuple(
                Sample(round=number, values=(seconds,)) for number, seconds in enumerate(KINDS[each.parameters["kind"]])
            ),
        )
        for each in result.series
    )
    told = saved(samples_figure, dataclasses.replace(result, series=series), tmp_path).split("\n")
    assert {f"kind={kind}" for kind in KINDS} <= set(told)
    assert told.count("no samples") == 1


def test_one_sample_has_no_interval(tmp_path: Path) -> None:
    result = made_result(["m:one", "m:other"], SIZES, square, samples=1)
    assert drawn(result, tmp_path) == ["samples", "growth", "comparison"]
    assert "median, its 95 % interval" not in texts(tmp_path / "samples.svg")
    assert "no interval" in texts(tmp_path / "comparison.svg")


# --- the library ------------------------------------------------------------------------------------------------------


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SpecError, match=r"pip install 'jobrunner\[plot\]'"):
        draw(made_result(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_drawing_imports_matplotlib_and_never_pyplot(tmp_path: Path) -> None:
    code = f"""
import sys
import jobrunner.bench.plots
assert "matplotlib" not in sys.modules
from tests.bench.results import made_result
jobrunner.bench.plots.draw(made_result(), {str(tmp_path)!r})
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_the_users_own_settings_are_neither_used_nor_changed(tmp_path: Path) -> None:
    draw(made_result(), tmp_path / "plain")
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "black", "font.size": 40}):
        before, filters = dict(matplotlib.rcParams), list(warnings.filters)
        draw(made_result(), tmp_path / "own")
        assert dict(matplotlib.rcParams) == before
        assert list(warnings.filters) == filters
    assert (tmp_path / "own" / "samples.svg").read_text() == (tmp_path / "plain" / "samples.svg").read_text()


def test_a_directory_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="the directory can't be made") as told:
            draw(made_result(), directory)
        assert told.value.path == str(directory)


def test_a_file_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "samples.svg").mkdir()
    with pytest.raises(StoreError, match="the plot can't be written") as told:
        draw(made_result(), tmp_path)
    assert told.value.path == str(tmp_path / "samples.svg")


# --- texts and ticks --------------------------------------------------------------------------------------------------


def test_a_long_text_keeps_its_ends_and_its_width() -> None:
    for width in range(1, 30):
        short = shorten("beginning_of_a_long_name_and_its_end", width)
        assert len(short) == width
    assert shorten("beginning_of_a_long_name_and_its_end", 20) == "beginning_…d_its_end"
    assert shorten("short", 5) == "short"
    assert shorten("漢字漢字", 6) == "漢…字"
    assert shorten("a\tb", 9) == "a\\tb"


def test_labels_are_short_and_no_two_alike() -> None:
    names = [f"m:{'a' * 30}{number}{'b' * 30}" for number in range(12)]
    found = labels(names, 20)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert max(map(len, found.values())) <= 20
    assert labels(["one:f", "other:f"], 20) == {"one:f": "one:f", "other:f": "other:f"}


def test_a_point_is_told_by_the_parameters_that_are_asked_for() -> None:
    assert point_text({"a": [1, 2], "b": None, "c": "x y"}, ["c", "a", "missing"]) == "c=x y a=[1, 2]"


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e3), (0.99, 1.01), (1.0, 1.5), (3e-6, 8e-6), (1e-300, 1e300)])
def test_logarithmic_axes_have_a_few_round_numbers(low: float, high: float) -> None:
    ticks = decimal_ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted(ticks) and low <= ticks[0] and ticks[-1] <= high


def test_places_that_are_kept_are_apart() -> None:
    places = [math.log(width) for width in range(1, 60)]
    kept = spaced(places, 0.3)
    assert kept[0] == 0 and kept[-1] == len(places) - 1
    assert all(places[b] - places[a] >= 0.3 for a, b in itertools.pairwise(kept))
    assert spaced([1.0], 1.0) == [0]
    assert spaced([], 1.0) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (9.9999e-7, "1 µs"),
        (1e-9, "1 ns"),
        (5e-10, "0.5 ns"),
        (0.99996, "1 s"),
        (12.5, "12.5 s"),
        (12345.0, "12,340 s"),
    ],
)
def test_times_are_told_in_their_unit(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
