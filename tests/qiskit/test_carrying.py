"""What is heavy crosses once, and again when it has changed."""

from __future__ import annotations

import functools
import gc
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from qiskit.primitives import BackendSamplerV2, StatevectorSampler
from qiskit.providers import BackendV2
from qiskit.providers.basic_provider import BasicSimulator
from qiskit.providers.fake_provider import GenericBackendV2

from jobrunner import LocalExecutor, SerializationError
from jobrunner.executors.future import JobFuture
from jobrunner.qiskit import PrimitiveJob, accelerate
from jobrunner.qiskit.carrying import carry_call, carry_object, forget
from jobrunner.qiskit.outline import outline
from jobrunner.qiskit.running import rebuild
from tests.qiskit.circuits import Counting, bell


class Counted(BasicSimulator):
    """A backend that says, where it is unpickled, that it was."""

    def __init__(self, note: str = "first") -> None:
        super().__init__()
        self.note = note
        self.loaded_by = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.loaded_by = os.getpid()
        self.loaded = id(self)


class UsesBackend:
    """An object of a package that is not Qiskit's, with a backend."""

    def __init__(self, backend: BackendV2) -> None:
        self._backend = backend
        self.calls = 0

    def look(self, *_: Any) -> tuple[int, int, str, int]:
        self.calls += 1
        backend: Any = self._backend
        return os.getpid(), backend.loaded, backend.note, self.calls


@pytest.fixture(autouse=True)
def nothing_held() -> Any:
    forget()
    yield
    forget()


def _look(owner: UsesBackend, executor: LocalExecutor, times: int = 12) -> list[tuple[int, int, str, int]]:
    made: list[Any] = []
    for _ in range(times):
        job = PrimitiveJob(owner.look)
        job.submit(executor)
        made.append(job)
    return [job.result() for job in made]


def test_a_backend_crosses_once_for_each_worker(executor: LocalExecutor) -> None:
    seen = _look(UsesBackend(Counted()), executor)
    by_worker: dict[int, set[int]] = {}
    for pid, loaded, note, calls in seen:
        by_worker.setdefault(pid, set()).add(loaded)
        assert (note, calls) == ("first", 1)
    assert all(len(loads) == 1 for loads in by_worker.values())


def test_a_changed_backend_crosses_again(executor: LocalExecutor) -> None:
    backend = Counted()
    owner = UsesBackend(backend)
    assert {note for _, _, note, _ in _look(owner, executor, 4)} == {"first"}
    backend.note = "second"
    assert {note for _, _, note, _ in _look(owner, executor, 4)} == {"second"}


def _note_of(backend: Any) -> str:
    return str(backend.note)


def test_a_backend_among_the_arguments_crosses_by_its_handle(executor: LocalExecutor) -> None:
    backend: Any = Counted()
    backend.ballast = bytes(1 << 20)
    jobs: list[Any] = [PrimitiveJob(_note_of, backend) for _ in range(3)]
    for job in jobs:
        job.submit(executor)
    assert [job.result() for job in jobs] == ["first"] * 3
    assert all(job.report().argument_bytes < 10_000 for job in jobs)


def test_options_of_a_backend_are_seen() -> None:
    backend = BasicSimulator()
    before = outline(backend).value
    assert outline(backend).value == before
    backend.set_options(shots=17)
    assert outline(backend).value != before


def _keeper() -> Any:
    kept = 0

    def keep(value: int) -> None:
        nonlocal kept
        kept = value

    return keep


@pytest.mark.parametrize(
    "change",
    [
        lambda held: held["list"].append(1),
        lambda held: held["nested"]["inner"].update(more=2),
        lambda held: held["array"].__setitem__(3, 1.0),
        lambda held: held["circuit"].x(0),
        lambda held: setattr(held["object"], "note", "other"),
        lambda held: held.__setitem__("text", "b"),
        lambda held: held["deque"].append(1),
        lambda held: held["bytes"].append(1),
        lambda held: held.__setitem__("number", np.float64(0.2)),
        lambda held: held["objects"].__setitem__(0, "c"),
        lambda held: setattr(held["target"]["cx"][(0, 1)], "error", 0.5),
        lambda held: held.__setitem__("least", -2),
        lambda held: held["numbers"].__setitem__(0, -2.0),
        lambda held: setattr(held["target"]["cx"][(1, 0)], "error", -2.0),
        lambda held: setattr(held["method"].__self__, "note", "other"),
        lambda held: held["partial"].args[0].append(5),
        lambda held: held["partial"].keywords.update(start=2),
        lambda held: held["closure"](7),
        lambda held: held["built in"](2),
    ],
)
def test_an_outline_sees_changes_in_place(change: Callable[[Any], Any]) -> None:
    held = {
        "list": [0],
        "nested": {"inner": {}},
        "array": np.zeros(10),
        "circuit": bell(),
        "object": Counted(),
        "text": "a",
        "deque": deque([0]),
        "bytes": bytearray(3),
        "number": np.float64(0.1),
        "objects": np.array(["a", "b"], dtype=object),
        "target": GenericBackendV2(2, seed=1).target,
        "least": -1,
        "numbers": [-1.0],
        "method": Counted().set_options,
        "partial": functools.partial(sum, [1]),
        "closure": _keeper(),
        "built in": [1].append,
    }
    held["target"]["cx"][(1, 0)].error = -1.0
    held["itself"] = held
    before = outline(held).value
    assert outline(held).value == before
    change(held)
    assert outline(held).value != before


def test_what_is_taken_by_identity_is_not_mistaken_for_what_comes_to_its_place() -> None:
    held: dict[str, Any] = {"opaque": object()}
    before = outline(held)
    values = set()
    for _ in range(50):
        held["opaque"] = None
        held["opaque"] = object()
        values.add(outline(held).value == before.value)
    assert values == {False}


