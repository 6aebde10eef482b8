"""Arrays among joblib's tasks: each task gets them as they were when it was dispatched, and copies don't pile up."""

from __future__ import annotations

import functools
import gc
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("joblib")
numpy = pytest.importorskip("numpy")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

import jobrunner  # noqa: E402
from jobrunner.joblib import arrays  # noqa: E402
from jobrunner.joblib.arrays import SharedArrays  # noqa: E402
from jobrunner.sharing import Shared  # noqa: E402
from tests.core.gates import Gate, append_line, meet  # noqa: E402

jobrunner.register_joblib()

#: Numbers in an array of 2 MB.
LARGE = 1 << 18


def first(array: Any) -> float:
    return float(array.flat[0])


def writeable_in(value: dict[str, Any]) -> bool:
    return bool(value["of"][0].flags.writeable)


def meet_and_die_once(gate: str, marks: str, array: Any) -> float:
    if not Path(marks).exists():
        append_line(marks, "here")
        meet(gate)
        os._exit(3)
    return first(array)


@pytest.fixture
def backend() -> Iterator[None]:
    with parallel_config(backend="jobrunner", n_jobs=2):
        yield


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """What was shared."""
    made: list[weakref.ref[Any]] = []

    def share(array: Any) -> Any:
        handle = jobrunner.share(array)
        made.append(weakref.ref(handle))
        return handle

    monkeypatch.setattr(arrays, "share", share)
    return made


def test_an_array_changed_between_two_calls_is_seen_by_the_second(backend: None) -> None:
    array = numpy.zeros(LARGE)
    with Parallel() as parallel:
        assert parallel(delayed(first)(array) for _ in range(3)) == [0.0] * 3
        array[:] = 7
        assert parallel(delayed(first)(array) for _ in range(3)) == [7.0] * 3


def test_one_that_says_it_is_read_only_may_have_changed_between_two_calls(backend: None) -> None:
    array = numpy.zeros(LARGE)
    with Parallel() as parallel:
        for value in (0.0, 7.0):
            array.flags.writeable = True
            array[:] = value
            array.flags.writeable = False
            assert parallel(delayed(first)(array) for _ in range(3)) == [value] * 3


def test_an_array_changed_while_results_are_drawn_is_seen_by_later_tasks_alone(backend: None) -> None:
    array = numpy.zeros(LARGE)

    def tasks() -> Iterator[Any]:
        for x in range(12):
            if x % 2 == 0:
                # joblib draws as many tasks at a time as there are workers.
                array[:] = x
            yield delayed(first)(array)

    found = Parallel(pre_dispatch=2, batch_size=1)(tasks())
    assert found == [x - x % 2 for x in range(12)]


@pytest.mark.parametrize("layout", ["C", "F", "scattered", "view"])
def test_any_change_of_any_layout_is_noticed(layout: str) -> None:
    whole = numpy.arange(4.0 * LARGE).reshape(1024, -1)
    array = {"C": whole, "F": numpy.asfortranarray(whole), "scattered": whole[:, ::2], "view": whole[:]}[layout]
    shared = SharedArrays(above=1 << 20)
    handle = shared.substitute(array)
    assert isinstance(handle, Shared)
    assert numpy.array_equal(handle.open(), array)
    assert not handle.open().flags.writeable
    assert shared.substitute(array) is handle
    array[-1, -1] = numpy.nan
    changed = shared.substitute(array)
    assert isinstance(changed, Shared)
    assert changed is not handle
    assert shared.substitute(array) is changed, "NaN is what it was"


def test_a_read_only_array_is_compared_once_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    same = arrays._are_the_same

    def compare(array: Any, copy: Any) -> bool:
        compared.append(array)
        return same(array, copy)

    monkeypatch.setattr(arrays, "_are_the_same", compare)
    array = numpy.zeros(LARGE)
    view = array[:]
    for one in (array, view):
        one.flags.writeable = False
    shared = SharedArrays(above=1 << 20)
    handles = [shared.substitute(array) for _ in range(3)]
    assert not compared
    shared.begin_call()
    handles += [shared.substitute(array) for _ in range(3)]
    assert len(compared) == 1
    assert len({*handles}) == 1
    array.flags.writeable = True
    handle = shared.substitute(view)
    assert shared.substitute(view) is handle
    assert len(compared) == 2, "a view of what can be written to is compared each time"


