"""Large data in shared memory, the sender's side: it arrives whole, within bounds, and nothing is left behind."""

from __future__ import annotations

import errno
import gc
import mmap
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobrunner import anonymous_memory, segments
from jobrunner.received import open_received, receive_descriptor
from jobrunner.segments import ALIGN, Arena, Segment, layout, send_descriptor
from tests.core.scripts import ROOT, Script
from tests.core.shared_memory import failing, held, identity, opened, packed, raw, shared, shm_names

pytestmark = pytest.mark.skipif(not segments.CAN_PASS, reason="the system can't pass descriptors")

PAGE = mmap.PAGESIZE
Run = Callable[..., Script]


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
@given(st.lists(st.lists(_arrays(), max_size=4), min_size=1, max_size=6))
def test_arrays_arrive_as_they_were_sent_in_new_memory_and_in_old(
    messages: list[list[np.ndarray[Any, Any]]],
) -> None:
    arena = Arena(keep_bytes=1 << 20, most_open=2)
    try:
        for arrays in messages:
            parts = [raw(one) for one in arrays]
            segment = packed(arena, *parts)
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
    uses = set()
    for use in range(3):
        writable = generator.integers(0, 255, 3 << 20, dtype=np.uint8)
        readonly = writable[::-1].copy()
        readonly.flags.writeable = False
        parts = [readonly, writable, np.frombuffer(b"between", np.uint8), writable, readonly]
        segment = packed(arena, *map(raw, parts))
        uses.add((identity(segment), segment.number))
        assert ("memfd:jobrunner-data" in Path("/proc/self/maps").read_text()) == (use > 0)
        view = opened(segment)
        for part, offset in zip(parts, layout([part.nbytes for part in parts])[0], strict=True):
            assert np.array_equal(np.frombuffer(view, np.uint8, part.size, offset), part)
        del view
        arena.release(segment.number)
    assert len({memory for memory, _ in uses}) == 1
    assert len({number for _, number in uses}) == 3
    arena.trim()
    assert "memfd:jobrunner-data" not in Path("/proc/self/maps").read_text()


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
        if action == "pack":
            content = bytes([step]) * size
            segment = arena.pack([content])
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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENOMEM, errno.EFAULT, errno.EIO, errno.EFBIG])
@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_memory_that_cannot_be_had_is_none(arena: Arena, monkeypatch: pytest.MonkeyPatch, code: int, call: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(OSError(code, "no")))
        assert arena.pack([b"x"]) is None
        patch.setattr(os, call, failing(MemoryError()))
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
    monkeypatch.setattr(os, "pwrite", failing(KeyboardInterrupt()))
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
assert arena.open_count == 2
try: receive_descriptor(right)
except SegmentError as error: assert error.number == segment.number and "descriptors" in str(error), error
else: raise AssertionError
for fd in held: os.close(fd)
assert arena.pack([b"x"]) is not None
send_descriptor(left, segment.fd, segment.number)
fd, number = receive_descriptor(right)
assert os.pread(fd, 9, 0)[:4] == b"spam" and number == segment.number
left.close()
right.close()
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
    for content in (b"a", b"b"):
        segment = packed(arena, content * PAGE, b"end")
        assert shm_names() == []
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
    with shared(b"once") as segment:
        assert bytes(opened(segment)) == b"once"


def test_a_kernel_that_refuses_memfds_is_like_one_without(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", failing(OSError(errno.ENOSYS, "no")), raising=False)
    assert os.readlink(f"/proc/self/fd/{packed(arena, b'x').fd}").startswith("/dev/shm/")


def test_where_shared_memory_cannot_be_written_to_it_is_mapped(
    without_memfd: None, arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on macOS.
    monkeypatch.setattr(os, "pwrite", failing(OSError(errno.ESPIPE, "no")))
    parts = [random.Random(0).randbytes(size) for size in (3 * PAGE, 0, 10)]
    segment = packed(arena, *parts)
    view = opened(segment)
    assert [view[at : at + len(one)] for at, one in zip(layout([3 * PAGE, 0, 10])[0], parts, strict=True)] == parts


def test_where_there_is_nothing_there_is_none(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "CAN_PASS", False)
    assert arena.pack([b"x"]) is None
    monkeypatch.undo()
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setitem(sys.modules, "_posixshmem", None)
    assert arena.pack([b"x"]) is None


_WINDOWS = """
import mmap, os, socket, sys
sys.platform = "win32"
sys.modules["fcntl"] = sys.modules["_posixshmem"] = None
for module, names in (
    (mmap, ("MAP_PRIVATE", "MAP_SHARED", "PROT_READ", "PROT_WRITE")),
    (os, ("memfd_create", "pwrite", "register_at_fork")),
    (socket, ("AF_UNIX", "SCM_RIGHTS", "CMSG_SPACE", "MSG_CMSG_CLOEXEC")),
):
    for name in names: delattr(module, name)
import jobrunner.received
from jobrunner.segments import CAN_PASS, Arena
arena = Arena(keep_bytes=1 << 20, most_open=10)
print(CAN_PASS, arena.pack([b"x"]), arena.open_count)
arena.release(1), arena.trim(), arena.close()
"""


def test_on_windows_the_modules_load_and_say_that_there_is_none(script: Run) -> None:
    assert script(_WINDOWS).check().split() == ["False", "None", "0"]


# A fork of the sender

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
