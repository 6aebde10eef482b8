"""Baselines: what is read, what is refused, and what is called slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobrunner import SpecError
from jobrunner.bench.compare import Baseline, Comparison, check_baseline, comparisons, read_baseline
from jobrunner.bench.intervals import Estimate
from jobrunner.bench.result import BenchmarkResult, Sample, Series

MACHINE: dict[str, Any] = {"cpu_model_name": "Chip 1", "cpu_count": 2, "system": "Linux", "python_version": "3.11.7"}


def series(name: str, *seconds: float, n: int = 1) -> Series:
    samples = tuple(Sample(round=number, values=(value,)) for number, value in enumerate(seconds))
    return Series(name=f"{name} n={n}", implementation=name, parameters={"n": n}, samples=samples)


def result(*every: Series) -> BenchmarkResult:
    return BenchmarkResult(
        name="b",
        created_at=1e9,
        complete=True,
        implementations=tuple(dict.fromkeys(each.implementation for each in every)),
        parameters=("n",),
        settings={},
        machine=MACHINE,
        code={},
        series=every,
    )


TIMES = (1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.01, 0.99)


def scaled(factor: float) -> tuple[float, ...]:
    return tuple(factor * each for each in TIMES)


def test_each_implementation_is_compared_with_the_first_at_the_same_point() -> None:
    every = [series(name, *scaled(factor), n=n) for n in (1, 2) for name, factor in (("f", 1.0), ("g", 1.5))]
    found = comparisons(result(*every))
    assert [(each.series.name, each.reference) for each in found] == [("g n=1", "f n=1"), ("g n=2", "f n=2")]
    assert all(each.ratio is not None and each.ratio.value == pytest.approx(1.5) for each in found)


def test_values_that_are_equal_for_python_are_points_apart() -> None:
    every = []
    for value, factor in ((1, 1.0), (True, 3.0)):
        for name, times in (("f", 1.0), ("g", 2.0)):
            made = series(name, *scaled(factor * times))
            about = {**vars_of(made), "name": f"{name} n={json.dumps(value)}", "parameters": {"n": value}}
            every.append(Series(**about, samples=made.samples))
    found = comparisons(result(*every))
    assert [each.ratio.value for each in found if each.ratio] == [pytest.approx(2.0), pytest.approx(2.0)]


def test_one_sample_decides_nothing() -> None:
    (found,) = comparisons(result(series("f", 1.0), series("g", 2.0)))
    assert not found.decided
    assert not found.slower_by(0.05)


def test_rounds_that_lack_one_of_both_are_left_out() -> None:
    one, other = series("f", *TIMES), series("g", *scaled(2.0))
    failed = Sample(round=0, failure="crashed", error="dead")
    other = Series(**{**vars_of(other), "samples": (failed, *other.samples[1:])})
    (found,) = comparisons(result(one, other))
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(2.0)


def vars_of(each: Series) -> dict[str, Any]:
    return {"name": each.name, "implementation": each.implementation, "parameters": each.parameters}


def test_one_without_samples_has_no_ratio_and_is_not_slower() -> None:
    (found,) = comparisons(result(series("f", *TIMES), series("g")))
    assert found.ratio is None
    assert not found.different
    assert not found.slower_by(0.05)


def test_with_a_baseline_each_series_is_compared_with_its_own_past() -> None:
    baseline = Baseline(path="b", samples={"f n=1": scaled(0.9)}, machine=MACHINE)
    (found,) = comparisons(result(series("f", *TIMES), series("g", *TIMES)), baseline)
    assert found.series.name == found.reference == "f n=1"
    assert found.slower_by(0.05)
    assert not found.slower_by(0.2)


@pytest.mark.parametrize(
    ("value", "low", "share", "slower"),
    [(1.10, 1.05, 0.05, True), (1.10, 0.99, 0.05, False), (1.04, 1.02, 0.05, False), (0.8, 0.7, 0.05, False)],
)
def test_slower_is_above_the_share_and_surely_not_the_same(
    value: float, low: float, share: float, slower: bool
) -> None:
    ratio = Estimate(value=value, low=low, high=2.0)
    assert Comparison(series=series("f", 1.0), reference="f", ratio=ratio).slower_by(share) is slower


def test_the_files_that_are_written_are_baselines(tmp_path: Path) -> None:
    made = result(series("f", *TIMES), series("g"))
    made.write_json(tmp_path / "own.json")
    made.write_pyperf(tmp_path / "pyperf.json")
    for name in ("own.json", "pyperf.json"):
        found = read_baseline(tmp_path / name)
        assert found.samples == {"f n=1": TIMES}
        assert found.machine["cpu_model_name"] == "Chip 1"


def test_pyperfs_own_file_is_a_baseline(tmp_path: Path) -> None:
    document = {
        "version": "1.0",
        "metadata": {"cpu_count": 2},
        "benchmarks": [
            {
                "metadata": {"name": "f n=1", "unit": "second"},
                "runs": [
                    {"metadata": {"calibrate_loops": 4}, "warmups": [[1, 0.5]]},
                    {"metadata": {"cpu_model_name": "Chip 2"}, "values": [1.0, 1.2, 1.1]},
                    {"values": [1.3]},
                ],
            },
            {"metadata": {"name": "memory", "unit": "byte"}, "runs": [{"values": [5]}]},
        ],
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    found = read_baseline(tmp_path / "p.json")
    assert found.samples == {"f n=1": (1.1, 1.3)}
    assert found.machine["cpu_model_name"] == "Chip 2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no JSON file"),
        ("[" * 100_000, "is no JSON file"),
        ("\xff", "is no JSON file"),
        ("{}", "is no benchmark's file"),
        ("[]", "is no benchmark's file"),
        ("3", "is no benchmark's file"),
        ('{"series": 3}', "is no benchmark's file"),
        ('{"benchmarks": [{}]}', "is no benchmark's file"),
        ('{"benchmarks": [{"metadata": {"name": "f"}, "runs": [{"values": [0]}]}]}', "is no benchmark's file"),
        ('{"benchmarks": [{"metadata": {"name": "f"}, "runs": [{"values": [NaN]}]}]}', "is no benchmark's file"),
        ('{"benchmarks": [{"metadata": {"name": "f"}, "runs": [{"values": ["x"]}]}]}', "is no benchmark's file"),
        (
            f'{{"benchmarks": [{{"metadata": {{"name": "f"}}, "runs": [{{"values": [{"9" * 400}]}}]}}]}}',
            "is no benchmark's file",
        ),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(SpecError) as caught:
        read_baseline(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_baseline_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="can't be read"):
        read_baseline(tmp_path / "none.json")


def test_a_baseline_of_another_function_is_refused_with_what_it_has() -> None:
    baseline = Baseline(path="b.json", samples={"g n=1": TIMES}, machine=MACHINE)
    with pytest.raises(SpecError, match=r"the baseline is of something else: it has g n=1, and nothing of f n=1"):
        check_baseline(baseline, ["f n=1"], MACHINE, any_machine=False)


def test_what_a_baseline_lacks_is_told() -> None:
    baseline = Baseline(path="b.json", samples={"f n=1": TIMES}, machine={**MACHINE, "python_version": "3.10.1"})
    assert check_baseline(baseline, ["f n=1", "g n=1"], MACHINE, any_machine=False) == [
        "the baseline has no g n=1",
        "the baseline ran on Python 3.10.1, this runs on 3.11.7",
    ]


def test_a_baseline_of_another_machine_is_refused_unless_that_is_wanted() -> None:
    baseline = Baseline(path="b.json", samples={"f n=1": TIMES}, machine={**MACHINE, "cpu_model_name": "Chip 9"})
    with pytest.raises(SpecError, match="another machine: cpu model is Chip 9, here Chip 1"):
        check_baseline(baseline, ["f n=1"], MACHINE, any_machine=False)
    (note,) = check_baseline(baseline, ["f n=1"], MACHINE, any_machine=True)
    assert "cpu model is Chip 9" in note
