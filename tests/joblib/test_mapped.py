"""Memory-mapped arrays among joblib's tasks: each job maps the file itself, and what it writes is in the file."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("joblib")
numpy = pytest.importorskip("numpy")

from joblib import Parallel, delayed, parallel_config  # noqa: E402

import jobrunner  # noqa: E402
from jobrunner import InlineExecutor  # noqa: E402
from jobrunner.backend import Backend  # noqa: E402
from jobrunner.joblib import arrays  # noqa: E402
from tests.core.gates import append_line, lines  # noqa: E402

jobrunner.register_joblib()

#: Numbers in an array of 10 KB, and of 2 MB.
SIZES = {"small": 1250, "large": 1 << 18}


def add_half(array: Any) -> float | str:
    try:
        array += 0.5
    except ValueError as error:
        return str(error)
    return float(array[0])


def fill(array: Any, place: int) -> None:
    array[place] = place


def flush_at(array: Any, place: int) -> None:
    fill(array, place)
    array.flush()


def add_and_die_once(array: Any, marks: str) -> None:
    array[0] += 1
    if not Path(marks).exists():
        append_line(marks, "died")
        os._exit(3)


def told(array: Any) -> tuple[str, bool, Any]:
    return type(array).__name__, bool(array.flags.writeable), numpy.array(array)


def at(array: Any, place: int) -> int:
    return int(array[place])


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    with parallel_config(backend="jobrunner", n_jobs=2):
        yield


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def mapped(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An array of zeros in a file, mapped to be written to."""
    return numpy.memmap(tmp_path / "mapped", dtype="f8", mode="w+", shape=(request.param,))


def in_mode(mapped: Any, mode: str) -> Any:
    return numpy.memmap(mapped.filename, dtype="f8", mode=mode, shape=mapped.shape)


def test_a_map_to_read_can_be_written_to_by_no_task(mapped: Any) -> None:
    for array in in_mode(mapped, "r"), numpy.asarray(in_mode(mapped, "r")):
        found = Parallel(batch_size=1)(delayed(add_half)(array) for _ in range(6))
        assert all("read-only" in str(one) for one in found), found
    assert not mapped.any()


def test_a_view_that_cannot_be_written_to_arrives_as_one(mapped: Any) -> None:
    view = mapped[:]
    view.flags.writeable = False
    found = Parallel(batch_size=1)(delayed(add_half)(view) for _ in range(2))
    assert all("read-only" in str(one) for one in found), found


@pytest.mark.parametrize("mode", ["w+", "r+"])
@pytest.mark.parametrize("max_nbytes", ["1M", None])
def test_what_tasks_write_to_a_map_reaches_the_file(mapped: Any, mode: str, max_nbytes: str | None) -> None:
    array = mapped if mode == "w+" else in_mode(mapped, mode)
    Parallel(max_nbytes=max_nbytes)(delayed(flush_at)(array, place) for place in range(10))
    Parallel(max_nbytes=max_nbytes)(delayed(fill)({"in": array[10:]}["in"], place) for place in range(10))
    Parallel(max_nbytes=max_nbytes)(delayed(fill)(numpy.asarray(array)[-1:-20:-2], place) for place in range(10))
    assert list(mapped[:20]) == [*range(10)] * 2
    assert list(mapped[-1:-20:-2]) == [*range(10)]
    assert numpy.fromfile(mapped.filename, dtype="f8")[9] == 9


def test_what_a_task_writes_to_a_map_that_is_copied_on_write_is_its_own(mapped: Any) -> None:
    private = in_mode(mapped, "c")
    assert Parallel(batch_size=1)(delayed(add_half)(private) for _ in range(6)) == [0.5] * 6
    assert not mapped.any()


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda made: made,
    "rows": lambda made: made[3:7],
    "columns": lambda made: made[:, 2:5],
    "transposed": lambda made: made.T,
    "backwards": lambda made: made[::-1, ::-2],
    "spread out": lambda made: numpy.broadcast_to(made[1], (3, 6)),
    "of three dimensions": lambda made: made.reshape(5, 2, 6)[:, :, ::3],
    "one row of one": lambda made: made[:1, :1],
    "a number": lambda made: made[4:5, 5:6].reshape(()),
    "nothing": lambda made: made[:0],
    "of another type": lambda made: made.view("i2"),
    "a part of each": lambda made: made.view([("a", "i2"), ("b", "i4"), ("c", "i2")])["b"],
    "plain": numpy.asarray,
    "plain columns": lambda made: numpy.asarray(made)[:, 2:5],
}


