"""Large data in shared memory: what is sent arrives, nobody sees another's writes, and nothing is left behind."""

from __future__ import annotations

import array
import ast
import contextlib
import errno
import fcntl
import gc
import mmap
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import anonymous_memory, received, segments
from jobrunner.received import SegmentError, open_received, receive_descriptor
from jobrunner.segments import ALIGN, Arena, Segment, layout, send_descriptor
from tests.core.scripts import ROOT, Script

pytestmark = pytest.mark.skipif(not segments.CAN_PASS, reason="the system can't pass descriptors")

PAGE = mmap.PAGESIZE
Run = Callable[..., Script]


def held() -> list[str]:
    """The names of the shared memory that this process has descriptors of."""
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    ours = ("/memfd:jobrunner-data", "/memfd:jobrunner-share", "/dev/shm/jobrunner-")
    return [name for name in names if name.startswith(ours)]


def shm_names() -> list[str]:
    return [name for name in os.listdir("/dev/shm") if name.startswith("jobrunner-")]


@pytest.fixture(autouse=True)
def no_memory_left_behind() -> Iterator[None]:
    """Each test gives back all memory that it had, and none has a name."""
    yield
    gc.collect()
    assert held() == []
    assert shm_names() == []


@pytest.fixture
def arena() -> Iterator[Arena]:
    arena = Arena(keep_bytes=64 << 20, most_open=16)
    yield arena
    arena.close()


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)


def packed(arena: Arena, *parts: segments.Part, once: bool = False) -> Segment:
    segment = arena.pack_once(parts) if once else arena.pack(parts)
    assert segment is not None
    return segment


def opened(
    segment: Segment, gone: list[bool] | None = None, *, writable: bool = False, length: int | None = None
) -> memoryview:
    """What a receiver in this process gets."""
    on_gone = (gone if gone is not None else []).append
    return open_received(
        os.dup(segment.fd), segment.length if length is None else length, writable=writable, on_gone=on_gone
    )


def identity(segment: Segment) -> int:
    """Of the memory, however often it is used."""
    return os.fstat(segment.fd).st_ino


def raw(one: np.ndarray[Any, Any]) -> memoryview:
    buffer: Any = one  # numpy's types don't say before Python 3.12 that it is one
    return pickle.PickleBuffer(buffer).raw()


# Layout and contents


@given(st.lists(st.integers(0, 10_000)))
def test_parts_lie_aligned_one_after_the_other(lengths: list[int]) -> None:
    offsets, total = layout(lengths)
    assert len(offsets) == len(lengths)
    assert all(offset % ALIGN == 0 for offset in offsets)
    end = 0
    for offset, length in zip(offsets, lengths, strict=True):
        assert end <= offset < end + ALIGN
        end = offset + length
    assert total == end


def _arrays() -> st.SearchStrategy[np.ndarray[Any, Any]]:
    def build(dtype: str, shape: list[int], order: Any, seed: int, readonly: bool) -> np.ndarray[Any, Any]:
        count = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        data = np.frombuffer(random.Random(seed).randbytes(count), dtype=dtype)
        made: np.ndarray[Any, Any] = data.reshape(shape, order=order).copy(order=order)
        made.flags.writeable = not readonly
        return made

    return st.builds(
        build,
        st.sampled_from(["u1", "<f8", ">i4", "c16", "?", "V7", [("a", "<i2"), ("b", "f4", (3,))]]),
        st.lists(st.integers(0, 12), max_size=4),
        st.sampled_from("CF"),
        st.integers(0, 2**32),
        st.booleans(),
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.lists(_arrays(), max_size=4), st.booleans()), min_size=1, max_size=6))
def test_arrays_arrive_as_they_were_sent_in_new_memory_and_in_old(
    messages: list[tuple[list[np.ndarray[Any, Any]], bool]],
) -> None:
    arena = Arena(keep_bytes=1 << 20, most_open=2)
    try:
        for arrays, once in messages:
            parts = [raw(one) for one in arrays]
            segment = packed(arena, *parts, once=once)
            gone: list[bool] = []
            view = opened(segment, gone, writable=True)
            assert len(view) == segment.length <= segment.capacity
            offsets, total = layout([one.nbytes for one in arrays])
            assert total == segment.length
            for one, offset in zip(arrays, offsets, strict=True):
                assert view[offset : offset + one.nbytes] == raw(one)
            assert bool(gone) == (total == 0)
            del view
            assert gone == [True]
            arena.release(segment.number)
    finally:
        arena.close()


