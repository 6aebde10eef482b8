"""`jobrunner bench` as its users meet it: real workers, files, exit codes, interruptions."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jobrunner.bench.cores import Cores
from jobrunner.bench.plan import make_plan
from jobrunner.bench.result import _OVERHEAD_TIMES
from jobrunner.bench.run import measure
from jobrunner.bench.settings import Settings
from jobrunner.cli.app import app
from tests.bench.simulated import SimulatedClock, SimulatedEngine, work
from tests.command_line import CommandLine

FUNCTIONS = '''\
"""What is timed here."""
import os, time


def spin(n=1, seconds=0.01):
    end = time.perf_counter() + n * seconds
    while time.perf_counter() < end:
        pass


def spun(n=1, seconds=0.01):
    spin(n, seconds)


def numbers(n):
    return (list(range(n, 0, -1)),)


def order(items):
    return sorted(items)


def chatty():
    print("I am timed")
    spin()


def fails(n=1):
    raise ValueError("it can't")


def dies():
    os._exit(3)


def hog():
    kept = []
    while True:
        kept.append(b"x" * 10_000_000)


def endless():
    while True:
        pass


def nothing():
    pass

'''

#: Few and short, as the figures are of no matter here.
QUICK = ("--samples", "2", "--warmup", "0")


@pytest.fixture
def bench(command_line: CommandLine) -> Any:
    (command_line.directory / "timed.py").write_text(FUNCTIONS)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return command_line.run("bench", *arguments)

    return run


def document(directory: Path, name: str = "out.json") -> Any:
    return json.loads((directory / name).read_text())


def test_functions_are_timed_compared_and_told(bench: Any, tmp_path: Path) -> None:
    ran = bench("timed:spin", "timed:spun", "-p", "n=1,2,4", "--samples", "5", "--json", "out.json")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "timed:spin+spun"
    assert lines[1].split() == [
        "function",
        "n",
        "median",
        "95",
        "%",
        "interval",
        "MAD",
        "CPU",
        "peak",
        "samples",
        "by",
        "spin",
    ]
    assert len([line for line in lines if line.startswith(("spin  ", "spun  "))]) == 6
    assert any(line.startswith("spin grows with n: ") for line in lines)
    found = document(tmp_path)
    assert found["format"] == "jobrunner-benchmark"
    for series in found["series"]:
        assert series["median"]["value"] >= 0.01 * series["parameters"]["n"]
        assert len(series["samples"]) == 5
        assert all(len(sample["values"]) == 3 and len(sample["warmups"]) == 1 for sample in series["samples"])
    assert len(found["comparisons"]) == 3
    assert found["machine"]["python_hash_seed"]
    assert found["settings"]["gc"] is True
    assert found["complete"] is True


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system can't pin")
def test_samples_are_pinned_to_one_core_unless_that_is_not_wanted(bench: Any, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core only")
    bench("timed:spin", *QUICK, "--json", "out.json")
    last = max(os.sched_getaffinity(0))
    assert {tuple(sample["cores"]) for sample in document(tmp_path)["series"][0]["samples"]} == {(last,)}
    bench("timed:spin", *QUICK, "--cpus", "0", "--json", "out.json")
    assert {tuple(sample["cores"]) for sample in document(tmp_path)["series"][0]["samples"]} == {(0,)}
    bench("timed:spin", *QUICK, "--no-affinity", "--json", "out.json")
    assert {tuple(sample["cores"]) for sample in document(tmp_path)["series"][0]["samples"]} == {()}


def test_setup_gives_the_arguments(bench: Any) -> None:
    ran = bench("timed:order", "--setup", "timed:numbers", "-p", "n=1000", *QUICK)
    assert ran.returncode == 0, ran.stderr
    assert "timed:order: n=1000" in ran.stdout


def test_what_a_function_prints_is_not_among_the_results(bench: Any) -> None:
    ran = bench("timed:chatty", *QUICK)
    assert ran.returncode == 0
    assert "I am timed" not in ran.stdout + ran.stderr


def test_progress_is_quiet_in_a_pipe(bench: Any) -> None:
    ran = bench("timed:spin", *QUICK)
    assert "\r" not in ran.stderr
    assert "\x1b" not in ran.stderr + ran.stdout
    assert "left" not in ran.stderr


def test_the_document_alone_goes_to_stdout(bench: Any) -> None:
    ran = bench("timed:spin", *QUICK, "--json", "-")
    assert json.loads(ran.stdout)["series"][0]["name"] == "timed:spin"


def test_csv_has_a_line_for_each_value_and_each_failure(bench: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    ran = bench("timed:spin", "-p", "n=1,2", *QUICK, "--csv", "out.csv")
    assert ran.returncode == 0, ran.stderr
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert {row["n"] for row in rows} == {"1", "2"}
    assert all(float(row["seconds"]) > 0 and float(row["cpu_seconds"]) >= 0 for row in rows)
    assert not flag.exists()


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        ("fails", (), "failed: timed:fails: it can't be calibrated: its first call fails: ValueError: it can't"),
        ("dies", (), "failed: timed:dies: it can't be calibrated: its worker left with exit code 3"),
        ("endless", ("--time-limit", "1"), "limit"),
        ("hog", ("--memory-limit", "300MB"), "limit"),
    ],
)
def test_a_function_that_fails_is_a_row_and_the_others_are_measured(
    bench: Any, function: str, options: tuple[str, ...], said: str
) -> None:
    ran = bench(f"timed:{function}", "timed:spin", *QUICK, *options)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    rows = {line.split()[0]: line.split() for line in ran.stdout.splitlines()[2:]}
    assert rows[function][1] == "failed"
    assert float(rows["spin"][1]) >= 10


def test_a_series_that_fails_later_keeps_what_was_measured(bench: Any, tmp_path: Path) -> None:
    """Calibrated, then every sample fails: it is given up after three, with the reason."""
    (tmp_path / "timed.py").write_text(
        FUNCTIONS + "\n\ndef setup(file):\n"
        "    if os.path.exists(file):\n        raise RuntimeError('not again')\n"
        "    open(file, 'w').close()\n    return ()\n"
    )
    ran = bench("timed:spin", "--setup", "timed:setup", "-p", "file=flag", "--samples", "9", "--json", "out.json")
    assert ran.returncode == 1
    (series,) = document(tmp_path)["series"]
    assert series["failed"] == 3
    assert series["given_up"] == "its last 3 samples have failed: the setup fails: RuntimeError: not again"


def test_a_function_that_is_too_fast_says_so_and_is_timed(bench: Any, tmp_path: Path) -> None:
    ran = bench("timed:nothing", *QUICK, "--json", "out.json")
    assert ran.returncode == 0
    (series,) = document(tmp_path)["series"]
    # Beside other work, what is timed now may take several times as long as the empty call did a second ago.
    too_fast = series["median"]["value"] < _OVERHEAD_TIMES * series["overhead_s"]
    assert ("timed:nothing: too fast to be timed alone" in ran.stderr) is too_fast


# --- scaling ----------------------------------------------------------------------------------------------------------


def test_batches_at_each_width_give_speedup_and_the_serial_fraction(bench: Any, tmp_path: Path) -> None:
    ran = bench("timed:spin", "-p", "seconds=0.02", *QUICK, "--workers", "1,2", "--json", "out.json")
    assert ran.returncode == 0, ran.stderr
    (scaling,) = document(tmp_path)["scaling"]
    assert [each["workers"] for each in scaling["widths"]] == [1, 2]
    assert len(scaling["runs"]) == 4
    assert all(run["seconds"] > 0 for run in scaling["runs"])
    assert scaling["jobs"] == 4
    assert scaling["serial_fraction"] is not None
    assert "workers" in ran.stdout
    assert "speedup" in ran.stdout


def test_a_batch_that_fails_is_told_and_not_lost(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "timed.py").write_text(
        FUNCTIONS + "\n\ndef lonely():\n    if len(os.sched_getaffinity(0)) > 1:\n        os._exit(5)\n    spin()\n"
    )
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this test tells the widths by the cores")
    ran = bench("timed:lonely", *QUICK, "--workers", "1,2", "--json", "out.json")
    assert ran.returncode == 1
    (scaling,) = document(tmp_path)["scaling"]
    by_width = {run["width"]: run["error"] for run in scaling["runs"]}
    assert by_width[1] is None
    assert "exit code 5" in by_width[2]
    assert "with 2 workers: its worker left with exit code 5" in ran.stderr


# --- baselines --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """A store with a benchmark of these seconds a call, the samples of the first function and of the second."""

    def make(*functions: float) -> None:
        clock, noise = SimulatedClock(), random.Random(1)
        names = ["spin", "spun"]
        plan = make_plan(
            {
                f"timed:{name}": work(clock, seconds, 0.01, noise)
                for name, seconds in zip(names, functions, strict=False)
            },
            None,
            {},
            setup=None,
            name="spinning",
            settings=Settings(samples=8),
        )
        measure(plan, Cores(), store=tmp_path / "jobrunner.db", engine=lambda plan, width: SimulatedEngine(clock))

    return make


@pytest.mark.parametrize("baseline", ["before.json", "pyperf.json"])
def test_a_regression_of_ten_per_cent_between_two_files_is_found(bench: Any, stored: Any, baseline: str) -> None:
    stored(0.2)
    assert bench("--json", "before.json", "--pyperf", "pyperf.json").returncode == 0
    same = bench("--baseline", baseline, "--fail-if-slower", "5%")
    assert same.returncode == 0, same.stderr
    assert "by baseline" in same.stdout
    stored(0.22)
    ran = bench("--baseline", baseline, "--fail-if-slower", "5%")
    assert ran.returncode == 1
    assert "slower: timed:spin takes 1." in ran.stderr
    assert "5 % more are allowed" in ran.stderr
    assert bench("--baseline", baseline, "--fail-if-slower", "15%").returncode == 0


def test_too_few_samples_to_judge_are_no_pass(bench: Any) -> None:
    ran = bench("timed:spin", "timed:spun", "--samples", "1", "--fail-if-slower", "200%")
    assert ran.returncode == 1
    assert "undecided: timed:spun has too few samples to be called slower or not" in ran.stderr


def test_a_second_implementation_that_is_slower_than_the_first_is_found(bench: Any, stored: Any) -> None:
    stored(0.2, 0.22)
    ran = bench("--fail-if-slower", "5%")
    assert ran.returncode == 1
    assert "slower: timed:spun takes 1." in ran.stderr
    assert "times as long as timed:spin" in ran.stderr
    stored(0.22, 0.2)
    assert bench("--fail-if-slower", "5%").returncode == 0


# --- going on ---------------------------------------------------------------------------------------------------------


def test_ctrl_c_prints_what_there_is_and_the_same_command_goes_on(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "timed.py").write_text(
        FUNCTIONS + "\n\ndef waits(file, fifo):\n"
        "    spin()\n"
        "    with open(file, 'a') as there:\n        there.write('x')\n"
        "    if os.path.getsize(file) == 150:\n"
        "        with open(fifo, 'w') as there:\n            there.write('here\\n')\n"
        "        time.sleep(600)\n"
    )
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    arguments = ("bench", "timed:waits", "-p", "file=count", "-p", "fifo=fifo", "--samples", "4", "--json", "out.json")
    process = command_line.start(*arguments)
    with open(fifo) as file:
        assert file.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "(not complete)" in stdout
    assert "Traceback" not in stderr
    before = document(tmp_path)
    assert before["complete"] is False
    taken = len(before["series"][0]["samples"])
    assert 1 <= taken < 4

    ran = command_line.run(*arguments)
    assert ran.returncode == 0, ran.stderr
    assert f"goes on with the {taken} samples and runs that were measured before" in ran.stderr
    after = document(tmp_path)
    assert after["complete"] is True
    assert len(after["series"][0]["samples"]) == 4
    assert after["series"][0]["samples"][:taken] == before["series"][0]["samples"]


KILLS = """

