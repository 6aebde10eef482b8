"""`ParallelSampler` and `ParallelEstimator`: the same results, from many workers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import pickle
import threading
import warnings
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.exceptions import QiskitError
from qiskit.primitives import (
    BackendEstimatorV2,
    BackendSamplerV2,
    BaseSamplerV2,
    StatevectorEstimator,
    StatevectorSampler,
)
from qiskit.primitives.containers import DataBin, PrimitiveResult, PubResult
from qiskit.providers import JobStatus
from qiskit.providers.basic_provider import BasicSimulator

from jobrunner import InlineExecutor, LocalExecutor
from jobrunner.qiskit import (
    JobCancelledError,
    JobTimeoutError,
    ParallelEstimator,
    ParallelSampler,
    PubError,
    SerializationError,
    WorkerDiedError,
    cutting,
)
from jobrunner.qiskit.errors import ExecutorShutdownError
from jobrunner.qiskit.seeding import part_seed
from tests.core.gates import Gate, meet
from tests.qiskit.circuits import Counting, bell, fail_unpicklably, rotations

VALUES = np.random.default_rng(0).random((4, 5, 3))

#: No executor.
_THREE: Any = 3


@pytest.fixture
def cut_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small runs cut into many parts."""
    monkeypatch.setattr(cutting, "_LEAST_SECONDS", 1e-3)


def _counts(result: Any) -> list[Any]:
    return [one.data.meas.array for one in result]


@pytest.mark.usefixtures("cut_finely")
def test_a_seeded_run_is_the_same_for_any_number_of_workers(executor: LocalExecutor) -> None:
    pubs: list[Any] = [(rotations(measured=True), VALUES), bell(), (rotations(measured=True), VALUES[0], 40)]
    arrays = []
    with LocalExecutor(1) as single:
        for where, least in ((single, 0.0), (executor, 0.0), (InlineExecutor(), 0.0), (None, 100.0)):
            job = ParallelSampler(StatevectorSampler(), executor=where, seed=3, min_seconds=least).run(pubs, shots=30)
            result = job.result()
            assert result.metadata == {"version": 2}
            assert [one.data.meas.num_shots for one in result] == [30, 30, 40]
            assert [one.data.shape for one in result] == [(4, 5), (), (5,)]
            arrays.append(_counts(result))
            assert len(job.reports()) == (0 if least else len(job._parts))
            assert len(job._parts) > 5
    for other in arrays[1:]:
        for array, same in zip(arrays[0], other, strict=True):
            np.testing.assert_array_equal(array, same)
    again = ParallelSampler(StatevectorSampler(), seed=4, min_seconds=0).run(pubs, shots=30).result()
    assert any((one != two).any() for one, two in zip(arrays[0], _counts(again), strict=True))
    # Bindings are drawn for independently: no two of the same circuit alike.
    alike = ParallelSampler(StatevectorSampler(), seed=4, min_seconds=0)
    many = alike.run([(rotations(measured=True), [[1.0, 1.2, 1.4]] * 12)], shots=64).result()[0].data.meas.array
    assert len({array.tobytes() for array in many}) > 6


@pytest.mark.usefixtures("cut_finely")
def test_an_unseeded_run_draws_anew_each_time() -> None:
    sampler = ParallelSampler(StatevectorSampler(), min_seconds=0)
    pub = (rotations(measured=True), VALUES)
    one, two = (sampler.run([pub], shots=50).result()[0].data.meas.array for _ in range(2))
    assert (one != two).any()


def test_the_seed_of_the_sampler_counts_and_a_generator_goes_on() -> None:
    def arrays(sampler: ParallelSampler) -> Any:
        return sampler.run([bell()], shots=50).result()[0].data.meas.array

    own = ParallelSampler(StatevectorSampler(seed=9), min_seconds=0)
    given = ParallelSampler(StatevectorSampler(), seed=9, min_seconds=0)
    np.testing.assert_array_equal(arrays(own), arrays(given))
    np.testing.assert_array_equal(arrays(own), arrays(own))
    rng = np.random.default_rng(5)
    drawn = ParallelSampler(StatevectorSampler(seed=rng), min_seconds=0)
    before = rng.bit_generator.state["state"]["state"]
    first, second = arrays(drawn), arrays(drawn)
    assert rng.bit_generator.state["state"]["state"] != before
    assert (first != second).any()
    same = ParallelSampler(StatevectorSampler(seed=np.random.default_rng(5)), min_seconds=0)
    np.testing.assert_array_equal(arrays(same), first)