def test_large_parts_arrive_through_the_kept_map_too(arena: Arena) -> None:
    generator = np.random.default_rng(1)
    numbers = set()
    for _ in range(3):
        writable = generator.integers(0, 255, 3 << 20, dtype=np.uint8)
        readonly = writable[::-1].copy()
        readonly.flags.writeable = False
        segment = packed(arena, writable.data, b"between", readonly.data)
        numbers.add((identity(segment), segment.number))
        view = opened(segment)
        assert np.array_equal(np.frombuffer(view, np.uint8, 3 << 20), writable)
        assert np.array_equal(np.frombuffer(view, np.uint8, 3 << 20, segment.length - (3 << 20)), readonly)
        del view
        arena.release(segment.number)
    assert len({memory for memory, _ in numbers}) == 1
    assert len({number for _, number in numbers}) == 3


def test_without_a_map_to_keep_memory_is_used_again_by_writing(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library() -> Any:
        raise OSError(errno.EINVAL, "an old kernel")

    monkeypatch.setattr(anonymous_memory, "_libc", no_library)
    first = packed(arena, bytes(PAGE))
    memory = identity(first)
    arena.release(first.number)
    again = packed(arena, b"\1" * PAGE)
    assert identity(again) == memory
    assert opened(again) == b"\1" * PAGE


def test_a_kernel_that_cannot_make_pages_present_costs_the_map_only(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anonymous_memory, "_MADV_POPULATE_READ", 9999)
    maps = Path("/proc/self/maps")
    for content in (b"\1", b"\2"):
        segment = packed(arena, content * PAGE)
        assert opened(segment) == content * PAGE
        arena.release(segment.number)
    assert "jobrunner-data" not in maps.read_text()


def test_a_part_must_be_contiguous(arena: Arena) -> None:
    with pytest.raises(BufferError):
        arena.pack([np.arange(10)[::2].data])
    assert arena.open_count == 0


def test_a_long_part_is_written_in_pieces(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(anonymous_memory, "_MOST_AT_ONCE", 1000)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:777], offset))
    content = random.Random(0).randbytes(5000)
    assert opened(packed(arena, content)) == content


# Bookkeeping


def test_memory_is_used_again_only_after_its_release(arena: Arena) -> None:
    first = packed(arena, b"a" * PAGE)
    second = packed(arena, b"b" * PAGE)
    assert identity(first) != identity(second)
    memory, first_number = identity(first), first.number
    arena.release(first_number)
    third = packed(arena, b"c" * PAGE)
    assert identity(third) == memory
    assert third.number not in (first_number, second.number)
    assert opened(second) == b"b" * PAGE


def test_a_release_that_is_repeated_or_unknown_is_ignored(arena: Arena) -> None:
    first = packed(arena, bytes(PAGE))
    arena.release(first.number)
    second = packed(arena, bytes(PAGE))
    for number in (first.number, first.number, 0, -1, 2**70):
        arena.release(number)
    assert arena.free_bytes == 0
    assert identity(packed(arena, bytes(PAGE))) != identity(second)


def test_memory_is_not_wasted_on_what_needs_half_of_it_or_less(arena: Arena) -> None:
    for pages in (10, 6, 7):
        arena.release(packed(arena, bytes(pages * PAGE)).number)
    assert arena.open_count == 1  # each fits where the first was
    segment = packed(arena, bytes(4 * PAGE))
    assert segment.capacity == 4 * PAGE
    assert packed(arena, bytes(5 * PAGE)).capacity == 10 * PAGE


def test_of_what_is_free_the_best_fitting_is_taken(arena: Arena) -> None:
    made = [packed(arena, bytes(pages * PAGE)) for pages in (9, 6, 8)]
    for segment in made:
        arena.release(segment.number)
    assert packed(arena, bytes(5 * PAGE + 1)).capacity == 6 * PAGE
    assert packed(arena, bytes(5 * PAGE + 1)).capacity == 8 * PAGE


def test_the_oldest_free_memory_goes_when_there_is_too_much(arena: Arena) -> None:
    arena = Arena(keep_bytes=3 * PAGE, most_open=10)
    made = [packed(arena, bytes(PAGE)) for _ in range(4)]
    memories = [identity(segment) for segment in made]
    for segment in made:
        arena.release(segment.number)
    assert (arena.open_count, arena.free_bytes) == (3, 3 * PAGE)
    assert {identity(packed(arena, bytes(PAGE))) for _ in range(3)} == set(memories[1:])
    arena.close()