def test_one_array_of_many_tasks_is_copied_once(backend: None, copies: list[Any]) -> None:
    array = numpy.ones(LARGE)
    assert Parallel(batch_size=1)(delayed(first)(array) for _ in range(40)) == [1.0] * 40
    assert len(copies) == 1


def test_tasks_that_are_run_again_get_what_they_had(backend: None, gate: Gate, tmp_path: Path) -> None:
    # The small one is not shared, and large enough to lie apart from the pickle.
    small, large = numpy.zeros(LARGE // 8), numpy.zeros(LARGE)
    marks = str(tmp_path / "marks")
    tasks = [delayed(meet_and_die_once)(gate.path, marks, array) for array in (small, large)]
    # joblib makes two batches of them: one for each worker.
    tasks += [delayed(first)(array) for array in (small, large)]
    results = Parallel(return_as="generator", batch_size=2, pre_dispatch="all")(tasks)
    gate.await_arrival()
    small[:], large[:] = 7, 7
    gate.release()
    assert list(results) == [0.0] * 4


def test_copies_of_fresh_arrays_go_with_their_tasks(backend: None, copies: list[Any]) -> None:
    most = 0
    arrays_made: list[weakref.ref[Any]] = []

    def alive(references: list[weakref.ref[Any]]) -> int:
        return sum(one() is not None for one in references)

    def tasks() -> Iterator[Any]:
        nonlocal most
        for x in range(60):
            array = numpy.full(LARGE, float(x))
            arrays_made.append(weakref.ref(array))
            most = max(most, alive(copies), alive(arrays_made))
            yield delayed(first)(array)

    gc.disable()
    try:
        assert Parallel(batch_size=1)(tasks()) == [float(x) for x in range(60)]
    finally:
        gc.enable()
    assert len(copies) == 60
    assert most <= 16, "of those that are dispatched, drawn or just over"


def test_copies_of_arrays_that_the_caller_keeps_are_few(backend: None, copies: list[Any]) -> None:
    kept = [numpy.full(LARGE, float(x)) for x in range(40)]
    with Parallel(batch_size=1) as parallel:
        assert parallel(delayed(first)(array) for array in kept) == [float(x) for x in range(40)]
        assert len(copies) == 40
        assert sum(one() is not None for one in copies) <= 16
    assert not any(one() for one in copies)


def test_arrays_within_other_arguments_are_shared_too(backend: None, copies: list[Any]) -> None:
    array = numpy.zeros(LARGE)
    assert Parallel(batch_size=1)(delayed(writeable_in)({"of": (array,)}) for _ in range(4)) == [False] * 4
    assert len(copies) == 1


def add_one(array: Any) -> str | None:
    try:
        array[0] += 1
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[ms]", "f8", [("when", "M8[s]"), ("what", "f8")]])
@pytest.mark.parametrize("size", [10, LARGE])
def test_no_task_can_write_to_what_others_have_whatever_its_dtype(backend: None, dtype: Any, size: int) -> None:
    array = numpy.zeros(size, dtype)
    write = add_one if array.dtype.names is None else functools.partial(_set_first, value=array[1])
    found = Parallel(batch_size=1, max_nbytes=8)(delayed(write)(array) for _ in range(6))
    assert all("read-only" in str(one) for one in found), found


def _set_first(array: Any, value: Any) -> str | None:
    try:
        array[0] = value
    except ValueError as error:
        return str(error)
    return None


def die_once(marks: str, number: int, frame: Any) -> int:
    if number == 2 and not Path(marks).exists():
        append_line(marks, "here")
        os._exit(3)
    return number + len(frame)


def test_tasks_that_have_what_is_built_around_an_array_are_run_again_apart(backend: None, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    times = numpy.zeros(LARGE, "M8[ns]")
    for number, of in enumerate((numpy.ones((LARGE, 2)), times)):
        marks = str(tmp_path / f"{number}")
        frame = pandas.DataFrame(of)
        found = Parallel(batch_size=4)(delayed(die_once)(marks, place, frame) for place in range(8))
        assert found == [place + LARGE for place in range(8)]
