"""The examples with Qiskit: against exact solutions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("qiskit")

from qiskit.primitives import StatevectorEstimator, StatevectorSampler

from examples.quantum import kernel, trotter
from jobrunner import LocalExecutor, use_executor
from jobrunner.qiskit import ParallelEstimator, ParallelSampler


@pytest.fixture(scope="module", autouse=True)
def executor() -> Any:
    with LocalExecutor(2, preload=["qiskit.primitives"]) as made, use_executor(made):
        yield


def _main(module: Any, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
    module.main()


def test_the_exact_energy_of_hydrogen_is_the_known_one() -> None:
    pytest.importorskip("qiskit_algorithms")
    from examples.quantum import h2_vqe

    # Full configuration interaction in STO-3G at 0.735 Å.
    assert h2_vqe.exact_energy() == pytest.approx(-1.137306, abs=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:qiskit_algorithms")
def test_vqe_goes_down_and_is_the_same_in_parallel() -> None:
    pytest.importorskip("qiskit_algorithms")
    from examples.quantum import h2_vqe

    alone = h2_vqe.solve(StatevectorEstimator(), iterations=3)
    parallel = h2_vqe.solve(ParallelEstimator(StatevectorEstimator(), min_seconds=0), iterations=3)
    assert parallel == pytest.approx(alone, abs=1e-12)
    assert h2_vqe.exact_energy() < alone[-1] < alone[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:qiskit_algorithms")
def test_vqe_tells_and_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qiskit_algorithms")
    pytest.importorskip("matplotlib")
    from examples.quantum import h2_vqe

    _main(h2_vqe, monkeypatch, "--iterations", "1", "--plot", str(tmp_path / "h2.png"))
    told = capsys.readouterr()
    assert told.out.startswith("exact energy: -1.137306 hartree\nby VQE: ")
    assert told.err == ""
    assert (tmp_path / "h2.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("time", "field"), [(0.4, 0.25), (1.0, 1.0), (2.0, 1.5)])
def test_trotter_steps_come_near_the_exact_evolution(time: float, field: float) -> None:
    exact = trotter.exact_magnetization(time, field, 6)
    errors = [abs(trotter.magnetization(time, field, 6, step) - exact) for step in (0.1, 0.05)]
    assert errors[0] < 0.02
    # Of second order: a half of the step makes a quarter of the error.
    assert errors[1] / errors[0] == pytest.approx(0.25, abs=0.05)


def test_the_batch_of_the_chain_is_run_and_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    arguments = ("--sites", "4", "--store", str(tmp_path / "store.db"), "--plot", str(tmp_path / "chain.png"))
    _main(trotter, monkeypatch, *arguments)
    assert "84 points done, 0 failed" in capsys.readouterr().out
    assert (tmp_path / "chain.png").read_bytes().startswith(b"\x89PNG")


def test_the_sampled_kernel_is_near_the_exact_one() -> None:
    data, labels = kernel.points(6, 3)
    exact = kernel.exact_kernel(data)
    sampled = kernel.kernel_matrix(ParallelSampler(StatevectorSampler(), seed=1, min_seconds=0), data, shots=4096)
    np.testing.assert_array_equal(sampled, sampled.T)
    # Five standard deviations of a share of 4096 shots.
    assert np.abs(sampled - exact).max() < 5 * 0.5 / 64
    assert kernel.alignment(np.outer(2.0 * labels - 1, 2.0 * labels - 1), labels) == pytest.approx(1.0)


def test_the_kernel_is_told_and_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    _main(kernel, monkeypatch, "--count", "5", "--features", "2", "--plot", str(tmp_path / "kernel.png"))
    assert "10 pairs of 2 qubits, 1024 shots each" in capsys.readouterr().out
    assert (tmp_path / "kernel.png").exists()
