"""Which cores samples get, and that the calling process leaves them and comes back."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from jobrunner.bench import cores
from jobrunner.bench.cores import Cores, choose_cores, parse_cores, vacated


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four physical cores of two threads each: 0 and 4, 1 and 5, ..."""
    monkeypatch.setattr(cores, "_SYSTEM", tmp_path)
    monkeypatch.setattr(cores, "usable_cores", lambda: tuple(range(8)))
    for core in range(8):
        topology = tmp_path / f"cpu{core}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    return tmp_path


def test_a_sample_gets_the_last_core_and_the_caller_leaves_its_sibling_too(machine: Path) -> None:
    assert choose_cores(1) == Cores(reserved=(7,), others=(0, 1, 2, 4, 5, 6), pool=(7, 3, 6, 5, 4, 2, 1, 0))


def test_threads_get_a_physical_core_each(machine: Path) -> None:
    assert choose_cores(3).reserved == (5, 6, 7)
    assert choose_cores(5).reserved == (3, 4, 5, 6, 7)


def test_cores_that_the_kernel_keeps_free_come_first(machine: Path) -> None:
    (machine / "isolated").write_text("1-2\n")
    assert choose_cores(1).reserved == (2,)
    assert choose_cores(2).reserved == (1, 2)
    assert choose_cores(3).reserved == (5, 6, 7)


def test_the_cores_that_are_asked_for_are_taken(machine: Path) -> None:
    found = choose_cores(1, wanted=(1, 2))
    assert found.reserved == (2,)
    assert [found.for_width(width) for width in (1, 2, 3)] == [(2,), (2, 1), (2, 1)]
    with pytest.raises(ValueError, match="leave out either"):
        choose_cores(1, pin=False, wanted=(1,))
    with pytest.raises(ValueError, match="there is no core 9 for this process; it may use 0, 1"):
        choose_cores(1, wanted=(9,))
    with pytest.raises(ValueError, match="1 cores are too few for 2 threads"):
        choose_cores(2, wanted=(1,))


def test_more_threads_than_cores_are_not_pinned_and_that_is_said(machine: Path) -> None:
    found = choose_cores(9)
    assert found.reserved == ()
    assert found.note is not None
    assert "9 threads" in found.note


def test_with_one_core_the_caller_shares_it_and_that_is_said(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: (3,))
    found = choose_cores(1)
    assert (found.reserved, found.others) == ((3,), ())
    assert found.note is not None


def test_nothing_is_pinned_where_that_is_not_wanted_or_not_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_cores(1, pin=False) == Cores()
    monkeypatch.setattr(cores, "usable_cores", lambda: None)
    assert choose_cores(1).reserved == ()
    assert choose_cores(1).note is not None
    with pytest.raises(ValueError, match="no means to pin"):
        choose_cores(1, pin=True)
    with pytest.raises(ValueError, match="no means to pin"):
        choose_cores(1, wanted=(0,))


def test_usable_cores_are_psutils_where_the_system_call_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def cpu_affinity(self) -> list[int]:
            return [2, 0]

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(psutil, "Process", Process)
    assert cores.usable_cores() == (0, 2)
    monkeypatch.setattr(psutil, "Process", object)
    assert cores.usable_cores() is None


def test_a_pool_gets_the_reserved_cores_first() -> None:
    found = Cores(reserved=(3,), others=(0, 1, 2), pool=(3, 2, 1, 0))
    assert found.for_width(1) == (3,)
    assert found.for_width(3) == (3, 2, 1)
    assert found.for_width(5) == (3, 2, 1, 0)
    assert Cores().for_width(1) == ()


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "2-1", "1,,2", "1.5", "99999", "²"])
def test_what_is_no_list_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected cores such as"):
        parse_cores(text)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system can't pin")
def test_every_thread_of_the_caller_leaves_the_reserved_cores_and_comes_back() -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("one core only")
    *others, reserved = sorted(before)
    seen: dict[str, set[int]] = {}
    moved, release = threading.Event(), threading.Event()

    def older() -> None:
        moved.wait()
        seen["older"] = os.sched_getaffinity(0)
        release.wait()
        seen["older after"] = os.sched_getaffinity(0)

    def younger() -> None:
        seen["younger"] = os.sched_getaffinity(0)

    thread = threading.Thread(target=older)
    thread.start()
    with vacated(Cores(reserved=(reserved,), others=tuple(others))):
        seen["here"] = os.sched_getaffinity(0)
        started = threading.Thread(target=younger)
        started.start()
        started.join()
        moved.set()
        while "older" not in seen:
            os.sched_yield()
    release.set()
    thread.join()
    assert seen["here"] == seen["older"] == seen["younger"] == set(others)
    assert os.sched_getaffinity(0) == seen["older after"] == before


def test_leaving_cores_is_done_by_psutil_where_the_system_call_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    where = [[0, 1, 2]]

    class Process:
        def cpu_affinity(self, wanted: list[int] | None = None) -> list[int]:
            if wanted is not None:
                where.append(wanted)
            return where[-1]

    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    monkeypatch.setattr(psutil, "Process", Process)
    with vacated(Cores(reserved=(2,), others=(0, 1))):
        assert where[-1] == [0, 1]
    assert where[-1] == [0, 1, 2]
