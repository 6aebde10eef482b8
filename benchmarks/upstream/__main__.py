"""The tests of Qiskit and its packages, stock and with our jobs in force: ``python -m benchmarks.upstream``.

The tests are taken from the packages' source releases, of the versions that are installed.  Each file is run twice in a
process of its own: as it is, and with `jobrunner.qiskit.enable(min_seconds=0)`, so that no run of a primitive stays in
a thread for being short.  *Lost* is a test that passes stock and does not pass with ours; and, unless it is expected,
one of whose jobs fell back to a thread.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from benchmarks.upstream.plugin import MARKER

__all__ = ["EXPECTED", "SUITES", "Outcome", "compare", "main"]

#: The test files of each package, by its name.
SUITES: dict[str, tuple[str, ...]] = {
    "qiskit": (
        "test/python/primitives/test_primitive_job.py",
        "test/python/primitives/test_statevector_sampler.py",
        "test/python/primitives/test_statevector_estimator.py",
        "test/python/primitives/test_backend_sampler_v2.py",
        "test/python/primitives/test_backend_estimator_v2.py",
    ),
    "qiskit-algorithms": (
        "test/state_fidelities/test_compute_uncompute.py",
        "test/gradients/test_estimator_gradient.py",
        "test/gradients/test_sampler_gradient.py",
        "test/gradients/test_qfi.py",
        "test/gradients/test_qgt.py",
        "test/eigensolvers/test_numpy_eigensolver.py",
        "test/eigensolvers/test_vqd.py",
        "test/minimum_eigensolvers/test_adapt_vqe.py",
        "test/minimum_eigensolvers/test_qaoa.py",
        "test/minimum_eigensolvers/test_sampling_vqe.py",
        "test/minimum_eigensolvers/test_vqe.py",
        "test/time_evolvers/test_pvqd.py",
        "test/time_evolvers/test_trotter_qrte.py",
        "test/time_evolvers/variational/test_var_qite.py",
        "test/time_evolvers/variational/test_var_qrte.py",
    ),
    "qiskit-machine-learning": (
        "test/kernels/test_fidelity_qkernel.py",
        "test/kernels/test_fidelity_statevector_kernel.py",
        "test/kernels/test_trainable_fidelity_qkernel.py",
    ),
}

#: Tests that differ by the nature of a process, by a part of their names, with the reason.
EXPECTED: dict[str, str] = {
    "test_job_size_limit_backend": "counts the calls of a mock in the calling process; they are made in the worker",
    # Stock fails alike (by 0.003 of 0.1) where its second run begins with the generator as the first did.
    "TestSamplerGradient::test_gradient_efficient_su2_2": "a generator given as a seed is not "
    "advanced in the caller: the second run has other noise",
    "TestSamplerGradient::test_gradient_efficient_su2_3": "likewise",
    "TestDuplicates": "the test's own closure holds an open file, which can't be sent: in a thread, with the warning",
}


#: Exit codes of pytest when the tests were run, whether they passed or not.
_RAN = (0, 1)


class Outcome(NamedTuple):
    """What one run of a test file came to.

    Attributes:
        tests: by test, "passed", "failed" or "skipped".
        ran: how many jobs ran in a process and in a thread.
        fell_back: by test, why jobs of it fell back to a thread.
    """

    tests: dict[str, str]
    ran: dict[str, int]
    fell_back: dict[str, list[str]]


def fetch(package: str, directory: Path) -> Path:
    """The tests of a package's source release, of the version that is installed.

    Raises:
        click.ClickException: it can't be had, or has no tests.
    """
    version = importlib.metadata.version(package)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run([*command, "--dest", directory, f"{package}=={version}"], capture_output=True, text=True)
    archives = list(directory.glob("*.tar.gz"))
    if done.returncode or not archives:
        raise click.ClickException(f"the source release of {package} {version} can't be had: {done.stderr.strip()}")
    with tarfile.open(archives[0]) as archive:
        # The tests alone: the package's source beside them would be imported in place of what is installed.
        for member in archive.getmembers():
            parts = Path(member.name).parts[1:]
            if member.isfile() and parts[:1] == ("test",) and ".." not in parts:
                target = directory.joinpath(*parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    if not (directory / "test").is_dir():
        raise click.ClickException(f"the source release of {package} {version} carries no tests")
    return directory


def run_file(directory: Path, file: str, ours: bool) -> Outcome:
    """Run a test file in a process of its own.

    Raises:
        click.ClickException: it could not be run, as where what its tests import is not installed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = [sys.executable, "-m", "pytest", file, "-q", "-p", "no:cacheprovider", "--junitxml", str(report)]
        if ours:
            command += ["-p", "benchmarks.upstream.plugin"]
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, str(directory)])}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
        if not report.exists() or done.returncode not in _RAN:
            raise click.ClickException(f"{file} could not be run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        tests = dict(_cases(report))
    told: dict[str, Any] = {"ran": {}, "fell_back": {}}
    for line in done.stdout.splitlines():
        if line.startswith(MARKER):
            told = json.loads(line.removeprefix(MARKER))
    return Outcome(tests, told["ran"], told["fell_back"])


def _cases(report: Path) -> Iterator[tuple[str, str]]:
    for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 (written by the pytest we started)
        found = {child.tag for child in case}
        outcome = "failed" if found & {"failure", "error"} else "skipped" if "skipped" in found else "passed"
        yield f"{case.get('classname')}::{case.get('name')}", outcome


def compare(stock: Outcome, ours: Outcome) -> tuple[list[str], list[str]]:
    """The tests that are lost, and those that differ as is expected, with the reasons."""
    lost: list[str] = []
    expected: list[str] = []
    for test, outcome in stock.tests.items():
        if outcome == "passed" and ours.tests.get(test) != "passed":
            (expected if _reason(test) else lost).append(f"{test}: {_reason(test) or ours.tests.get(test, 'not run')}")
    for test, whys in ours.fell_back.items():
        (expected if _reason(test) else lost).append(f"{test}: in a thread: {_reason(test) or whys[0]}")
    return lost, expected


def _reason(test: str) -> str:
    return next((reason for part, reason in EXPECTED.items() if part in test), "")


@click.command()
@click.option("--package", "packages", multiple=True, type=click.Choice(sorted(SUITES)), help="Only this package's.")
@click.option("--file", "wanted", multiple=True, help="Only files whose name contains this text.")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write all outcomes there.")
def main(packages: tuple[str, ...], wanted: tuple[str, ...], path: Path | None) -> None:
    """Run the packages' own tests, stock and with jobrunner's jobs."""
    lost_in_all = 0
    told: dict[str, Any] = {}
    for package in packages or tuple(SUITES):
        with tempfile.TemporaryDirectory() as scratch:
            directory = fetch(package, Path(scratch))
            for file in SUITES[package]:
                if wanted and not any(text in file for text in wanted):
                    continue
                stock, ours = run_file(directory, file, False), run_file(directory, file, True)
                lost, expected = compare(stock, ours)
                lost_in_all += len(lost)
                passed = sum(outcome == "passed" for outcome in stock.tests.values())
                click.echo(
                    f"{package} {file}: {passed} pass stock, {len(lost)} lost, {len(expected)} as expected; "
                    f"jobs in processes {ours.ran.get('process', 0)}, in threads {ours.ran.get('thread', 0)}"
                )
                for line in [*(f"  lost: {one}" for one in lost), *(f"  expected: {one}" for one in expected)]:
                    click.echo(line)
                told[f"{package} {file}"] = {"stock": stock._asdict(), "ours": ours._asdict(), "lost": lost}
    if path is not None:
        path.write_text(json.dumps(told, indent=1) + "\n")
    if lost_in_all:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
