"""The default executor: made at first use, made again when it is gone, changed for a process or a block."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobrunner import InlineExecutor, LocalExecutor, PrimitiveJob, get_executor, set_executor, use_executor
from tests.core import oddities


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    set_executor(None)
    yield
    executor = get_executor()
    set_executor(None)
    executor.shutdown()


def test_it_is_one_local_executor_for_the_process() -> None:
    executor = get_executor()
    assert isinstance(executor, LocalExecutor)
    assert get_executor() is executor
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert {id(other) for other in threads.map(lambda _: get_executor(), range(20))} == {id(executor)}


def test_it_is_made_once_when_many_threads_ask_first() -> None:
    start = threading.Barrier(8)

    def ask(_: int) -> concurrent.futures.Executor:
        start.wait()
        return get_executor()

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 1


def test_it_is_made_again_after_a_shutdown() -> None:
    executor = get_executor()
    executor.shutdown()
    again = get_executor()
    assert again is not executor
    job = PrimitiveJob(oddities.add, 1)
    job.submit()
    assert job.result() == 1


def test_set_executor_changes_it_for_all_threads_and_none_takes_it_back() -> None:
    inline = InlineExecutor()
    set_executor(inline)
    assert get_executor() is inline
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        assert threads.submit(get_executor).result() is inline
    set_executor(None)
    assert get_executor() is not inline


def test_use_executor_changes_it_within_the_block_only_and_does_not_shut_it_down() -> None:
    inline, other = InlineExecutor(), InlineExecutor()
    with use_executor(inline) as used:
        assert used is get_executor() is inline
        with use_executor(other):
            assert get_executor() is other
        assert get_executor() is inline
    assert get_executor() is not inline
    assert inline.submit(oddities.add, 1).result() == 1


def test_use_executor_is_undone_by_an_exception() -> None:
    inline = InlineExecutor()
    with pytest.raises(KeyError), use_executor(inline):
        raise KeyError
    assert get_executor() is not inline


def test_use_executor_is_the_tasks_own_in_asyncio() -> None:
    inline = InlineExecutor()

    async def inside(entered: asyncio.Event, leave: asyncio.Event) -> None:
        with use_executor(inline):
            entered.set()
            await leave.wait()
            assert get_executor() is inline

    async def main() -> None:
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(inside(entered, leave))
        await entered.wait()
        assert get_executor() is not inline
        leave.set()
        await task

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [5, "local", object])
def test_what_is_no_executor_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Executor"):
        set_executor(wrong)
    with pytest.raises(TypeError, match="Executor"), use_executor(wrong):
        pass


def test_a_foreign_executor_may_be_the_default() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as threads, use_executor(threads):
        job = PrimitiveJob(threading.get_ident)
        job.submit()
        assert job.result() != threading.get_ident()