def test_a_function_is_not_mistaken_for_what_comes_to_its_place() -> None:
    held: dict[str, Any] = {}
    seen = []
    for n in range(50):
        held["function"] = None
        held["function"] = eval(f"lambda: {n}")  # noqa: S307
        seen.append(outline(held))
    assert len({one.value for one in seen}) == 50


def test_a_change_deep_in_a_large_backend_is_seen() -> None:
    from qiskit.transpiler import InstructionProperties

    backend = GenericBackendV2(127, seed=1)
    before = outline(backend).value
    pair = next(iter(backend.target["cx"]))
    backend.target.update_instruction_properties("cx", pair, InstructionProperties(duration=1e-7, error=0.5))
    assert outline(backend).value != before


def test_slots_are_seen() -> None:
    class Slotted:
        __slots__ = ("value",)

    one: Any = Slotted()
    one.value = 1
    before = outline(one).value
    one.value = 2
    assert outline(one).value != before


def test_a_backend_that_is_gone_is_let_go() -> None:
    from jobrunner.qiskit import carrying

    backend = Counted()
    carry_object(UsesBackend(backend))
    assert len(carrying._carried.backends) == 1
    del backend
    assert not carrying._carried.backends


def _held_by_its_functions() -> Any:
    backend: Any = Counted()
    backend.hooks = [backend.set_options, lambda: backend]
    return backend


def test_a_backend_that_a_function_of_its_own_holds_is_let_go() -> None:
    backend = _held_by_its_functions()
    gone = weakref.ref(backend)
    seen = outline(backend)
    del backend
    gc.collect()
    assert seen.held
    assert gone() is None


class _Unpicklable(BasicSimulator):
    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'socket' object")


def test_a_backend_that_cannot_be_pickled_is_named_with_the_remedy() -> None:
    with pytest.raises(SerializationError, match=r"the backend 'basic_simulator' \(a _Unpicklable\) .*Pass a factory"):
        carry_call(UsesBackend(_Unpicklable()).look, (), {}, accelerated=False, shared=True)
    with pytest.raises(SerializationError, match="the backend 'basic_simulator'"):
        carry_call(_note_of, (_Unpicklable(),), {}, accelerated=False, shared=True)


def test_other_parts_that_cannot_be_pickled_are_named() -> None:
    with pytest.raises(SerializationError, match=r"argument 1 \(generator\) of '_note_of' can't be sent"):
        carry_call(_note_of, (1, (n for n in [1])), {}, accelerated=False, shared=True)
    with pytest.raises(SerializationError, match=r"argument 'key' \(generator\) of '_note_of'"):
        carry_call(_note_of, (), {"key": (n for n in [1])}, accelerated=False, shared=False)


# --- objects ---


def _samplers_of(executor: LocalExecutor, sampler: Any, times: int) -> list[Any]:
    with accelerate(executor, min_seconds=0):
        jobs = [sampler.run([bell()], shots=64) for _ in range(times)]
    return [job.result() for job in jobs]


def test_an_object_of_the_users_is_a_new_one_for_each_job(executor: LocalExecutor) -> None:
    sampler = Counting(seed=3)
    results = _samplers_of(executor, sampler, 8)
    assert {result.metadata["runs"] for result in results} == {1}
    assert os.getpid() not in {result.metadata["pid"] for result in results}
    assert sampler.runs == 0


def test_an_object_of_qiskits_is_kept_and_its_caches_fill() -> None:
    template, draws = carry_object(StatevectorSampler(seed=3))
    assert not draws
    assert template.key is not None
    one = rebuild(template)
    one.cache = "filled"
    assert rebuild(template).cache == "filled"
    changed, _ = carry_object(StatevectorSampler(seed=4))
    assert changed.key != template.key
    assert not hasattr(rebuild(changed), "cache")


def test_an_object_with_a_generator_is_never_kept(executor: LocalExecutor) -> None:
    sampler = StatevectorSampler(seed=np.random.default_rng(3))
    template, draws = carry_object(sampler)
    assert draws
    assert template.key is None
    # Each job draws the same, as documented: the caller's generator does not go on.
    results = _samplers_of(executor, sampler, 6)
    arrays = [result[0].data.meas.array for result in results]
    assert all((array == arrays[0]).all() for array in arrays)


def test_a_changed_object_is_sent_as_it_is_now(executor: LocalExecutor) -> None:
    sampler = StatevectorSampler(seed=1)
    (before,) = _samplers_of(executor, sampler, 1)
    sampler._seed = 2
    (after,) = _samplers_of(executor, sampler, 1)
    assert (before[0].data.meas.array != after[0].data.meas.array).any()


class _Large:
    def __init__(self) -> None:
        self.table = np.random.default_rng(0).bytes(200_000)

    def length(self) -> int:
        return len(self.table)


def test_a_large_object_crosses_once(executor: LocalExecutor) -> None:
    owner = _Large()
    jobs: list[Any] = [PrimitiveJob(owner.length) for _ in range(4)]
    for job in jobs:
        job.submit(executor)
    assert [job.result() for job in jobs] == [200_000] * 4
    assert all(job.report().argument_bytes < 10_000 for job in jobs)


def test_a_foreign_executor_gets_all_with_each_job(executor: LocalExecutor) -> None:
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        backend = Counted()
        job: Any = PrimitiveJob(BackendSamplerV2(backend=GenericBackendV2(2))._run, [])
        job.submit(threads)
        assert len(job.result()) == 0
        other: Any = PrimitiveJob(_note_of, backend)
        other.submit(threads)
        assert other.result() == "first"
    assert isinstance(job._future, JobFuture)
