"""Large data in shared memory, the receiver's side: only what is safe is mapped, and nobody sees another's writes."""

from __future__ import annotations

import array
import ast
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
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from jobrunner import received, segments
from jobrunner.received import SegmentError, open_received, receive_descriptor
from jobrunner.segments import Arena, send_descriptor
from tests.core.scripts import ROOT, Script
from tests.core.shared_memory import failing, held, opened, packed, shared, shm_names

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


# What a receiver opens


def test_a_receiver_can_neither_shorten_nor_lengthen_what_it_got(arena: Arena) -> None:
    with shared(bytes(2 * PAGE)) as many:
        for segment in (packed(arena, bytes(2 * PAGE)), many):
            for size in (0, PAGE, 3 * PAGE):
                with pytest.raises(PermissionError):
                    os.ftruncate(segment.fd, size)
            with pytest.raises(PermissionError):
                fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_what_many_receivers_share_nobody_can_write_to() -> None:
    with shared(b"spam") as segment:
        with pytest.raises(PermissionError):
            os.pwrite(segment.fd, b"x", 0)
        with pytest.raises(PermissionError):
            mmap.mmap(segment.fd, 4)
        first, second = opened(segment, writable=True), opened(segment, writable=True)
        first[0] = 0
        assert bytes(second) == b"spam"


def test_shared_memory_can_be_told_by_its_name(arena: Arena) -> None:
    with shared(b"x") as many:
        names = [os.readlink(f"/proc/self/fd/{segment.fd}") for segment in (packed(arena, b"x"), many)]
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
    monkeypatch.setattr(received, "_map_as", failing(failure))
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
    assert ast.literal_eval(output) == (
        (b"spam", [*told, ("the child's own", True)]),
        [*told, ("before", False), ("after", True)],
    )


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
    content = random.Random(3).randbytes(1 << 20)
    left, right = sockets
    command = [sys.executable, "-c", _RECEIVER, str(right.fileno()), str(len(content))]
    with shared(content) as many:
        made = [*(packed(arena, content) for _ in range(2)), many]
        process = subprocess.Popen(command, pass_fds=[right.fileno()], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        with process:
            right.close()
            assert process.stdout is not None
            for segment in made:
                send_descriptor(left, segment.fd, segment.number)
                assert process.stdout.readline().split() == [str(segment.number), str(sum(content[::4096]))]
            process.send_signal(signal.SIGKILL)
            process.wait()
        for segment in made:
            assert os.pread(segment.fd, len(content), 0) == content
    for segment in made[:2]:
        arena.release(segment.number)
    assert arena.open_count == 2
    arena.close()
    assert shm_names() == []
