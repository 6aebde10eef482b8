"""How workers keep memory for the next array."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable

import pytest

from jobrunner import LocalExecutor
from jobrunner.executors.allocator import allocator_variables

MakeLocal = Callable[..., LocalExecutor]


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may say something about the allocator."""
    for name in list(os.environ):
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)


def _faults() -> int:
    """Pages faulted in while two thousand blocks of a megabyte are made, written to and dropped."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(2000):
        bytearray(1 << 20)[::4096] = b"x" * 256
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_a_worker_keeps_the_memory_of_dropped_blocks(make_local: MakeLocal) -> None:
    pages = 2000 * 256
    # What the user says about the allocator counts: here, that blocks are mapped, and every page of them faulted in.
    plain = make_local(1, env={"MALLOC_MMAP_THRESHOLD_": "131072"})
    assert plain.submit(_faults).result() > pages
    assert make_local(1).submit(_faults).result() < pages / 20


def test_jobs_do_not_see_the_variables(make_local: MakeLocal) -> None:
    seen = make_local(1).submit(lambda: [name for name in os.environ if name.startswith("MALLOC_")])
    assert seen.result() == []


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"])
def test_what_the_user_says_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert allocator_variables({})
    assert allocator_variables({name: ""}) == {}
    monkeypatch.setenv(name, "1")
    assert allocator_variables({}) == {}