@pytest.mark.parametrize("order", ["C", "F"])
def test_any_layout_arrives_as_it_is(tmp_path: Path, order: str) -> None:
    # The file has a header; nothing is aligned to pages.
    numpy.save(tmp_path / "of.npy", numpy.arange(60.0).reshape(10, 6).astype("f8", order=order))
    made = numpy.load(tmp_path / "of.npy", mmap_mode="r")
    views = {}
    for name, view in LAYOUTS.items():
        if order == "C" or ("another" not in name and "part" not in name):
            views[name] = view(made)
    for (name, view), found in zip(
        views.items(), Parallel()(delayed(told)(one) for one in views.values()), strict=True
    ):
        kind, writeable, values = found
        assert numpy.array_equal(values, view), name
        assert values.dtype == view.dtype, name
        assert kind == (type(view).__name__ if view.flags.forc else "ndarray"), name
        assert not writeable or not view.size, name


def test_nothing_of_a_mapped_file_is_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def share(array: Any) -> Any:
        raise AssertionError("it is copied")

    monkeypatch.setattr(arrays, "share", share)
    size = 4 * psutil.virtual_memory().total
    with open(tmp_path / "larger than memory", "wb") as file:
        file.truncate(size)
        file.seek(size - 1)
        file.write(b"\7")
    array = numpy.memmap(file.name, dtype="u1", mode="r")
    assert Parallel()(delayed(at)(one, -1) for one in (array, array[1:], numpy.asarray(array))) == [7] * 3


@pytest.mark.parametrize("size", list(SIZES.values()), ids=list(SIZES))
@pytest.mark.parametrize("max_nbytes", ["1M", None])
def test_a_map_without_a_file_name_arrives_read_only(tmp_path: Path, size: int, max_nbytes: str | None) -> None:
    removed = numpy.memmap(tmp_path / "removed", dtype="f8", mode="w+", shape=(size,))
    os.unlink(removed.filename)
    with tempfile.TemporaryFile() as file:
        nameless = numpy.memmap(file, dtype="f8", mode="w+", shape=(size,))
    for array in nameless, removed:
        array[:] = 3
        found = Parallel(max_nbytes=max_nbytes)(delayed(told)(one) for one in (array, array[::2]))
        for kind, writeable, values in found:
            assert (kind, writeable) == ("ndarray", False)
            assert set(values) == {3.0}


class Elsewhere(InlineExecutor):
    """Says that its jobs run on a cluster."""

    @property
    def backend(self) -> Backend:
        return dataclasses.replace(super().backend, name="dask")


def test_on_a_cluster_where_the_name_may_be_another_files_the_array_is_sent(mapped: Any) -> None:
    mapped[:] = 3
    for executor, expected in (InlineExecutor(), ("memmap", True)), (Elsewhere(), ("ndarray", False)):
        for kind, writeable, values in Parallel(executor=executor)(delayed(told)(mapped) for _ in range(2)):
            assert (kind, writeable) == expected
            assert set(values) == {3.0}


def test_a_task_that_is_run_again_writes_again(mapped: Any, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    Parallel(retries=1)([delayed(add_and_die_once)(mapped, str(marks))])
    assert lines(marks) == ["died"]
    assert mapped[0] == 2


def test_what_tasks_write_to_strided_views_of_a_map_reaches_the_file(mapped: Any) -> None:
    from numpy.lib.stride_tricks import as_strided, sliding_window_view

    Parallel()([delayed(fill)(as_strided(mapped, (5,), (16,)), 3)])
    assert list(mapped[:8]) == [0, 0, 0, 0, 0, 0, 3, 0]
    for windows in (sliding_window_view(in_mode(mapped, "r"), 4), sliding_window_view(mapped, 4)):
        ((name, writeable, array),) = Parallel()([delayed(told)(windows[:10])])
        assert (name, writeable) == ("ndarray", False)
        assert (array == windows[:10]).all()


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors have no names")
def test_a_map_under_the_name_of_a_descriptor_is_sent(mapped: Any) -> None:
    mapped[:] = 5
    with open(mapped.filename, "rb") as file:
        array = numpy.memmap(f"/proc/self/fd/{file.fileno()}", dtype="f8", mode="r", shape=(10,))
        ((_, writeable, found),) = Parallel()([delayed(told)(array)])
    assert not writeable
    assert list(found) == [5] * 10