def test_what_is_larger_than_all_that_is_kept_is_closed_and_costs_nothing_else(arena: Arena) -> None:
    arena = Arena(keep_bytes=2 * PAGE, most_open=10)
    small, large = packed(arena, bytes(PAGE)), packed(arena, bytes(3 * PAGE))
    arena.release(small.number)
    arena.release(large.number)
    assert (arena.open_count, arena.free_bytes) == (1, PAGE)
    arena.close()


def test_memory_that_something_may_still_see_is_not_kept(arena: Arena) -> None:
    arena.release(packed(arena, bytes(PAGE)).number, reusable=False)
    assert (arena.open_count, arena.free_bytes) == (0, 0)


def test_there_are_never_more_segments_than_allowed(arena: Arena) -> None:
    arena = Arena(keep_bytes=1 << 20, most_open=2)
    first, second = packed(arena, bytes(PAGE)), packed(arena, bytes(PAGE))
    assert arena.pack([bytes(PAGE)]) is None
    assert arena.pack_once([bytes(PAGE)]) is None
    arena.release(first.number)
    # Free memory that doesn't fit makes room.
    third = packed(arena, bytes(100 * PAGE))
    assert len(held()) == arena.open_count == 2
    for segment in (second, third):
        arena.release(segment.number)
    arena.trim()
    assert (held(), arena.open_count, arena.free_bytes) == ([], 0, 0)


def test_after_its_end_an_arena_gives_nothing_and_receivers_keep_what_they_have() -> None:
    arena = Arena(keep_bytes=1 << 20, most_open=4)
    segment = packed(arena, b"x" * PAGE)
    arena.release(packed(arena, bytes(9 * PAGE)).number)
    view = opened(segment)
    arena.close()
    arena.close()
    assert arena.pack([b"x"]) is None
    assert arena.pack_once([b"x"]) is None
    arena.release(segment.number)
    assert (arena.open_count, arena.free_bytes) == (0, 0)
    assert view == b"x" * PAGE


