"""What a process changes, done right: forks, Aer's threads, warnings, log records, nested jobs, random numbers."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qiskit.primitives import StatevectorSampler

from jobrunner import LocalExecutor
from jobrunner.qiskit import PrimitiveJob, accelerate
from tests.qiskit.circuits import bell, warn_and_log


def _run(code: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:jobrunner", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
        # What other packages warn of is theirs.
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_warnings_and_log_records_reach_the_caller(executor: LocalExecutor, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        job: Any = PrimitiveJob(warn_and_log)
        job.submit(executor)
        assert job.result() == "done"
    assert [str(one.message) for one in caught] == [f"of the worker (job {job.job_id()})"]
    assert "said by the worker" in caplog.text


def test_a_generator_of_the_caller_is_not_advanced_by_accelerated_runs(executor: LocalExecutor) -> None:
    rng = np.random.default_rng(1)
    sampler = StatevectorSampler(seed=rng)
    state = rng.bit_generator.state
    with accelerate(executor, min_seconds=0):
        runs = [sampler.run([bell()], shots=40).result()[0].data.meas.array for _ in range(2)]
    assert rng.bit_generator.state == state
    np.testing.assert_array_equal(*runs)


_FORK = """
import os
from qiskit.primitives import PrimitiveJob
import jobrunner.qiskit

def value(n):
    job = PrimitiveJob(pow, 2, n)
    job._submit()
    return job.result()

if __name__ == "__main__":
    jobrunner.qiskit.enable(min_seconds=0)
    assert value(3) == 8
    children = []
    for n in range(3):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(write, str(value(n)).encode())
            raise SystemExit(0)
        os.close(write)
        children.append((pid, read))
    for pid, read in children:
        text = os.read(read, 100)
        _, status = os.waitpid(pid, 0)
        print(text.decode(), status)
    print(value(10))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_starts_afresh(tmp_path: Path) -> None:
    assert _run(_FORK, tmp_path).split() == ["1", "0", "2", "0", "4", "0", "1024"]


_FORK_AMID = """
import os, signal, threading
from qiskit.primitives import BackendSamplerV2
from qiskit.providers.basic_provider import BasicSimulator
from jobrunner.qiskit import acceleration, running
from jobrunner.qiskit.carrying import carry_object

begun, go = threading.Event(), threading.Event()

class Slow(BasicSimulator):
    def __reduce__(self):
        begun.set()
        go.wait()
        return BasicSimulator, ()

def amid():
    with acceleration._lock, running._keeping:
        carry_object(BackendSamplerV2(backend=Slow()))

thread = threading.Thread(target=amid)
thread.start()
begun.wait()
pid = os.fork()
if not pid:
    signal.alarm(60)
    with acceleration.accelerate():
        template, _ = carry_object(BackendSamplerV2(backend=BasicSimulator()))
        running.rebuild(running.Template(template.data, (BasicSimulator(),), template.key))
    os._exit(7)
go.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_while_a_backend_is_serialised_does_not_wait_for_that(tmp_path: Path) -> None:
    assert _run(_FORK_AMID, tmp_path).split() == ["7"]


_AER_FIRST = """
from qiskit import QuantumCircuit
from qiskit_aer.primitives import SamplerV2, EstimatorV2
import jobrunner.qiskit

circuit = QuantumCircuit(12)
circuit.h(range(12))
circuit.measure_all()
# OpenMP's threads are there before any worker is.
sampler = SamplerV2(seed=1, options={"backend_options": {"max_parallel_threads": 2}})
print(sampler.run([circuit] * 4).result()[0].data.meas.num_shots)
with jobrunner.qiskit.accelerate(min_seconds=0):
    jobs = [SamplerV2(seed=1).run([circuit]) for _ in range(4)]
    print([job.result()[0].data.meas.num_shots for job in jobs])
    print({job.report().backend for job in jobs})
    estimator = EstimatorV2()
    print(float(estimator.run([(circuit.remove_final_measurements(inplace=False), "Z" * 12)]).result()[0].data.evs))
"""


def test_aer_before_the_pool_does_not_hang_it(tmp_path: Path) -> None:
    pytest.importorskip("qiskit_aer")
    lines = _run(_AER_FIRST, tmp_path).splitlines()
    assert lines[:3] == ["1024", "[1024, 1024, 1024, 1024]", "{'local'}"]
    assert abs(float(lines[3])) < 1e-9


_P_BFGS = """
import numpy as np
from qiskit.primitives import StatevectorEstimator
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_algorithms.minimum_eigensolvers import VQE
from qiskit_algorithms.optimizers import P_BFGS
import jobrunner.qiskit

if __name__ == "__main__":
    with jobrunner.qiskit.accelerate(min_seconds=0):
        optimizer = P_BFGS(maxfun=20, max_processes=2)
        solver = VQE(StatevectorEstimator(), real_amplitudes(2, reps=1), optimizer, initial_point=[0.1] * 4)
        found = solver.compute_minimum_eigenvalue(SparsePauliOp(["ZZ", "XI"], [1.0, 0.5]))
    print(found.eigenvalue.real < -1.0)
"""


def test_an_optimizer_that_forks_comes_to_its_end(tmp_path: Path) -> None:
    pytest.importorskip("qiskit_algorithms")
    assert _run(_P_BFGS, tmp_path).split() == ["True"]


def test_vqe_comes_to_the_same_as_qiskits_own(executor: LocalExecutor) -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit.circuit.library import real_amplitudes
    from qiskit.primitives import StatevectorEstimator
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_algorithms.gradients import ParamShiftEstimatorGradient
    from qiskit_algorithms.minimum_eigensolvers import VQE
    from qiskit_algorithms.optimizers import SPSA
    from qiskit_algorithms.utils import algorithm_globals

    from jobrunner.qiskit import ParallelEstimator

    operator = SparsePauliOp(["ZZ", "XI", "IX"], [1.0, 0.5, -0.25])

    def solve(estimator: Any) -> Any:
        algorithm_globals.random_seed = 11
        optimizer = SPSA(maxiter=15, learning_rate=0.1, perturbation=0.05)
        solver = VQE(estimator, real_amplitudes(2, reps=1), optimizer, initial_point=np.full(4, 0.1))
        return solver.compute_minimum_eigenvalue(operator)

    stock = solve(StatevectorEstimator())
    with accelerate(executor, min_seconds=0):
        accelerated = solve(StatevectorEstimator())
    spread = solve(ParallelEstimator(StatevectorEstimator(), executor=executor, min_seconds=0))
    assert accelerated.eigenvalue == stock.eigenvalue
    np.testing.assert_array_equal(accelerated.optimal_point, stock.optimal_point)
    assert spread.eigenvalue == stock.eigenvalue

    circuit = real_amplitudes(4, reps=9)
    assert circuit.num_parameters == 40
    values = np.linspace(-1, 1, 40)
    observable = SparsePauliOp("ZZZZ")

    def gradient(estimator: Any) -> Any:
        return ParamShiftEstimatorGradient(estimator).run([circuit], [observable], [values]).result().gradients[0]

    expected = gradient(StatevectorEstimator())
    with accelerate(executor, min_seconds=0):
        np.testing.assert_array_equal(gradient(StatevectorEstimator()), expected)
    spread_gradient = gradient(ParallelEstimator(StatevectorEstimator(), executor=executor, min_seconds=0))
    np.testing.assert_array_equal(spread_gradient, expected)
