"""`accelerate`, `enable` and `disable`: where our jobs are made, and that nothing of it stays."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from qiskit.primitives import BackendEstimatorV2, BackendSamplerV2, StatevectorEstimator, StatevectorSampler
from qiskit.primitives import PrimitiveJob as QiskitPrimitiveJob
from qiskit.providers.basic_provider import BasicSimulator

import jobrunner.qiskit
from jobrunner import InlineExecutor, LocalExecutor
from jobrunner.qiskit import accelerate, acceleration, disable, enable
from tests.qiskit.circuits import bell, nested, rotations

STOCK_INIT = QiskitPrimitiveJob.__init__


@pytest.fixture(autouse=True)
def nothing_stays() -> Any:
    yield
    disable()
    assert QiskitPrimitiveJob.__init__ is STOCK_INIT
    assert type(QiskitPrimitiveJob(pow, 2, 3)) is QiskitPrimitiveJob


def _jobs_of_qiskit() -> list[Any]:
    """One job of each; the backends are two, as stock runs them in threads and a BasicSimulator keeps its shots."""
    estimated = [(rotations(2), "ZZ", [0.1, 0.2])]
    return [
        StatevectorSampler().run([bell()]),
        StatevectorEstimator().run(estimated),
        BackendSamplerV2(backend=BasicSimulator()).run([bell()]),
        BackendEstimatorV2(backend=BasicSimulator()).run(estimated, precision=0.5),
    ]


def test_the_primitives_of_qiskit_make_our_jobs(executor: LocalExecutor) -> None:
    with accelerate(executor, min_seconds=0):
        made = _jobs_of_qiskit()
    assert {type(job) for job in made} == {jobrunner.qiskit.PrimitiveJob}
    for job in made:
        assert len(job.result()) == 1
        assert job.report().backend == "local"
    stock = _jobs_of_qiskit()
    assert {type(job) for job in stock} == {QiskitPrimitiveJob}
    for job in stock:
        job.result()


def test_the_algorithms_make_our_jobs(executor: LocalExecutor) -> None:
    algorithms = pytest.importorskip("qiskit_algorithms")
    from qiskit_algorithms.gradients import ParamShiftEstimatorGradient
    from qiskit_algorithms.state_fidelities import ComputeUncompute

    circuit = rotations(2)
    with accelerate(executor, min_seconds=0):
        gradient = ParamShiftEstimatorGradient(StatevectorEstimator()).run([circuit], [_zz()], [[0.1, 0.2]])
        fidelity = ComputeUncompute(StatevectorSampler()).run([circuit], [circuit], [0.1, 0.2], [0.1, 0.2])
    for job in (gradient, fidelity):
        assert isinstance(job, algorithms.AlgorithmJob)
        assert isinstance(job, jobrunner.qiskit.AlgorithmJob)
        assert job.version == 1
    assert len(gradient.result().gradients[0]) == 2
    assert fidelity.result().fidelities == [1.0]
    assert gradient.report().backend == "local"
    import copy
    import pickle

    for twin in (pickle.loads(pickle.dumps(fidelity)), copy.copy(fidelity)):
        assert isinstance(twin, algorithms.AlgorithmJob)
        assert twin.result().fidelities == [1.0]


def _zz() -> Any:
    from qiskit.quantum_info import SparsePauliOp

    return SparsePauliOp("ZZ")


def test_machine_learning_makes_our_jobs(executor: LocalExecutor) -> None:
    pytest.importorskip("qiskit_machine_learning")
    from qiskit_machine_learning.algorithm_job import AlgorithmJob

    with accelerate(executor, min_seconds=0):
        job = AlgorithmJob(pow, 2, 3)
        job.submit()
    assert isinstance(job, AlgorithmJob)
    assert isinstance(job, jobrunner.qiskit.AlgorithmJob)
    assert job.result() == 8
    assert job.report().backend == "local"


def test_aers_primitives_make_our_jobs(executor: LocalExecutor) -> None:
    aer = pytest.importorskip("qiskit_aer.primitives")
    with accelerate(executor, min_seconds=0):
        made = [aer.SamplerV2(seed=1).run([bell()]), aer.EstimatorV2().run([(rotations(2), "ZZ", [0.1, 0.2])])]
    for job in made:
        assert type(job) is jobrunner.qiskit.PrimitiveJob
        job.result()
    # A pool's idle thread, which Aer leaves, costs no worker.
    assert executor.stats()["recycled"] == 0


def test_a_subclass_of_the_user_keeps_its_methods(executor: LocalExecutor) -> None:
    class Submitting(QiskitPrimitiveJob):
        def __init__(self, function: Any, *args: Any) -> None:
            super().__init__(function, *args)
            self.own = "kept"
            self._submit()

        def result(self) -> Any:
            return "told: " + str(super().result())

    with accelerate(executor):
        job = Submitting(pow, 2, 3)
    assert isinstance(job, Submitting)
    assert isinstance(job, jobrunner.qiskit.PrimitiveJob)
    assert job.own == "kept"
    assert job.result() == "told: 8"
    assert job.report().backend == "local"


def test_a_class_that_allows_no_subclass_stays_qiskits(executor: LocalExecutor) -> None:
    class Last(QiskitPrimitiveJob):
        def __init_subclass__(cls) -> None:
            raise TypeError("there are no further ones")

    with accelerate(executor):
        job = Last(pow, 2, 3)
        job._submit()
    assert type(job) is Last
    assert job.result() == 8


def test_jobs_within_jobs_run_in_the_worker_and_are_ours(executor: LocalExecutor) -> None:
    with accelerate(executor):
        made = [QiskitPrimitiveJob(nested, 3) for _ in range(8)]
        for job in made:
            job._submit()
    assert [job.result() for job in made] == [["jobrunner.qiskit.jobs"] * 3] * 8
    # ... and afterwards they are Qiskit's own there too.
    assert executor.submit(nested, 1).result() == ["qiskit.primitives.primitive_job"]


def test_blocks_are_nested_and_the_innermost_executor_counts(executor: LocalExecutor) -> None:
    inline = InlineExecutor()
    with accelerate(executor), accelerate(inline):
        inner = QiskitPrimitiveJob(pow, 2, 3)
        inner._submit()
    with accelerate(inline), accelerate(executor):
        outer = QiskitPrimitiveJob(pow, 2, 3)
        outer._submit()
    assert inner.report().backend == "inline"
    assert outer.result() == 8
    assert outer.report().backend == "local"


def test_enable_and_disable_are_idempotent(executor: LocalExecutor) -> None:
    disable()
    enable(InlineExecutor())
    enable(executor)
    first = QiskitPrimitiveJob(pow, 2, 3)
    first._submit()
    assert first.result() == 8
    assert first.report().backend == "local"
    with accelerate(InlineExecutor()):
        disable()
        assert isinstance(QiskitPrimitiveJob(pow, 2, 3), jobrunner.qiskit.PrimitiveJob)
    assert QiskitPrimitiveJob.__init__ is STOCK_INIT
    disable()


def test_a_block_left_by_an_exception_is_undone() -> None:
    with pytest.raises(RuntimeError, match="within"), accelerate():
        raise RuntimeError("within")


def test_a_block_left_in_another_context_is_undone() -> None:
    import contextvars

    def generator() -> Any:
        with accelerate():
            yield

    begun = generator()
    contextvars.copy_context().run(next, begun)
    assert QiskitPrimitiveJob.__init__ is not STOCK_INIT
    begun.close()
    assert QiskitPrimitiveJob.__init__ is STOCK_INIT


def test_blocks_of_several_threads_may_overlap() -> None:
    inside, leave = threading.Barrier(5), threading.Barrier(5)
    kinds: list[Any] = []

    def block() -> None:
        executor = InlineExecutor()
        with accelerate(executor):
            inside.wait(60)
            job = QiskitPrimitiveJob(pow, 2, 3)
            job._submit()
            kinds.append((type(job), job.result()))
            leave.wait(60)

    threads = [threading.Thread(target=block) for _ in range(4)]
    for thread in threads:
        thread.start()
    inside.wait(60)
    # In force for the whole process, also on threads that are in no block.
    other = QiskitPrimitiveJob(pow, 2, 3)
    leave.wait(60)
    for thread in threads:
        thread.join()
    assert kinds == [(jobrunner.qiskit.PrimitiveJob, 8)] * 4
    assert type(other) is jobrunner.qiskit.PrimitiveJob


def test_a_job_made_within_may_be_submitted_afterwards() -> None:
    with accelerate():
        job = QiskitPrimitiveJob(pow, 2, 3)
    with jobrunner.use_executor(InlineExecutor()):
        job._submit()
    assert job.result() == 8


def test_what_is_no_executor_is_refused_in_the_name_of_what_was_called() -> None:
    with pytest.raises(TypeError, match=r"^enable takes a concurrent\.futures\.Executor, not 5"):
        enable(executor=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^accelerate takes a "), accelerate(executor=5):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("wrong", [{"executor": 3}, {"min_seconds": -1}, {"min_seconds": None}])
def test_wrong_use(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        enable(**wrong)
    with pytest.raises((TypeError, ValueError)), accelerate(**wrong):
        pass


def test_unknown_versions_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobrunner.qiskit import UnknownVersionWarning, versions

    monkeypatch.setattr(versions, "version_of", {"qiskit": "2.3.0", "qiskit-aer": "9.1rc1"}.get)
    monkeypatch.setattr(acceleration, "_warned", False)
    with pytest.warns(UnknownVersionWarning, match=r"qiskit-aer 9\.1rc1 is newer") as caught, accelerate():
        pass
    assert [one.filename for one in caught] == [__file__]
    with accelerate():
        pass


@pytest.mark.parametrize("on", [enable, accelerate()(print)], ids=["enable", "decorator"])
def test_unknown_versions_are_told_of_where_they_are_used(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobrunner.qiskit import UnknownVersionWarning, versions

    monkeypatch.setattr(versions, "version_of", {"qiskit": "9.0.0"}.get)
    monkeypatch.setattr(acceleration, "_warned", False)
    with pytest.warns(UnknownVersionWarning) as caught:
        on()
    assert [one.filename for one in caught] == [__file__]