def test_memory_that_is_being_filled_outlives_the_arena_until_that_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    arena = Arena(keep_bytes=1 << 20, most_open=4)
    filling, go_on = threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow(fd: int, data: memoryview, offset: int) -> int:
        filling.set()
        go_on.wait()
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    given: list[Segment | None] = []
    thread = threading.Thread(target=lambda: given.append(arena.pack([bytes(PAGE)])))
    thread.start()
    filling.wait()
    assert arena.open_count == 1
    arena.close()
    assert len(held()) == 1  # else its number could be another file's by now, and be written to
    go_on.set()
    thread.join()
    assert given == [None]
    assert (held(), arena.open_count) == ([], 0)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pack"), st.integers(0, 5 * PAGE)),
        st.tuples(st.just("once"), st.integers(0, 5 * PAGE)),
        st.tuples(st.just("release"), st.integers(0, 20)),
        st.tuples(st.just("spoiled"), st.integers(0, 20)),
        st.tuples(st.just("trim"), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(_STEPS, st.integers(0, 8), st.integers(0, 5))
def test_whatever_is_taken_and_given_back_the_bounds_hold(
    steps: list[tuple[str, int]], keep_pages: int, most_open: int
) -> None:
    arena = Arena(keep_bytes=keep_pages * PAGE, most_open=most_open)
    used: dict[int, tuple[Segment, bytes]] = {}
    seen: set[int] = set()
    for step, (action, size) in enumerate(steps):
        if action in ("pack", "once"):
            content = bytes([step]) * size
            segment = arena.pack([content]) if action == "pack" else arena.pack_once([content])
            assert (segment is None) == (len(used) >= most_open)
            if segment is not None:
                assert segment.number not in seen
                seen.add(segment.number)
                used[segment.number] = segment, content
        elif action == "trim":
            arena.trim()
            assert arena.free_bytes == 0
        else:
            arena.release(size, reusable=action == "release")
            used.pop(size, None)
        assert arena.free_bytes <= keep_pages * PAGE
        assert arena.open_count <= most_open
        assert len(held()) == arena.open_count
        assert len({identity(segment) for segment, _ in used.values()}) == len(used)
    for segment, content in used.values():
        assert os.pread(segment.fd, len(content), 0) == content
    arena.close()
    assert held() == []


def test_many_threads_share_an_arena() -> None:
    arena = Arena(keep_bytes=1 << 20, most_open=5)
    wrong: list[object] = []

    def work(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(200):
            content = source.randbytes(source.randrange(1, 3 * PAGE))
            segment = arena.pack([content])
            if segment is None:
                continue
            if os.pread(segment.fd, len(content), 0) != content:
                wrong.append(segment)
            arena.release(segment.number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(held()) == arena.open_count <= 5
    arena.close()


# Shortages


def _failing(error: BaseException) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise error

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM, errno.EFAULT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_memory_that_cannot_be_had_is_none(arena: Arena, monkeypatch: pytest.MonkeyPatch, code: int, call: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _failing(OSError(code, "no")))
        assert arena.pack([b"x"]) is None
        assert arena.pack_once([b"x"]) is None
        patch.setattr(os, call, _failing(MemoryError()))
        assert arena.pack([b"x"]) is None
    assert (arena.open_count, held()) == (0, [])
    assert packed(arena, b"x").length == 1


def test_a_write_of_nothing_is_a_shortage(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    assert arena.pack([b"x"]) is None


def test_what_is_kept_warm_goes_before_the_arena_gives_up(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    arena.release(packed(arena, bytes(9 * PAGE)).number)
    pwrite = os.pwrite

    def scarce(fd: int, data: memoryview, offset: int) -> int:
        if len(held()) > 1:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", scarce)
    assert packed(arena, bytes(PAGE)).capacity == PAGE
    assert (arena.open_count, arena.free_bytes) == (1, 0)


def test_an_interrupt_while_data_are_packed_leaves_nothing(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", _failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        arena.pack([b"x"])
    assert (arena.open_count, held()) == (0, [])


def test_when_descriptors_run_out_there_is_none_and_later_there_are_again(script: Run) -> None:
    script("""
import os, resource, socket
from jobrunner.received import SegmentError, receive_descriptor
from jobrunner.segments import Arena, send_descriptor
arena = Arena(keep_bytes=1 << 20, most_open=10)
assert arena.pack([b"x"]) is not None       # modules are loaded
left, right = socket.socketpair()
segment = arena.pack([b"spam"])
send_descriptor(left, segment.fd, segment.number)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
assert arena.pack([b"x"]) is None
assert arena.pack_once([b"x"]) is None
assert arena.open_count == 2
try: receive_descriptor(right)
except SegmentError as error: assert error.number == segment.number and "descriptors" in str(error), error
else: raise AssertionError
for fd in held: os.close(fd)
assert arena.pack([b"x"]) is not None
send_descriptor(left, segment.fd, segment.number)
fd, number = receive_descriptor(right)
assert os.pread(fd, 9, 0)[:4] == b"spam" and number == segment.number
""").check()


_TINY = """
import ctypes, os, sys
from jobrunner.received import open_received
from jobrunner.segments import Arena
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000) or libc.mount(b"none", b"/", None, 0x44000, None):  # a private CLONE_NEWNS
    sys.exit("not allowed")
if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m"):
    sys.exit("not allowed")
del os.memfd_create
arena = Arena(keep_bytes=1 << 20, most_open=10)
assert arena.pack([bytes(2 << 20)]) is None
warm = arena.pack([bytes(700 << 10)])
arena.release(warm.number)
segment = arena.pack([b"x" * (300 << 10), b"y" * (600 << 10)])   # only without what is kept
assert arena.free_bytes == 0
assert arena.pack([bytes(200 << 10)]) is None
view = open_received(os.dup(segment.fd), segment.length, writable=True, on_gone=print)
assert bytes(view) == b"x" * (300 << 10) + b"y" * (600 << 10)
view[0] = 1
assert os.listdir("/dev/shm") == []
"""


def test_shared_memory_that_is_full_is_none_and_never_a_crash() -> None:
    run = subprocess.run([sys.executable, "-c", _TINY], cwd=ROOT, capture_output=True, text=True)
    if "not allowed" in run.stderr:
        pytest.skip("mounting needs privileges")
    assert (run.returncode, run.stderr) == (0, "")


# Systems with less


def test_without_memfds_named_memory_is_used_and_its_name_removed(
    without_memfd: None, arena: Arena, sockets: tuple[socket.socket, socket.socket]
) -> None:
    before = os.listdir("/dev/shm")
    for content in (b"a", b"b"):
        segment = packed(arena, content * PAGE, b"end")
        assert set(os.listdir("/dev/shm")) <= set(before)
        assert os.fstat(segment.fd).st_mode & 0o777 == 0o600
        assert not os.get_inheritable(segment.fd)
        send_descriptor(sockets[0], segment.fd, segment.number)
        fd, _ = receive_descriptor(sockets[1])
        gone: list[bool] = []
        view = open_received(fd, segment.length, writable=True, on_gone=gone.append)
        assert view == content * PAGE + b"end"
        view[0] = 0
        assert os.pread(segment.fd, 1, 0) == content
        del view
        assert gone == [True]
        arena.release(segment.number)
    assert packed(arena, b"once", once=True).length == 4


def test_a_kernel_that_refuses_memfds_is_like_one_without(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", _failing(OSError(errno.ENOSYS, "no")), raising=False)
    assert os.readlink(f"/proc/self/fd/{packed(arena, b'x').fd}").startswith("/dev/shm/")


def test_where_shared_memory_cannot_be_written_to_it_is_mapped(
    without_memfd: None, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on macOS.
    monkeypatch.setattr(os, "pwrite", _failing(OSError(errno.ESPIPE, "no")))
    parts = [random.Random(0).randbytes(size) for size in (3 * PAGE, 0, 10)]
    segment = packed(arena, *parts)
    view = opened(segment)
    assert [view[at : at + len(one)] for at, one in zip(layout([3 * PAGE, 0, 10])[0], parts, strict=True)] == parts


@pytest.mark.parametrize("writable", [True, False])
def test_where_shared_memory_cannot_be_mapped_privately_writes_are_private_all_the_same(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, writable: bool
) -> None:
    map_as = received._map_as

    def refuse(fd: int, length: int, flags: int, prot: int) -> mmap.mmap:
        if flags & mmap.MAP_PRIVATE:
            raise OSError(errno.EINVAL, "no")
        return map_as(fd, length, flags, prot)

    monkeypatch.setattr(received, "_map_as", refuse)
    segment = packed(arena, b"spam")
    gone: list[bool] = []
    view = opened(segment, gone, writable=writable)
    assert bytes(view) == b"spam"
    assert (view.readonly, len(view)) == (not writable, 4)
    if writable:
        view[0] = 0
    assert os.pread(segment.fd, 4, 0) == b"spam"
    assert gone == []
    del view
    assert gone == [True]


def test_where_there_is_nothing_there_is_none(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "CAN_PASS", False)
    assert arena.pack([b"x"]) is None
    assert arena.pack_once([b"x"]) is None
    monkeypatch.undo()
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setitem(sys.modules, "_posixshmem", None)
    assert arena.pack([b"x"]) is None
    assert arena.pack_once([b"x"]) is None


# What a receiver opens


def test_a_receiver_can_neither_shorten_nor_lengthen_what_it_got(arena: Arena) -> None:
    for segment in (packed(arena, bytes(2 * PAGE)), packed(arena, bytes(2 * PAGE), once=True)):
        for size in (0, PAGE, 3 * PAGE):
            with pytest.raises(PermissionError):
                os.ftruncate(segment.fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_what_many_receivers_share_nobody_can_write_to(arena: Arena) -> None:
    segment = packed(arena, b"spam", once=True)
    with pytest.raises(PermissionError):
        os.pwrite(segment.fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(segment.fd, 4)
    first, second = opened(segment, writable=True), opened(segment, writable=True)
    first[0] = 0
    assert bytes(second) == b"spam"
    arena.release(segment.number)
    assert arena.open_count == 0


def test_shared_memory_can_be_told_by_its_name(arena: Arena) -> None:
    names = [os.readlink(f"/proc/self/fd/{packed(arena, b'x', once=once).fd}") for once in (False, True)]
    assert names == ["/memfd:jobrunner-data (deleted)", "/memfd:jobrunner-share (deleted)"]


def test_only_what_is_asked_for_can_be_written_to(arena: Arena) -> None:
    segment = packed(arena, b"spam")
    readonly, writable = opened(segment), opened(segment, writable=True)
    assert readonly.readonly
    with pytest.raises(TypeError):
        readonly[0] = 1
    writable[:] = b"eggs"
    assert (bytes(readonly), bytes(writable), os.pread(segment.fd, 4, 0)) == (b"spam", b"eggs", b"spam")


def _unsealed(size: int, seals: int = 0) -> int:
    fd = os.memfd_create("jobrunner-data", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _file() -> int:
    with tempfile.TemporaryFile() as file:
        file.truncate(100)
        return os.dup(file.fileno())


_SEALS = (fcntl.F_SEAL_GROW, fcntl.F_SEAL_SHRINK)


@pytest.mark.parametrize(
    ("make", "length"),
    [
        (lambda: _unsealed(100), 100),
        (lambda: _unsealed(100, _SEALS[0]), 100),
        (lambda: _unsealed(100, _SEALS[1]), 100),
        (lambda: _unsealed(100, sum(_SEALS)), 101),
        (lambda: _unsealed(100, sum(_SEALS)), 2**62),
        (lambda: _unsealed(100, sum(_SEALS)), 2**80),
        (lambda: _unsealed(100, sum(_SEALS)), -1),
        (_file, 100),
        (lambda: os.open("/dev/zero", os.O_RDWR), 100),
        (lambda: os.open("/dev/zero", os.O_RDWR), 0),
        (lambda: socket.socket().detach(), 0),
    ],
    ids=[
        "no seals", "no shrink seal", "no grow seal", "too short", "far too short", "no length", "negative",
        "a file", "a device", "a device, empty", "a socket",
    ],
)  # fmt: skip
def test_what_is_no_sealed_memory_of_that_length_is_refused_and_closed(make: Callable[[], int], length: int) -> None:
    fd = make()
    gone: list[bool] = []
    with pytest.raises(SegmentError):
        open_received(fd, length, writable=True, on_gone=gone.append)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert gone == []


def test_shared_memory_that_others_can_find_is_refused() -> None:
    fd, path = tempfile.mkstemp(dir="/dev/shm")
    try:
        os.ftruncate(fd, 100)
        with pytest.raises(SegmentError, match="not sealed"):
            open_received(fd, 100, writable=False, on_gone=print)
    finally:
        os.unlink(path)


def test_a_descriptor_that_is_none_is_an_error_of_the_segment() -> None:
    with pytest.raises(SegmentError):
        open_received(-1, 1, writable=False, on_gone=print)


@pytest.mark.parametrize("failure", [OSError(errno.ENOMEM, "no"), OSError(errno.EMFILE, "no"), MemoryError()])
def test_when_there_is_no_room_for_a_map_that_is_an_error_of_the_segment(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    monkeypatch.setattr(received, "_map_as", _failing(failure))
    segment = packed(arena, b"x")
    with pytest.raises(SegmentError, match="can't be mapped"):
        opened(segment)
    assert len(held()) == 1


def test_a_segment_without_data_needs_no_map(arena: Arena) -> None:
    for parts in ([], [b""], [b"", b""]):
        segment = packed(arena, *parts)
        gone: list[bool] = []
        view = opened(segment, gone, writable=True)
        assert (len(view), view.format, view.readonly, gone) == (0, "B", False, [True])
        assert opened(segment).readonly


def test_the_error_of_a_segment_pickles() -> None:
    error = pickle.loads(pickle.dumps(SegmentError("gone", 7)))
    assert (str(error), error.number) == ("gone", 7)


# When the last reference is gone


def test_the_sender_is_told_once_when_the_last_reference_is_gone(arena: Arena) -> None:
    gone: list[bool] = []
    view = opened(packed(arena, bytes(1000)), gone, writable=True)
    part = view[10:20]
    whole = np.frombuffer(view, np.uint8)
    derived = whole[100:200].reshape(10, 10)
    del view, part, whole
    assert gone == []
    derived[:] = 1
    del derived
    gc.collect()
    assert gone == [True]


def test_a_page_that_was_not_touched_shows_what_is_written_later(arena: Arena) -> None:
    """The trap: should this fail, memory could be used again at once."""
    segment = packed(arena, b"old!" * PAGE)
    view = opened(segment, writable=True)
    view[:4] = b"mine"
    arena.release(segment.number)  # too early
    packed(arena, b"new!" * PAGE)
    assert (bytes(view[:4]), bytes(view[-4:])) == (b"mine", b"new!")


def test_pages_that_were_not_touched_keep_what_was_sent_while_there_is_a_reference(arena: Arena) -> None:
    gone: list[bool] = []
    numbers = []
    views = []
    for step in range(10):
        segment = packed(arena, bytes([step]) * 3 * PAGE)
        numbers.append(segment.number)
        views.append(opened(segment, gone, writable=True))
    assert arena.open_count == 10
    del views[5]
    assert gone == [True]
    arena.release(numbers[5])
    packed(arena, b"\xff" * 3 * PAGE)
    assert arena.open_count == 10
    assert [bytes(view) for view in views] == [bytes([step]) * 3 * PAGE for step in range(10) if step != 5]


class _Keeper:
    """In a cycle with itself, and keeps its data when it is found to be garbage."""

    kept: memoryview | None = None

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.me = self

    def __del__(self) -> None:
        _Keeper.kept = self.view


def test_memory_that_a_finalizer_may_still_see_is_not_used_again(arena: Arena) -> None:
    gone: list[bool] = []
    keeper: _Keeper | None = _Keeper(opened(packed(arena, b"spam"), gone))
    del keeper
    gc.collect()
    assert gone == [False]
    assert bytes(_Keeper.kept or b"") == b"spam"
    _Keeper.kept = None
    # Outside of a collection it is as ever.
    view = opened(packed(arena, b"spam"), gone)
    del view
    assert gone == [False, True]


_FORK = """
import gc, os
from jobrunner.received import open_received
from jobrunner.segments import Arena
arena = Arena(keep_bytes=1 << 20, most_open=10)
told = []
def opened(name):
    segment = arena.pack([b"spam"])
    return open_received(os.dup(segment.fd), 4, writable=True, on_gone=lambda good: told.append((name, good)))
before, dropped = opened("before"), opened("dropped")
del dropped
reading, writing = os.pipe()
pid = os.fork()
if pid == 0:
    here = bytes(before)
    del before
    mine = opened("the child's own")
    del mine
    os.write(writing, repr((here, told)).encode())
    os._exit(0)
os.close(writing)
said = os.read(reading, 1000).decode()
os.waitpid(pid, 0)
after = opened("after")
del before, after
print(said, ",", told)
"""


def test_memory_that_a_forked_child_has_too_is_not_used_again(script: Run) -> None:
    output = script(_FORK).check()
    told = [("dropped", True)]
    assert ast.literal_eval(output) == ((b"spam", [*told, ("the child's own", True)]), [*told, ("before", False), ("after", True)])


_EXIT = """
import os, sys
from jobrunner.received import open_received
from jobrunner.segments import Arena
arena = Arena(keep_bytes=1 << 20, most_open=10)
told = []
def opened():
    return open_received(os.dup(arena.pack([b"spam"]).fd), 4, writable=True, on_gone=told.append)
class Cycle: pass
cycle = Cycle()
cycle.me, cycle.view = cycle, opened()
sys.view = opened()
view = opened()
"""


def test_maps_that_live_until_the_interpreter_exits_are_no_trouble(script: Run) -> None:
    assert script(_EXIT).check() == ""


_FORSAKE = """
import os, threading
from jobrunner.segments import Arena
arena = Arena(keep_bytes=1 << 20, most_open=10)
segment = arena.pack([b"spam"])
arena.release(arena.pack([bytes(9999)]).number)
def held(): return sum("jobrunner-" in os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1])
locked, over = threading.Event(), threading.Event()
def hold():
    with arena._lock:
        locked.set()
        over.wait()
thread = threading.Thread(target=hold)
thread.start()
locked.wait()
pid = os.fork()
if pid == 0:
    assert held() == 2
    arena.forsake()
    assert held() == 0 and arena.open_count == 0
    assert arena.pack([b"x"]) is None
    arena.release(1), arena.trim(), arena.close()
    os._exit(7)
status = os.waitpid(pid, 0)[1]
over.set()
thread.join()
assert held() == arena.open_count == 2
assert os.pread(segment.fd, 4, 0) == b"spam" and arena.pack([b"x"]) is not None
print(os.waitstatus_to_exitcode(status))
"""


def test_a_fork_closes_its_copies_whoever_held_the_lock(script: Run) -> None:
    assert script(_FORSAKE).check().strip() == "7"


# Descriptors on a socket

_KINDS = [socket.SOCK_STREAM, *([socket.SOCK_SEQPACKET] if sys.platform == "linux" else [])]


@pytest.mark.parametrize("kind", _KINDS)
def test_descriptors_arrive_one_by_one_and_in_order(arena: Arena, kind: int) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    arena = Arena(keep_bytes=0, most_open=50)
    made = [packed(arena, bytes([step])) for step in range(50)]
    with left, right:
        for segment in made:
            send_descriptor(left, segment.fd, segment.number)
        arena.close()  # what is on its way lives on
        for step, segment in enumerate(made):
            fd, number = receive_descriptor(right)
            assert number == segment.number
            assert not os.get_inheritable(fd)
            assert opened_byte(fd) == step
        left.close()
        with pytest.raises(EOFError):
            receive_descriptor(right)


def opened_byte(fd: int) -> int:
    return open_received(fd, 1, writable=False, on_gone=lambda _: None)[0]


def test_a_full_socket_says_so_and_nothing_was_sent(arena: Arena, sockets: tuple[socket.socket, socket.socket]) -> None:
    left, right = sockets
    left.setblocking(False)
    right.setblocking(False)
    segment = packed(arena, b"x")
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            send_descriptor(left, segment.fd, sent)
            sent += 1
    for number in range(sent):
        fd, got = receive_descriptor(right)
        os.close(fd)
        assert got == number
    with pytest.raises(BlockingIOError):
        receive_descriptor(right)
    send_descriptor(left, segment.fd, 2**64 - 1)
    fd, got = receive_descriptor(right)
    os.close(fd)
    assert got == 2**64 - 1


def test_a_descriptor_is_not_inheritable_where_the_system_does_not_help(
    arena: Arena, sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "_CLOEXEC", 0)
    send_descriptor(sockets[0], packed(arena, b"x").fd, 1)
    fd, _ = receive_descriptor(sockets[1])
    assert not os.get_inheritable(fd)
    os.close(fd)


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights)


@pytest.mark.parametrize("count", [2, 3, 16, 100])
def test_descriptors_too_many_are_closed(
    arena: Arena, sockets: tuple[socket.socket, socket.socket], count: int
) -> None:
    segment = packed(arena, b"x")
    _send(sockets[0], segments._MESSAGE.pack(5), [segment.fd] * count)
    fd, number = receive_descriptor(sockets[1])
    assert number == 5
    assert len(held()) == 2
    os.close(fd)


def test_a_message_without_a_descriptor_is_an_error_with_its_number(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    _send(sockets[0], segments._MESSAGE.pack(5), [])
    with pytest.raises(SegmentError, match="none was sent") as caught:
        receive_descriptor(sockets[1])
    assert caught.value.number == 5


def test_a_message_that_is_none_of_ours_is_an_error_and_its_descriptors_are_closed(
    arena: Arena, sockets: tuple[socket.socket, socket.socket]
) -> None:
    _send(sockets[0], b"abc", [packed(arena, b"x").fd] * 3)
    with pytest.raises(SegmentError, match="3 bytes"):
        receive_descriptor(sockets[1])
    assert len(held()) == 1


def test_a_receiver_that_is_gone_is_an_error_of_the_sender(arena: Arena) -> None:
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(BrokenPipeError):
        send_descriptor(left, packed(arena, b"x").fd, 1)


# Another process

_RECEIVER = """
import os, socket, sys
from jobrunner.received import open_received, receive_descriptor
sock = socket.socket(fileno=int(sys.argv[1]))
length = int(sys.argv[2])
views = []
while True:
    fd, number = receive_descriptor(sock)
    view = open_received(fd, length, writable=True, on_gone=lambda good: None)
    total = sum(view[::4096])
    view[:10] = b"scribbled!"
    views.append(view)
    print(number, total, flush=True)
"""


@pytest.mark.parametrize("memfd", [True, False], ids=["memfd", "named"])
def test_another_process_writes_for_itself_alone_and_killed_it_leaves_nothing(
    arena: Arena, sockets: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, memfd: bool
) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    before = os.listdir("/dev/shm")
    content = random.Random(3).randbytes(1 << 20)
    left, right = sockets
    command = [sys.executable, "-c", _RECEIVER, str(right.fileno()), str(len(content))]
    made = [packed(arena, content) for _ in range(2)] + [packed(arena, content, once=True)]
    with subprocess.Popen(command, pass_fds=[right.fileno()], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        right.close()
        assert process.stdout is not None
        for segment in made:
            send_descriptor(left, segment.fd, segment.number)
            assert process.stdout.readline().split() == [str(segment.number), str(sum(content[::4096]))]
        process.send_signal(signal.SIGKILL)
        process.wait()
    for segment in made:
        assert os.pread(segment.fd, len(content), 0) == content
        arena.release(segment.number)
    assert arena.open_count == 2
    arena.close()
    assert set(os.listdir("/dev/shm")) <= set(before)