def kills(file):
    spin()
    with open(file, 'a') as there:
        there.write('x')
    if os.path.getsize(file) == 100:
        import signal
        os.kill(int(open('pid').read()), signal.SIGKILL)
"""


def test_a_killed_benchmark_goes_on(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "timed.py").write_text(FUNCTIONS + KILLS)
    arguments = ["bench", "timed:kills", "-p", "file=count", "--samples", "4", "--json", "out.json"]
    command = [sys.executable, "-m", "jobrunner", *arguments]
    starter = f"import os, sys; open('pid', 'w').write(str(os.getpid())); os.execv(sys.executable, {command!r})"
    killed = subprocess.run(
        [sys.executable, "-c", starter],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        timeout=100,
    )
    assert killed.returncode == -signal.SIGKILL
    ran = command_line.run(*arguments)
    assert ran.returncode == 0, ran.stderr
    assert "goes on with the" in ran.stderr
    assert len(document(tmp_path)["series"][0]["samples"]) == 4


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_file_that_can_not_be_written_keeps_nothing_from_the_others(bench: Any, tmp_path: Path) -> None:
    ran = bench("timed:spin", *QUICK, "--json", "/dev/full", "--csv", "out.csv")
    assert ran.returncode == 3
    assert "jobrunner: /dev/full: the JSON file can't be written: No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout.startswith("timed:spin")
    assert (tmp_path / "out.csv").exists()


def test_without_a_sample_no_file_for_pyperf_is_written(bench: Any, tmp_path: Path) -> None:
    ran = bench("timed:fails", *QUICK, "--pyperf", "out.json")
    assert ran.returncode == 1
    assert "no sample has succeeded, so there is nothing to write to out.json" in ran.stderr
    assert not (tmp_path / "out.json").exists()


def test_without_a_target_the_latest_is_shown_and_written(bench: Any, tmp_path: Path) -> None:
    assert bench("timed:spin", *QUICK, "--name", "first").returncode == 0
    assert bench("timed:spun", *QUICK, "--name", "second").returncode == 0
    shown = bench("--csv", "again.csv")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("second\n")
    assert (tmp_path / "again.csv").exists()
    assert bench("--name", "first").stdout.startswith("first\n")


def test_the_store_lists_benchmarks_beside_batches(bench: Any, command_line: CommandLine) -> None:
    bench("timed:spin", *QUICK, "--name", "spinning")
    assert command_line.run("run", "functions:square", "-p", "x=1").returncode == 0
    listed = command_line.run("list")
    assert "square" in listed.stdout
    assert "spinning" in listed.stdout
    (batch, benchmark) = json.loads(command_line.run("list", "--json").stdout)
    assert (batch["kind"], benchmark["kind"], benchmark["complete"]) == ("batch", "benchmark", True)


def test_pyperf_reads_the_file(bench: Any, tmp_path: Path) -> None:
    pyperf = pytest.importorskip("pyperf")
    assert bench("timed:spin", "timed:fails", "-p", "n=1,2", "--samples", "3", "--pyperf", "out.json").returncode == 1
    suite = pyperf.BenchmarkSuite.load(str(tmp_path / "out.json"))
    assert [each.get_name() for each in suite] == ["timed:spin n=1", "timed:spin n=2"]
    first = suite.get_benchmark("timed:spin n=1")
    assert first.median() >= 0.01
    assert first.get_nrun() == 3
    assert len(first.get_values()) == 9
    for command in (
        ("stats", "out.json"),
        ("show", "out.json"),
        ("compare_to", "out.json", "out.json"),
        ("check", "out.json"),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "pyperf", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 0, ran.stderr


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "there is no such store"),
        ("-p n=1", "-p: expected a TARGET to time"),
        ("timed:nothing_there", "has no 'nothing_there'; did you mean 'nothing'?"),
        ("timed:nothing -p n=1", "n: nothing() has no such parameter; it has none"),
        ("timed:spin -p m=1", "m: spin() has no such parameter; it has n, seconds"),
        ("timed:order", "items: order() requires this parameter"),
        ("timed:spin --samples 0", "--samples"),
        ("timed:spin --samples 5 --min-time 3", "samples and min_time exclude each other"),
        ("timed:spin --target-rse 0%", "expected a share such as 5% or 0.05, found '0%'"),
        ("timed:spin --target-rse 1%x", "expected a share"),
        ("timed:spin --workers 1,x", "expected numbers of workers such as 1,2,4, found '1,x'"),
        ("timed:spin --workers 0", "workers must be at least 1"),
        ("timed:spin --cpus 4000", "there is no core 4000 for this process"),
        ("timed:spin --cpus x", "expected cores such as"),
        ("timed:spin --memory-limit much", "'much' is no amount of memory"),
        ("timed:spin --fail-if-slower 5%", "--fail-if-slower compares with --baseline, or with the first of several"),
        ("timed:spin --any-machine", "--any-machine goes with --baseline"),
        ("timed:spin --baseline none.json", "none.json: --baseline: can't be read: No such file"),
        ("timed:spin --baseline timed.py", "timed.py: --baseline: is no JSON file"),
        ("timed:spin --json no/such/file.json", "there is no directory 'no/such'"),
        ("timed:spin --json jobrunner.db", "is the store itself"),
        ("timed:spin timed:spun --fail-if-slower nan", "expected a share"),
        ("timed:spin --csv .", "'.' is a directory"),
        ("timed:spin --csv -", "only --json can be printed on stdout"),
        ("timed:spin --csv x --json x", "'x' is written by --json already"),
        ("timed:spin --cpus 0 --no-affinity", "leave out either"),
        ("--samples 3", "--samples: expected a TARGET to time"),
        ("--cpus 1", "--cpus: expected a TARGET to time"),
        ("timed:spin --plot timed.py", "'timed.py' is no directory"),
        ("timed:spin --fixed n", "--fixed: expected key=value, found 'n'"),
        ("timed:spin --fixed n=1 --fixed n=2", "n: the parameter is given twice"),
        ("timed:spin --fixed n=[1", "n: expected one value as JSON"),
        ("timed:spin --setup timed:nowhere", "has no 'nowhere'"),
        ("timed:spin --name ", "--name: expected a text"),
    ],
)
def test_wrong_use_is_told_in_a_line_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, said: str
) -> None:
    (tmp_path / "timed_wrongly.py").write_text(FUNCTIONS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ran = CliRunner().invoke(
        app, ["bench", *(arguments.replace("timed", "timed_wrongly").split(" ") if arguments else [])]
    )
    assert ran.exit_code == (3 if "no such store" in said else 2), ran.output
    assert said.replace("timed", "timed_wrongly") in ran.output
    assert "Traceback" not in ran.output
    assert not (tmp_path / "jobrunner.db").exists()


def test_a_baseline_of_something_else_is_refused(bench: Any, tmp_path: Path) -> None:
    bench("timed:spin", *QUICK, "--json", "before.json")
    ran = bench("timed:spun", *QUICK, "--baseline", "before.json")
    assert ran.returncode == 2
    assert "the baseline is of something else: it has timed:spin, and nothing of timed:spun" in ran.stderr
    other = document(tmp_path, "before.json")
    other["machine"]["cpu_count"] = 4096
    (tmp_path / "other.json").write_text(json.dumps(other))
    ran = bench("timed:spin", *QUICK, "--baseline", "other.json")
    assert ran.returncode == 2
    assert "another machine: cpu count is 4096" in ran.stderr
    ran = bench("timed:spin", *QUICK, "--baseline", "other.json", "--any-machine")
    assert ran.returncode == 0
    assert "note: the baseline is of another machine: cpu count is 4096" in ran.stderr


def test_plots_without_matplotlib_name_the_extra(command_line: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "timed.py").write_text(FUNCTIONS)
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    ran = subprocess.run(
        [sys.executable, "-m", "jobrunner", "bench", "timed:spin", "--plot", "plots"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(__file__).resolve().parents[2]}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2, ran.stderr
    assert "--plot needs matplotlib: pip install 'jobrunner[plot]'" in ran.stderr
