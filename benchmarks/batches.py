"""What a batch's store costs: ``python -m benchmarks.batches``.

Jobs of a given length are run on one executor with a store and without, in turns; then a batch of many points is
registered, taken up again unchanged and grown, and asked for its status.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from jobrunner import InlineExecutor, LocalExecutor
from jobrunner.batch import Batch, StopRequest, load_target, run_points, sweep

__all__ = ["main"]

_JOBS = '''\
"""What the batches run."""


def spin(i, rounds):
    """Keep a core busy."""
    count = 0
    while count < rounds:
        count += 1
    return {"i": i, "count": count}
'''


def _rounds(directory: Path, seconds: float) -> int:
    """How many rounds of `spin` take so long here."""
    spin = load_target("jobs.py:spin", directory=directory).function
    begun = time.perf_counter()
    spin(0, 1_000_000)
    return max(1, int(1_000_000 * seconds / (time.perf_counter() - begun)))


def _overhead(directory: Path, jobs: int, rounds: int, repeats: int, workers: int) -> list[tuple[float, float]]:
    """Seconds without and with a store, in each repeat."""
    spin = load_target("jobs.py:spin", directory=directory).function
    points = sweep(i=range(jobs), rounds=[rounds])
    pairs = []
    for repeat in range(repeats):
        took = {}
        for stored in (False, True) if repeat % 2 == 0 else (True, False):
            with LocalExecutor(workers) as executor:
                for future in [executor.submit(abs, i) for i in range(50)]:
                    future.result()
                begun = time.perf_counter()
                if stored:
                    store = directory / f"overhead-{repeat}.db"
                    done = Batch(spin, points, name="spin", store=store).run(executor, False).done
                else:
                    done = run_points(spin, points, executor).done
                took[stored] = time.perf_counter() - begun
            if done != jobs:
                raise SystemExit(f"only {done} of {jobs} jobs were done")
        pairs.append((took[False], took[True]))
    return pairs


def _take_up(directory: Path, count: int) -> None:
    """Take a batch of so many points up, and stop with the first of them; prints seconds and peak memory as JSON."""
    import resource

    stop = StopRequest()
    begun = time.perf_counter()
    batch = Batch("jobs.py:spin", sweep(i=range(count), rounds=[1]), directory=directory, name="many", store="many.db")
    batch.run(InlineExecutor(), False, stop=stop, on_outcome=lambda outcome: stop.request())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": time.perf_counter() - begun, "peak_mb": peak / 1e3}))


def _many(directory: Path, points: int) -> None:
    """Print what a batch of many points costs, each step in a process of its own."""
    for label, count in (("first start", points), ("resume, the same", points), ("resume, one point more", points + 1)):
        call = f"from benchmarks.batches import _take_up; from pathlib import Path; _take_up(Path('.'), {count})"
        found = json.loads(_python(directory, "-c", call))
        click.echo(f"{points:,} points, {label}: {found['seconds']:.2f} s, {found['peak_mb']:.0f} MB")
    begun = time.perf_counter()
    _python(directory, "-m", "jobrunner", "status", "--store", "many.db")
    click.echo(
        f"{points:,} points, jobrunner status: {time.perf_counter() - begun:.2f} s, the start of Python included"
    )


def _python(directory: Path, *arguments: str) -> str:
    root = str(Path(__file__).resolve().parents[1])
    code = subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={"PYTHONPATH": root, "PATH": ""},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return code.stdout


@click.command(epilog="Example: python -m benchmarks.batches --repeats 9")
@click.option("--jobs", default=1000, show_default=True, help="Jobs of each run.")
@click.option("--length", default=0.01, show_default=True, help="Seconds of a job.")
@click.option("--repeats", default=5, show_default=True, help="Runs with a store, and without.")
@click.option("--workers", default=2, show_default=True, help="Worker processes.")
@click.option("--points", default=1_000_000, show_default=True, help="Points of the large batch; 0: none.")
def main(jobs: int, length: float, repeats: int, workers: int, points: int) -> None:
    """Measure what a batch's store costs."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "jobs.py").write_text(_JOBS)
        pairs = _overhead(directory, jobs, _rounds(directory, length), repeats, workers)
        ratios = sorted(stored / plain for plain, stored in pairs)
        click.echo(
            f"{jobs:,} jobs of {length:g} s on {workers} workers: with a store "
            f"{statistics.median(ratios):.3f} of the time without, from {ratios[0]:.3f} to {ratios[-1]:.3f} "
            f"(median {statistics.median(plain for plain, _ in pairs):.2f} s without)"
        )
        if points:
            _many(directory, points)


if __name__ == "__main__":
    main()