class _OfRuntime(StatevectorSampler):  # type: ignore[misc,unused-ignore]
    """Keeps its seed where the samplers of qiskit-ibm-runtime do."""

    def __init__(self, seed: Any) -> None:
        super().__init__()
        del self._seed
        self._options = SimpleNamespace(simulator=SimpleNamespace(seed_simulator=seed))

    def _run(self, pubs: Any) -> Any:
        return StatevectorSampler(seed=self._options.simulator.seed_simulator)._run(pubs)


def _seeded_backend() -> Any:
    backend = BasicSimulator()
    backend.set_options(seed_simulator=3)
    return backend


def _of_aer(**options: Any) -> Any:
    return pytest.importorskip("qiskit_aer.primitives").SamplerV2(options=options)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: _of_aer(run_options={"seed_simulator": 3}), id="run options"),
        pytest.param(lambda: _of_aer(backend_options={"seed_simulator": 3}), id="options of its backend"),
        pytest.param(lambda: BackendSamplerV2(backend=_seeded_backend()), id="backend"),
        pytest.param(
            lambda: BackendSamplerV2(backend=BasicSimulator(), options={"seed_simulator": -1}), id="less than 0"
        ),
        pytest.param(lambda: _OfRuntime(3), id="simulator options"),
        pytest.param(lambda: ParallelSampler(StatevectorSampler(seed=3), min_seconds=0), id="primitive within"),
    ],
)
@pytest.mark.usefixtures("cut_finely")
def test_each_part_draws_from_the_seed_wherever_it_is_kept(make: Any, executor: LocalExecutor) -> None:
    sampler = ParallelSampler(make(), executor=executor, min_seconds=0)
    arrays = []
    for _ in range(2):
        job = sampler.run([bell()] * 4, shots=500)
        assert len(job._parts) > 1
        arrays.append([array.tobytes() for array in _counts(job.result())])
    assert len(set(arrays[0])) >= len(job._parts)
    assert arrays[0] == arrays[1]


class _Wrapping(BaseSamplerV2):  # type: ignore[misc,unused-ignore]
    """A sampler of an unknown kind around one that has a seed."""

    def __init__(self, seed: int | None = None) -> None:
        self.inner = StatevectorSampler(seed=seed)

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        return self.inner.run(pubs, shots=shots)


