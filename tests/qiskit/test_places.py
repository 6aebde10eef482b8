"""Where a job runs that is told nothing else."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.circuit.library import MCXGate, PauliEvolutionGate, QFTGate, UnitaryGate
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub
from qiskit.quantum_info import SparsePauliOp

from jobrunner import LocalExecutor
from jobrunner.qiskit import ParallelEstimator, ParallelSampler, PrimitiveJob, accelerate
from jobrunner.qiskit.cost import estimated_seconds, gate_count
from jobrunner.qiskit.places import Place, place_of
from tests.qiskit.circuits import Counting, bell, of_job, rotations


def _pub(circuit: QuantumCircuit, shots: int = 100) -> SamplerPub:
    return SamplerPub.coerce(circuit, shots)


def _large(qubits: int = 20) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits, 2)
    for qubit in range(qubits):
        circuit.h(qubit)
    circuit.measure([0, 1], [0, 1])
    return circuit


def test_a_short_run_of_a_primitive_stays_in_a_thread(executor: LocalExecutor) -> None:
    with accelerate(executor):
        job: Any = StatevectorSampler(seed=1).run([bell()])
        assert job.report().backend == "thread"
        long = StatevectorSampler(seed=1).run([_large()])
        assert long.report().backend == "local"
    assert job.result()[0].data.meas.num_shots == 1024
    assert long.result()[0].data.c.num_shots == 1024


def test_the_estimate_follows_circuit_and_shape() -> None:
    run = StatevectorSampler()._run
    small, large = estimated_seconds(run, ([_pub(bell())],)), estimated_seconds(run, ([_pub(_large())],))
    assert small is not None
    assert large is not None
    assert small < 0.01 < large
    many = estimated_seconds(run, ([_pub(bell())] * 50,))
    assert many == pytest.approx(50 * small)
    bound = estimated_seconds(run, ([SamplerPub.coerce((rotations(measured=True), [[1, 2, 3]] * 50), 100)],))
    single = estimated_seconds(run, ([SamplerPub.coerce((rotations(measured=True), [1, 2, 3]), 100)],))
    assert single is not None
    assert bound == pytest.approx(50 * single)
    paulis = SparsePauliOp(["ZZZ"] * 5000)
    estimator = StatevectorEstimator()._run
    circuit = rotations().assign_parameters([1, 2, 3])
    few = estimated_seconds(estimator, ([EstimatorPub.coerce((circuit, "ZZZ"), 0.0)],))
    assert few is not None
    assert estimated_seconds(estimator, ([EstimatorPub.coerce((circuit, SparsePauliOp(["ZZZ"])), 0.0)],)) == few
    assert paulis.num_qubits == 3


def test_gates_within_composite_ones_are_counted() -> None:
    inner = QuantumCircuit(3, name="inner")
    for _ in range(100):
        inner.h(0)
    outer = QuantumCircuit(3)
    outer.append(inner.to_gate(), [0, 1, 2])
    outer.append(inner.to_gate(), [0, 1, 2])
    outer.x(0)
    assert gate_count(outer) == 201


def test_no_gate_is_decomposed_to_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> Any:
        raise AssertionError("decomposed")

    monkeypatch.setattr(UnitaryGate, "_define", refuse)
    circuit = QuantumCircuit(6)
    circuit.unitary(np.eye(64), range(6))
    assert gate_count(circuit) == 64


class _Own(Gate):  # type: ignore[misc,unused-ignore]
    """A gate that says when it is asked what it is made of."""

    def __init__(self) -> None:
        super().__init__("own", 3, [])

    def _define(self) -> None:
        self.definition = QuantumCircuit(3)


@pytest.mark.parametrize(
    "make",
    [
        _Own,
        lambda: UnitaryGate(np.eye(8)),
        lambda: QFTGate(3),
        lambda: PauliEvolutionGate(SparsePauliOp(["ZZZ", "XXX"]), 0.3),
        lambda: MCXGate(5),
        lambda: rotations(3).assign_parameters([1, 2, 3]).to_gate().control(2),
    ],
    ids=["own", "unitary", "qft", "evolution", "mcx", "controlled"],
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of Qiskit 1.3's own use of its MCXGate
def test_the_estimate_is_the_same_once_a_gate_was_decomposed(make: Any) -> None:
    gate = make()
    circuit = QuantumCircuit(gate.num_qubits)
    circuit.append(gate, range(gate.num_qubits))
    before = gate_count(circuit)
    assert circuit.data[0].operation.definition is not None
    circuit.decompose()
    assert gate_count(circuit) == before


@pytest.mark.parametrize("function", [pow, Counting()._run, StatevectorSampler().run, None])
def test_nothing_is_known_of_other_functions(function: Any) -> None:
    assert estimated_seconds(function, ([_pub(bell())],)) is None
    assert place_of(function, ([_pub(bell())],), None) is Place.PROCESS


def test_a_job_that_spreads_its_work_itself_stays_here() -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit_algorithms.gradients import ParamShiftEstimatorGradient

    spread = ParamShiftEstimatorGradient(ParallelEstimator(StatevectorEstimator()))
    alone = ParamShiftEstimatorGradient(StatevectorEstimator())
    assert place_of(spread._run, (), None) is Place.THREAD
    assert place_of(alone._run, (), None) is Place.PROCESS


def test_a_job_that_works_on_a_parallel_run_does_not_block(executor: LocalExecutor) -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit_algorithms.state_fidelities import ComputeUncompute

    circuit = rotations(2)
    fidelity = ComputeUncompute(ParallelSampler(StatevectorSampler(seed=1), executor=executor, min_seconds=0))
    with accelerate(executor, min_seconds=0):
        job: Any = fidelity.run([circuit], [circuit], [0.1, 0.2], [0.1, 0.2])
        assert job.result().fidelities == [1.0]
        assert job.report().backend == "thread"
        of_stock: Any = PrimitiveJob(of_job, stock := StatevectorSampler(seed=1).run([bell()]))
        of_stock._submit()
        assert len(of_stock.result()) == len(stock.result()) == 1


def test_an_optimiser_that_draws_goes_on_drawing(executor: LocalExecutor) -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit_algorithms.gradients import SPSAEstimatorGradient

    def gradients() -> Any:
        gradient = SPSAEstimatorGradient(StatevectorEstimator(), epsilon=0.1, seed=1)
        runs = [gradient.run([rotations(3)], [SparsePauliOp("ZZZ")], [[0.1, 0.2, 0.3]]) for _ in range(5)]
        return [run.result().gradients[0].tolist() for run in runs]

    stock = gradients()
    with accelerate(executor, min_seconds=0):
        assert gradients() == stock
    assert len({tuple(one) for one in stock}) > 1


def test_loops_are_counted_as_often_as_they_are_run() -> None:
    circuit = QuantumCircuit(1)
    with circuit.for_loop(range(300)):
        circuit.x(0)
        circuit.h(0)
    assert gate_count(circuit) == 600


def test_a_callback_of_the_transpilers_is_called_in_this_process(executor: LocalExecutor) -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_algorithms.gradients import ParamShiftEstimatorGradient

    called: list[int] = []
    gradient = ParamShiftEstimatorGradient(
        StatevectorEstimator(),
        transpiler=generate_preset_pass_manager(optimization_level=1, seed_transpiler=42),
        transpiler_options={"callback": lambda **told: called.append(os.getpid())},
    )
    with accelerate(executor, min_seconds=0):
        job: Any = gradient.run([rotations(1)], [SparsePauliOp("Z")], [[1.0]])
        job.result()
    assert set(called) == {os.getpid()}


def test_the_best_measurement_of_a_variational_solver_is_kept(executor: LocalExecutor) -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit_algorithms.minimum_eigensolvers import SamplingVQE
    from qiskit_algorithms.optimizers import COBYLA

    def solve() -> Any:
        solver = SamplingVQE(StatevectorSampler(seed=1), rotations(2), COBYLA(maxiter=4), initial_point=[0.1, 0.2])
        return solver.compute_minimum_eigenvalue(SparsePauliOp(["ZZ", "IZ"], [1.0, -0.5]))

    stock = solve()
    with accelerate(executor, min_seconds=0):
        ours = solve()
    assert ours.best_measurement == stock.best_measurement
    assert ours.best_measurement is not None
    assert ours.eigenvalue == stock.eigenvalue


def test_what_is_submitted_to_an_executor_goes_there(executor: LocalExecutor) -> None:
    job: Any = PrimitiveJob(StatevectorSampler(seed=1)._run, [_pub(bell())])
    job.submit(executor)
    assert job.report().backend == "local"
    assert job.result()[0].data.meas.num_shots == 100