class _Noisy(StatevectorSampler):  # type: ignore[misc,unused-ignore]
    """Has a generator besides its seed."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.noise = np.random.default_rng(0)


def test_a_seed_that_all_parts_would_have_is_refused() -> None:
    with pytest.raises(TypeError, match="how to seed a _Wrapping: pass a factory"):
        ParallelSampler(_Wrapping(3)).run([bell()])
    for wrong in (ParallelSampler(_Noisy(), min_seconds=0), ParallelSampler(_Noisy(), seed=3, min_seconds=0)):
        with pytest.raises(TypeError, match=r"a _Noisy has a random generator besides its seed, .*: pass a factory"):
            wrong.run([bell()])
    for kind in (_Wrapping, _Noisy):
        good = ParallelSampler(lambda seed, kind=kind: kind(seed), seed=3, min_seconds=0)
        assert len(good.run([bell()]).result()) == 1


def test_seeds_of_parts_are_those_of_numpys_seed_sequence() -> None:
    assert part_seed(7, 2) == np.random.SeedSequence(7).spawn(3)[2].generate_state(1)[0]
    assert len({part_seed(7, n) for n in range(1000)} | {part_seed(8, n) for n in range(1000)}) == 2000


@pytest.mark.usefixtures("cut_finely")
def test_estimates_are_those_of_the_estimator() -> None:
    pubs: list[Any] = [(rotations(), [["ZZZ"], ["XXX"], ["ZIZ"], ["IIY"]], VALUES[0]), (rotations(), "ZZZ", VALUES)]
    stock = StatevectorEstimator().run(pubs).result()
    job = ParallelEstimator(StatevectorEstimator(), min_seconds=0).run(pubs)
    ours = job.result()
    assert len(job._parts) > 5
    assert type(ours) is type(stock)
    for one, other in zip(ours, stock, strict=True):
        assert type(one) is type(other)
        assert one.metadata == other.metadata
        np.testing.assert_array_equal(one.data.evs, other.data.evs)
        np.testing.assert_array_equal(one.data.stds, other.data.stds)


@pytest.mark.usefixtures("cut_finely")
def test_primitives_of_backends() -> None:
    backend = BasicSimulator()
    circuit = rotations(measured=True)
    pubs: list[Any] = [(circuit, VALUES[0]), circuit.assign_parameters([1, 2, 3])]
    sampler = BackendSamplerV2(backend=backend, options={"default_shots": 77})
    ours = ParallelSampler(sampler, seed=1, min_seconds=0)
    one, two = ours.run(pubs).result(), ours.run(pubs).result()
    assert [result.data.meas.num_shots for result in one] == [77, 77]
    for first, second in zip(_counts(one), _counts(two), strict=True):
        np.testing.assert_array_equal(first, second)
    assert sampler.options.seed_simulator is None
    estimator = BackendEstimatorV2(backend=backend, options={"seed_simulator": 5})
    estimated = ParallelEstimator(estimator, min_seconds=0).run([(rotations(), "ZZZ", VALUES)], precision=0.1).result()
    exact = StatevectorEstimator().run([(rotations(), "ZZZ", VALUES)]).result()
    assert estimated[0].data.evs.shape == (4, 5)
    assert np.abs(estimated[0].data.evs - exact[0].data.evs).max() < 0.6


@pytest.mark.usefixtures("cut_finely")
def test_primitives_of_aer() -> None:
    aer = pytest.importorskip("qiskit_aer.primitives")
    circuit = rotations(measured=True)
    sampler = ParallelSampler(aer.SamplerV2(seed=4), min_seconds=0, split_shots=True)
    one, two = (sampler.run([(circuit, VALUES[0], 200)]).result()[0] for _ in range(2))
    np.testing.assert_array_equal(one.data.meas.array, two.data.meas.array)
    assert one.metadata["shots"] == 200
    estimator = ParallelEstimator(aer.EstimatorV2(), seed=4, min_seconds=0)
    evs = estimator.run([(rotations(), "ZZZ", VALUES)]).result()[0].data.evs
    exact = StatevectorEstimator().run([(rotations(), "ZZZ", VALUES)]).result()[0].data.evs
    np.testing.assert_allclose(evs, exact, atol=1e-9)
    noisy = [estimator.run([(rotations(), "ZZZ", VALUES)], precision=0.1).result()[0].data.evs for _ in range(2)]
    np.testing.assert_array_equal(noisy[0], noisy[1])


@pytest.mark.usefixtures("cut_finely")
def test_shots_are_cut_on_wish() -> None:
    pub = (bell(), None, 5000)
    whole = ParallelSampler(StatevectorSampler(seed=1), min_seconds=0).run([pub])
    cut = ParallelSampler(StatevectorSampler(seed=1), min_seconds=0, split_shots=True).run([pub])
    assert len(whole._parts) == 1
    assert len(cut._parts) > 3
    data = cut.result()[0].data.meas
    assert data.num_shots == 5000
    assert cut.result()[0].metadata["shots"] == 5000
    assert 2200 < data.get_counts()["00"] < 2800
    assert len({data.array[at : at + 50].tobytes() for at in range(0, 5000, 50)}) == 100


@pytest.mark.usefixtures("cut_finely")
def test_a_circuit_of_many_parts_crosses_once() -> None:
    circuit = rotations(measured=True)
    circuit.metadata = {"ballast": "x" * 100_000}
    job = ParallelSampler(StatevectorSampler(), min_seconds=0).run([(circuit, VALUES)])
    assert len(job.result()) == 1
    assert len(job._parts) > 4
    sizes = [report.argument_bytes for report in job.reports()]
    assert max(size for size in sizes if size is not None) < 10_000
    assert "PUB 0" in str(job.reports()[0].name)


def test_no_pubs_and_an_empty_pub() -> None:
    assert len(ParallelSampler(StatevectorSampler(), min_seconds=0).run([]).result()) == 0
    empty = ParallelSampler(StatevectorSampler(), min_seconds=0).run([(rotations(measured=True), np.empty((0, 3)))])
    assert empty.result()[0].data.meas.array.shape[0] == 0
    with pytest.warns(UserWarning, match="0-th pub's circuit has no output classical registers"):
        job = ParallelSampler(StatevectorSampler(), min_seconds=0).run([QuantumCircuit(1)])
    assert len(job.result()[0].data) == 0


def test_a_short_run_stays_in_a_thread_and_run_does_not_wait(executor: LocalExecutor) -> None:
    before = executor.stats()["done"]
    job = ParallelEstimator(StatevectorEstimator(), executor=executor).run([(rotations(2), "ZZ", [0.1, 0.2])])
    assert job.result()[0].data.evs.shape == ()
    assert job.reports() == []
    assert executor.stats()["done"] == before
    assert job.status() is JobStatus.DONE
    assert not job.cancel()


# --- what goes wrong ---


def _mid_circuit() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.measure(0, 0)
    circuit.h(0)
    circuit.measure(0, 1)
    return circuit


@pytest.mark.parametrize("least", [0.0, 100.0])
def test_a_pub_that_fails_is_named_and_the_others_are_kept(least: float) -> None:
    job = ParallelSampler(StatevectorSampler(seed=1), min_seconds=least).run([bell(), _mid_circuit(), bell()])
    for expected in (QiskitError, PubError):
        with pytest.raises(expected, match=r"^PUB 1: QiskitError: StatevectorSampler cannot handle mid-circuit"):
            job.result()
    with pytest.raises(PubError) as caught:
        job.result()
    assert caught.value.pub_index == 1
    assert list(caught.value.failures) == [1]
    assert isinstance(caught.value.__cause__, QiskitError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.pub_index, str(again)) == (1, str(caught.value))
    first, failed, last = job.pub_results()
    assert isinstance(failed, QiskitError)
    assert first.data.meas.num_shots == last.data.meas.num_shots == 1024
    assert job.status() is JobStatus.ERROR
    assert not job.done()


class _Choosy(StatevectorEstimator):  # type: ignore[misc,unused-ignore]
    def _run(self, pubs: Any) -> Any:
        if any(pub.circuit.num_qubits == 2 for pub in pubs):
            raise ValueError("not with two qubits")
        return super()._run(pubs)


def test_an_error_keeps_its_class() -> None:
    pubs: list[Any] = [(rotations(2), "ZZ", [1, 2]), (rotations(3), "ZZZ", [1, 2, 3])]
    job = ParallelEstimator(_Choosy(), min_seconds=0).run(pubs)
    with pytest.raises(ValueError, match="PUB 0: ValueError: not with two qubits") as caught:
        job.result()
    assert isinstance(caught.value, PubError)
    assert job.pub_results()[1].data.evs.shape == ()


class _Failing(StatevectorSampler):  # type: ignore[misc,unused-ignore]
    """Fails at circuits named "bad", in one of several ways."""

    def __init__(self, how: str, gate: str | None = None) -> None:
        super().__init__(seed=1)
        self.how = how
        self.gate = gate

    def _run(self, pubs: Any) -> Any:
        bad = any(pub.circuit.name == "bad" for pub in pubs)
        if self.gate is not None and (bad or len(pubs) > 1):
            meet(self.gate)
        if bad and self.how == "dies":
            os._exit(3)
        if bad and self.how == "raises":
            fail_unpicklably()
        result = super()._run(pubs)
        if bad:
            result[0].metadata["lock"] = threading.Lock()
        return result


def _bad() -> QuantumCircuit:
    circuit = bell()
    circuit.name = "bad"
    return circuit


@pytest.mark.parametrize(
    ("how", "kind", "told", "jobs"),
    [
        ("dies", WorkerDiedError, "exit code 3", 4),
        ("raises", SerializationError, "raised MissingOptionalLibraryError: .*this test", 1),
        ("returns", SerializationError, "cannot pickle '_thread.lock' object", 4),
    ],
)
def test_a_pub_that_breaks_its_part_is_named_and_the_others_are_kept(
    how: str, kind: Any, told: str, jobs: int, executor: LocalExecutor
) -> None:
    job = ParallelSampler(_Failing(how), executor=executor, min_seconds=0).run([bell(), _bad(), bell()])
    with pytest.raises(kind, match=f"^PUB 1: .*{told}"):
        job.result()
    assert job.status() is JobStatus.ERROR
    first, failed, last = job.pub_results()
    assert isinstance(failed, kind)
    assert isinstance(failed, QiskitError)
    assert first.data.meas.num_shots == last.data.meas.num_shots == 1024
    reports = job.reports()
    assert len(reports) == jobs
    if jobs > 1:
        assert [str(report.name).rpartition(", ")[2] for report in reports] == [
            "PUBs 0 to 2",
            "PUB 0",
            "PUB 1",
            "PUB 2",
        ]


def test_pubs_are_run_again_as_they_were_and_that_can_be_cancelled(gate: Gate, executor: LocalExecutor) -> None:
    good = bell()
    job = ParallelSampler(_Failing("dies", gate.path), executor=executor, min_seconds=0).run([good, _bad()])
    gate.await_arrival()
    good.name = "bad"
    gate.release()
    # The guilty one again, by itself.
    (pid,) = gate.await_arrival()
    assert job.status() is JobStatus.RUNNING
    with job._jobs[0]._lock:
        first, _ = job._jobs[0]._singles
    assert first.result()[0][0][0]
    assert job.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert job.status() is JobStatus.CANCELLED


def test_what_became_of_a_part_counts_where_the_executor_takes_no_more_jobs(gate: Gate) -> None:
    with LocalExecutor(1, preload=["qiskit.primitives"]) as single:
        job = ParallelSampler(_Failing("dies", gate.path), executor=single, min_seconds=0).run([bell(), _bad()])
        gate.await_arrival()
        single.shutdown(wait=False)
        gate.release()
        assert [type(one) for one in job.pub_results()] == [WorkerDiedError] * 2
    assert job.status() is JobStatus.ERROR


def test_a_run_that_nobody_has_any_more_is_let_go() -> None:
    job = ParallelSampler(StatevectorSampler(), min_seconds=0).run([bell(), bell()])
    assert len(job.result()) == 2
    gone = weakref.ref(job._jobs[0])
    gc.collect()
    gc.disable()
    try:
        del job
        assert gone() is None
    finally:
        gc.enable()


class _Worded(StatevectorSampler):  # type: ignore[misc,unused-ignore]
    """Gives texts for circuits with parameters."""

    def _run(self, pubs: Any) -> Any:
        result = super()._run(pubs)
        found = [
            PubResult(DataBin(meas="text")) if pub.circuit.name == "bad" else one
            for pub, one in zip(pubs, result, strict=True)
        ]
        return PrimitiveResult(found)


@pytest.mark.usefixtures("cut_finely")
def test_results_that_cannot_be_put_together_fail_alone() -> None:
    worded = rotations(measured=True)
    worded.name = "bad"
    job = ParallelSampler(_Worded(), min_seconds=0).run([bell(), (worded, VALUES)])
    with pytest.raises(TypeError, match=r"^PUB 1: TypeError: the results' field 'meas', a str, can't be put together"):
        job.result()
    assert job.status() is JobStatus.ERROR
    good, failed = job.pub_results()
    assert good.data.meas.num_shots == 1024
    assert isinstance(failed, TypeError)


def test_all_who_ask_at_the_same_time_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    job = ParallelSampler(StatevectorSampler()).run([bell()])
    both, gather = threading.Barrier(2), job._gather

    def meeting() -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.1)
        return gather()

    monkeypatch.setattr(job, "_gather", meeting)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        one, two = (asked.result() for asked in [threads.submit(job.result) for _ in range(2)])
    assert one is two
    assert one[0] is job.pub_results()[0]


def test_an_executor_that_was_shut_down_is_one_of_qiskits_errors() -> None:
    gone = InlineExecutor()
    gone.shutdown()
    with pytest.raises(QiskitError) as caught:
        ParallelSampler(StatevectorSampler(), executor=gone, min_seconds=0).run([bell()])
    assert isinstance(caught.value, ExecutorShutdownError)


class _Warning(StatevectorSampler):  # type: ignore[misc,unused-ignore]
    """Warns of each circuit by its name."""

    def _run(self, pubs: Any) -> Any:
        for pub in pubs:
            warnings.warn(f"of {pub.circuit.name}", UserWarning, stacklevel=1)
        return super()._run(pubs)


@pytest.mark.usefixtures("cut_finely")
def test_a_worker_warns_of_the_same_once_a_run() -> None:
    named, failing = bell(), _mid_circuit()
    named.name, failing.name = "other", "failing"
    # Whatever `python -W` says of warnings.
    show: dict[str, Any] = {"initializer": warnings.simplefilter, "initargs": ("default",)}
    with LocalExecutor(1, preload=["qiskit.primitives"], **show) as single:
        sampler = ParallelSampler(_Warning(), executor=single, min_seconds=0)
        pubs: list[Any] = [named] * 8 + [failing]
        for _ in range(2):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                job = sampler.run(pubs)
                assert len(job.pub_results()) == 9
                # A job's warnings come before its result, in their order.
                told = [str(one.message).partition(" (job")[0] for one in caught]
            assert len(job._parts) > 2
            assert sorted(told) == ["of failing", "of other"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_pub_that_cannot_be_sent_is_named(times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if times > 1:  # many parts have the circuit
        monkeypatch.setattr(cutting, "_LEAST_SECONDS", 1e-3)
    circuit = rotations(measured=True)
    circuit.metadata = {"lock": threading.Lock()}
    told = (
        r"^.?PUB 1: its circuit can't be sent to a worker: TypeError: cannot pickle '_thread.lock' object\. Leave out"
    )
    with pytest.raises(SerializationError, match=told) as caught:
        ParallelSampler(StatevectorSampler(), min_seconds=0).run([bell(), (circuit, VALUES), bell()])
    assert isinstance(caught.value, QiskitError)


@pytest.mark.parametrize(
    ("pubs", "kind", "told"),
    [
        ([bell(), (rotations(measured=True), [[1.0, 2.0]])], ValueError, r"^PUB 1: .*inconsistent with last dimension"),
        ([rotations(measured=True)], ValueError, r"^PUB 0: The number of values \(0\) does not match"),
        ([(bell(), None, -3)], ValueError, r"^PUB 0: "),
        ([bell(), 7], TypeError, r"^PUB 1: "),
        (7, TypeError, "a list of PUBs"),
    ],
)
def test_wrong_pubs_are_named_before_anything_runs(pubs: Any, kind: Any, told: str, executor: LocalExecutor) -> None:
    before = executor.stats()
    with pytest.raises(kind, match=told):
        ParallelSampler(StatevectorSampler(), executor=executor, min_seconds=0).run(pubs)
    assert executor.stats() == before


class _Meeting(BaseSamplerV2):  # type: ignore[misc,unused-ignore]
    """A sampler of an unknown kind, whose runs wait at a gate."""

    def __init__(self, gate: str) -> None:
        self.gate = gate
        self._seed = None

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        meet(self.gate)
        return StatevectorSampler(seed=self._seed).run(pubs, shots=shots)


@pytest.mark.usefixtures("cut_finely")
def test_cancel_ends_all_parts(gate: Gate, executor: LocalExecutor) -> None:
    job = ParallelSampler(_Meeting(gate.path), min_seconds=0).run([bell()] * 12)
    assert len(job._parts) > 3
    pids = gate.await_arrival(2)
    assert job.status() is JobStatus.RUNNING
    assert job.running()
    with pytest.raises(JobTimeoutError):
        job.result(timeout=0)
    assert job.cancel()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert job.cancelled()
    assert job.in_final_state()
    with pytest.raises(JobCancelledError):
        job.result()
    assert all(isinstance(one, JobCancelledError) for one in job.pub_results())


def test_a_sampler_of_an_unknown_kind_goes_through_its_run(gate: Gate) -> None:
    job = ParallelSampler(_Meeting(gate.path), min_seconds=0).run([bell()])
    gate.await_arrival()
    gate.release()
    assert job.result()[0].data.meas.num_shots == 1024
    twin = pickle.loads(pickle.dumps(job))
    assert twin.job_id() == job.job_id()
    assert twin.status() is JobStatus.DONE
    assert twin.result()[0].data.meas.num_shots == 1024


class _Unpicklable(BasicSimulator):  # type: ignore[misc,unused-ignore]
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'socket' object")


def _make_sampler(seed: int | None = None) -> BackendSamplerV2:
    return BackendSamplerV2(backend=_Unpicklable(), options={"seed_simulator": seed})


def test_a_backend_that_cannot_be_sent_is_named_and_a_factory_helps() -> None:
    with pytest.raises(SerializationError, match=r"the backend 'basic_simulator' .*Pass a factory") as caught:
        ParallelSampler(_make_sampler(), min_seconds=0).run([bell()])
    assert isinstance(caught.value, QiskitError)
    sampler = ParallelSampler(_make_sampler, seed=2, min_seconds=0)
    one, two = (sampler.run([bell()], shots=40).result()[0].data.meas.array for _ in range(2))
    np.testing.assert_array_equal(one, two)


class _Hidden(BaseSamplerV2):  # type: ignore[misc,unused-ignore]
    """Draws from a generator that nobody knows of."""

    def __init__(self) -> None:
        self.dice = np.random.default_rng(1)

    def run(self, pubs: Any, *, shots: int | None = None) -> Any:
        return StatevectorSampler(seed=self.dice).run(pubs, shots=shots)


def test_a_generator_that_all_parts_would_copy_is_refused() -> None:
    with pytest.raises(TypeError, match=r"how to seed a _Hidden: pass a factory"):
        ParallelSampler(_Hidden(), min_seconds=0).run([bell()])
    with pytest.raises(TypeError, match="how to seed a _Hidden"):
        ParallelSampler(_Hidden(), seed=3)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: ParallelSampler(StatevectorEstimator()), TypeError),
        (lambda: ParallelSampler(StatevectorSampler), TypeError),
        (lambda: ParallelSampler(lambda: 3), TypeError),
        (lambda: ParallelEstimator(StatevectorEstimator(), executor=_THREE), TypeError),
        (lambda: ParallelEstimator(StatevectorEstimator(), seed=-1), ValueError),
        (lambda: ParallelEstimator(StatevectorEstimator(), seed=True), ValueError),
        (lambda: ParallelEstimator(StatevectorEstimator(), min_seconds=-1), ValueError),
    ],
)
def test_wrong_use(make: Any, kind: Any) -> None:
    with pytest.raises(kind):
        make()


def test_it_stands_in_for_the_primitive_also_where_attributes_are_asked_for() -> None:
    pytest.importorskip("qiskit_algorithms")
    from qiskit.quantum_info import SparsePauliOp
    from qiskit_algorithms.gradients import LinCombEstimatorGradient

    assert ParallelSampler(StatevectorSampler(default_shots=7)).default_shots == 7
    assert ParallelSampler(BackendSamplerV2(backend=BasicSimulator())).options.default_shots == 1024
    with pytest.raises(AttributeError, match="no_such"):
        _ = ParallelSampler(StatevectorSampler()).no_such

    def gradient(estimator: Any) -> Any:
        job = LinCombEstimatorGradient(estimator).run([rotations(2)], [SparsePauliOp("ZZ")], [[0.1, 0.2]])
        return job.result().gradients[0].tolist()

    assert gradient(ParallelEstimator(StatevectorEstimator(), min_seconds=0)) == gradient(StatevectorEstimator())


@pytest.mark.parametrize("seed", [[1, 2, 3], np.random.SeedSequence(7), np.int64(4), np.random.PCG64(3)])
def test_what_numpy_takes_for_a_seed(seed: Any) -> None:
    job = ParallelSampler(StatevectorSampler(seed=seed), min_seconds=0).run([bell()], shots=10)
    assert job.result()[0].data.meas.num_shots == 10


def test_a_thread_pool_as_executor_accelerates_nothing_else(executor: LocalExecutor) -> None:
    before = executor.stats()["done"]
    for where in (InlineExecutor(), concurrent.futures.ThreadPoolExecutor(1)):
        sampler = ParallelSampler(Counting(seed=1), executor=where, min_seconds=0)
        assert sampler.run([bell()], shots=9).result()[0].data.meas.num_shots == 9
        where.shutdown()
    assert executor.stats()["done"] == before


def _spread_within(values: list[float]) -> Any:
    estimator = ParallelEstimator(StatevectorEstimator(), min_seconds=0)
    return os.getpid(), estimator.run([(rotations(2), "ZZ", values)]).result()[0].data.evs


def test_within_a_worker_it_works_in_line(executor: LocalExecutor) -> None:
    pid, evs = executor.submit(_spread_within, [0.1, 0.2]).result()
    assert pid != os.getpid()
    assert evs == StatevectorEstimator().run([(rotations(2), "ZZ", [0.1, 0.2])]).result()[0].data.evs
