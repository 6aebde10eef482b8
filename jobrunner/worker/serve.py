"""The loop of a worker: take a job, run it, tell what it came to.

The states of a job here, as the progress page shows them: *sent* (in the channel), *taken* (claimed by a token, being
loaded: VALIDATING), *started* (its function runs: RUNNING).  A job whose token the caller took first is *dropped*.

The worker is single-threaded, so that jobs may fork.  An interrupt (`grace`) is therefore a signal: the caller writes
the job's number to the control channel and sends SIGINT; the handler raises KeyboardInterrupt only if that very job's
function is running, and not in the midst of sending a frame.  A SIGINT from anybody else does nothing.

What a job has changed of its process is put back after its outcome is sent, and before the next is taken.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import os
import platform
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from jobrunner.errors import SerializationError
from jobrunner.execution import Outcome, Times, drop_own_frames, execute
from jobrunner.handover import HandedDescriptor, ProgressPage
from jobrunner.messages import (
    LEAVING,
    LEVEL_SHIFT,
    PARTS,
    RELAY,
    SEGMENT,
    UNKNOWN_END,
    Frame,
    FrameReader,
    Kind,
    pack_failure,
    pack_frame,
    pack_gone,
    pack_outcome,
    pack_printed,
    unpack_call,
)
from jobrunner.parcel import APART_BYTES, Parcel, unpack_table
from jobrunner.processes import end_descendants, give_way
from jobrunner.received import SegmentError
from jobrunner.serialization import dump_exception, dump_result_apart
from jobrunner.worker.chunk import run_chunk
from jobrunner.worker.data import DataPort
from jobrunner.worker.process import (
    EXIT_CHANNEL_LOST,
    EXIT_NOT_STARTED,
    EXIT_SPOILED,
    WorkerEnd,
    flush_streams,
    leave,
    touched,
    watch_for_crashes,
    worker_end,
)
from jobrunner.worker.relay import Relay
from jobrunner.worker.surroundings import Surroundings
from jobrunner.worker.usage import QUICKEST_CHILD_NS, UsageMeter

__all__ = ["serve"]

_SEQ = struct.Struct("<Q")

# For how long a worker looks for the next job before it goes to sleep, and how soon the last one must have come.
_LOOK_NS = 200_000
_BRISK_NS = 400_000

# For how long a pool's thread may take to come to rest behind a job whose result it has handed in.
_REST_NS = 5_000_000
# How often it is looked whether a caller that has begun to read what was printed, and does not go on, is there still.
_MOMENT_S = 0.001

# Looked up for every job.
_TAKEN, _TAKEN_NS = ProgressPage.TAKEN, ProgressPage.TAKEN_NS
_STARTED, _STARTED_NS = ProgressPage.STARTED, ProgressPage.STARTED_NS
_ITEM = ProgressPage.ITEM


def serve() -> NoReturn:
    """Serve this worker's channel until the caller goes or says EXIT; never returns."""
    _close_loky_queues()
    end = worker_end()
    try:
        server = _Server(end)
    except BaseException as error:
        # Back in loky it would live on, doing nothing.
        with contextlib.suppress(OSError):
            end.channel.sock.sendall(pack_frame(Kind.FAILED, 0, dump_exception(error)))
        leave(EXIT_NOT_STARTED)
    server.run()


def _close_loky_queues() -> None:
    """Close this process's ends of loky's queues, which nobody reads any more once `serve` runs.

    A job that wrote into one by mistake would leave loky's thread in the caller waiting for the rest of it for ever.
    They are known to loky's frame below only.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        for name in ("call_queue", "result_queue"):
            queue = frame.f_locals.get(name)
            for end in ("_reader", "_writer"):
                with contextlib.suppress(AttributeError, OSError):
                    getattr(queue, end).close()


class _Server:
    def __init__(self, end: WorkerEnd) -> None:
        self._sock = end.channel.sock
        self._control = end.control.sock
        self._tokens = end.tokens
        self._words = end.page.words
        self._end = end
        self._reader = FrameReader(self._sock)
        # Looks whether there is something to read; None where that can't be done.
        self._look: Callable[[int], object] | None = None
        if end.brisk and hasattr(select, "poll"):
            poll = select.poll()
            poll.register(self._sock, select.POLLIN)
            self._look = poll.poll
        # Whether the last wait for a job was short.
        self._brisk = False
        # The job in work, or last in work.
        self._seq = 0
        # The job whose function is running, for the interrupt handler; 0: none is.
        self._interruptible = 0
        # The job that was interrupted last.
        self._told_to_end = 0
        # Frames are sent by the main thread, and notes by whichever thread of the job's logs something.
        self._sending = threading.Lock()
        # Whether the main thread does what must be done whole; whether it was to be interrupted meanwhile.
        self._busy = False
        self._interrupted = False
        # Notes of a signal handler that ran while the main thread was sending.
        self._held: list[bytes] = []
        self._caller = os.getppid()
        # How far what was printed goes, as the caller knows it.
        self._printed = (0, 0)
        self._stack_file = _file_behind(end)
        sock = None if end.descriptors is None else end.descriptors.sock
        if sock is not None:
            sock.setblocking(True)
        self._data = DataPort(sock, self._usage_grew)
        self._relay = Relay(self._send_note, end.log_levels)
        self._usage = UsageMeter(self._words)
        signal.signal(signal.SIGINT, self._on_interrupt)
        self._touched = touched()
        self._surroundings = Surroundings(end.threads, self._touched, lambda: watch_for_crashes(end))
        self._threads = threading.active_count()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._relay.forsake)

    def run(self) -> NoReturn:
        self._sock.setblocking(True)
        facts = {"pid": os.getpid(), "python": platform.python_version()}
        self._send(pack_frame(Kind.READY, 0, json.dumps(facts).encode()))
        while True:
            try:
                frames = self._next_frames()
            except OSError:
                leave(EXIT_CHANNEL_LOST)
            if self._reader.eof:
                # The caller has gone, or has let go of this lane.
                leave(0)
            frames.reverse()
            while frames:
                # Popped, and in no variable here: a job's bytes must not outlive it.
                self._take(*frames.pop())

    def _next_frames(self) -> list[Frame]:
        """Wait for what comes next over the channel.

        Where the last job came soon after the one before, it is looked for at first without going to sleep: to be woken
        takes longer than a short job does.  Whatever else wants the core has it meanwhile.
        """
        began = time.monotonic_ns()
        if self._brisk and self._look is not None:
            until = began + _LOOK_NS
            while not self._look(0) and time.monotonic_ns() < until:
                give_way()
        frames = self._reader.read()
        self._brisk = time.monotonic_ns() - began < _BRISK_NS
        return frames

    def _send(self, frame: bytes) -> None:
        # Socket calls only: were the descriptor closed by a job and its number given to a file, a plain write would
        # put our frame into the user's file.
        self._busy = True  # as in _uninterrupted, which costs more
        try:
            with self._sending:
                self._sock.sendall(frame)
        except OSError:
            leave(EXIT_CHANNEL_LOST)
        finally:
            self._busy = False
        if self._held or self._interrupted:
            self._catch_up()

    def _catch_up(self) -> None:
        """Do what had to wait for the sending of a frame."""
        while self._held:
            self._send(self._held.pop(0))
        if self._interrupted:
            self._interrupted = False
            raise KeyboardInterrupt("the job is being ended")

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """What the main thread does here is done whole: an interrupt of the job comes after it."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._interrupted:
            self._catch_up()

    def _send_note(self, seq: int, body: bytes) -> None:
        """Send a note of a job, from whichever of its threads."""
        frame = pack_frame(Kind.NOTE, seq, body)
        if threading.current_thread() is threading.main_thread():
            if self._busy:
                self._held.append(frame)
            else:
                self._send(frame)
            return
        with self._sending, contextlib.suppress(OSError):
            self._sock.sendall(frame)

    def _take(self, kind: int, flags: int, seq: int, body: bytes | bytearray) -> None:
        """Claim a job and run it, or drop it if it was revoked."""
        if kind == Kind.EXIT:
            leave(0)
        parts: list[memoryview] = []
        refused: SegmentError | None = None
        try:
            if kind in (Kind.SHARE, Kind.FORGET, Kind.GONE):
                self._take_data(kind, flags, seq, body)
                return
            if flags & (SEGMENT | PARTS):
                try:
                    parts = self._data.open(flags, body)
                except SegmentError as error:
                    refused = error
            claimed = self._tokens.take()
        except (OSError, EOFError, ValueError):
            leave(EXIT_CHANNEL_LOST)
        if not claimed:
            del parts
            self._send(self._pack_gone() + pack_frame(Kind.DROPPED, seq))
            return
        words = self._words
        words[_ITEM] = 0
        self._usage.begin()
        self._relay.begin(seq, bool(flags & RELAY), 10 * (flags >> LEVEL_SHIFT))
        words[_TAKEN_NS] = time.monotonic_ns()
        words[_TAKEN] = self._seq = seq
        outcome = self._attempt(kind, flags, body, parts, refused)
        lasted_ns = outcome.times.finished_ns - outcome.times.taken_ns
        self._surroundings.silence(lasted_ns)
        self._interrupted = False
        del parts, body
        leaving = self._answer(seq, outcome, lasted_ns)
        del outcome
        if leaving:
            self._await_end()
        self._relay.restore()
        if not self._surroundings.restore(lasted_ns):
            leave(EXIT_SPOILED)

    def _attempt(
        self,
        kind: int,
        flags: int,
        body: bytes | bytearray,
        parts: list[memoryview],
        refused: SegmentError | None,
    ) -> Outcome:
        """Run a job that was claimed, unless its large data can't be had; does not return if it asks for its end."""
        if refused is not None:
            now = time.monotonic_ns()
            failure = SerializationError(f"the job's arguments can't be had in the worker: {refused}")
            return Outcome(False, dump_exception(failure), Times(now, 0, now), str(failure))
        if flags & SEGMENT:
            # The head stands behind the table of the parts, or is the first of them.
            head: bytes | bytearray | memoryview = memoryview(body)[unpack_table(body)[1] :] or parts.pop(0)
        else:
            head = parts.pop(0) if parts else body
        try:
            return self._run(head, parts, self._call_chunk if kind == Kind.CHUNK else self._call)
        except SystemExit as error:
            self._surroundings.silence()
            self._tell_exit(error)
            leave(_exit_code(error))

    def _answer(self, seq: int, outcome: Outcome, lasted_ns: int) -> bool:
        """Send what a job came to, and what it has used; whether it has left something behind, so that we leave."""
        self._relay.end()
        if not flush_streams():
            self._touched.state = True  # one of them is not what it was
        leaving = self._left_something(lasted_ns)
        usage = self._usage.end(lasted_ns)
        said = LEAVING * leaving
        data = outcome.data
        if not isinstance(data, bytes) or (len(data) >= APART_BYTES and outcome.ok):
            try:
                how, data = self._data.pack(data)
            except OSError:
                leave(EXIT_CHANNEL_LOST)
            said |= how
        elif not outcome.ok:
            data = pack_failure(outcome.told, data)
        body = pack_outcome(*outcome.times, *usage, data)
        answer = pack_frame(Kind.DONE if outcome.ok else Kind.RAISED, seq, body, said)
        self._send(self._pack_gone() + self._pack_printed() + answer)
        return leaving

    def _pack_printed(self) -> bytes:
        """A frame that tells how far what the job has printed goes; nothing where it has printed nothing."""
        if self._end.output is None:
            return b""
        printed = self._surroundings.streams.printed
        try:
            try:
                ends = printed(self._words, self._caller_has_gone, replaced=self._touched.state)
            except OSError:
                self._touched.state = True
                ends = printed(self._words, self._caller_has_gone, replaced=True)
        except OSError:
            ends = UNKNOWN_END, UNKNOWN_END
        if ends == self._printed and UNKNOWN_END not in ends:
            return b""
        self._printed = ends
        return pack_frame(Kind.PRINTED, self._seq, pack_printed(ends))

    def _caller_has_gone(self) -> bool:
        """Leave the core to the caller for a moment; whether it has gone."""
        time.sleep(_MOMENT_S)
        return os.getppid() != self._caller

    def _run(
        self, head: bytes | bytearray | memoryview, buffers: Sequence[memoryview], call: Callable[..., Any]
    ) -> Outcome:
        payload, handles = unpack_call(head)
        return execute(
            payload,
            handles,
            buffers,
            find_shared=self._data.finder,
            dump=dump_result_apart,
            on_start=self._started,
            call=call,
        )

    def _usage_grew(self, nbytes: int) -> None:
        """The process has grown by a shared object, for which the job is not to blame."""
        self._usage.excuse(nbytes)

    def _take_data(self, kind: int, flags: int, number: int, body: bytes | bytearray) -> None:
        if kind == Kind.SHARE:
            self._data.share(number, flags, body)
        elif kind == Kind.FORGET:
            self._data.forget(number)
        else:
            self._data.release(body)
        self._usage.shared_bytes = self._data.shared_bytes

    def _pack_gone(self) -> bytes:
        """A frame that tells what is not used here any more; nothing where there is nothing."""
        gone = self._data.take_gone()
        return pack_frame(Kind.GONE, 0, pack_gone(gone)) if gone else b""

    def _tell_exit(self, error: SystemExit) -> None:
        """Write where the function asked its process to end into the stack file."""
        # The job may have closed the descriptor, and given its number to a file.
        if isinstance(self._end.stack, HandedDescriptor) and _file_behind(self._end) == self._stack_file:
            drop_own_frames(error)
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            with contextlib.suppress(OSError):
                os.write(self._end.stack.fd, "".join(lines).encode(errors="replace"))

    def _started(self) -> None:
        words = self._words
        words[_STARTED_NS] = time.monotonic_ns()
        words[_STARTED] = self._seq

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a job's function, open to an interrupt of that job."""
        try:
            self._interruptible = self._seq
            return contextvars.copy_context().run(function, *args, **kwargs)
        finally:
            self._interruptible = 0

    def _call_chunk(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function for each item of a chunk, open to an interrupt."""
        seq = self._seq

        def send(piece: bytes | Parcel) -> None:
            try:
                flags, body = self._data.pack(piece)
            except OSError:
                leave(EXIT_CHANNEL_LOST)
            self._send(pack_frame(Kind.PARTIAL, seq, body, flags))

        plan, columns = args

        def told_to_end() -> bool:
            return self._told_to_end == seq

        return self._call(
            run_chunk, (function, plan, columns, self._words, send, self._touched, self._tidy_item, told_to_end), {}
        )

    def _tidy_item(self, lasted_ns: int) -> None:
        """Put back what an item of a chunk has changed; what can't be put back is seen to after the chunk."""
        with self._uninterrupted():
            self._surroundings.silence(lasted_ns)
            self._surroundings.restore(lasted_ns)

    def _on_interrupt(self, signum: int, frame: FrameType | None) -> None:
        try:
            numbers = self._control.recv(4096)
        except OSError:
            return  # nobody asked: a SIGINT from elsewhere
        if len(numbers) >= _SEQ.size and _SEQ.unpack(numbers[-_SEQ.size :])[0] == self._interruptible:
            self._told_to_end = self._interruptible
            if self._touched.on_call is not None:
                self._touched.on_call()  # of a chunk: no further item is begun
            if self._busy:
                self._interrupted = True  # half a frame would spoil the channel
                return
            raise KeyboardInterrupt("the job is being ended")

    def _left_something(self, lasted_ns: int) -> bool:
        """Whether a job that took so long left processes or threads behind that would live on beside the next one."""
        if threading.active_count() > self._threads and any(map(_goes_on, threading.enumerate())):
            return True
        return lasted_ns >= QUICKEST_CHILD_NS and _has_live_children()

    def _await_end(self) -> NoReturn:
        """Take no further job: the caller ends what the job left behind, and this worker."""
        with contextlib.suppress(OSError):
            while self._sock.recv(1 << 16):
                pass
        # The caller has gone without doing so.
        end_descendants(os.getpid())
        leave(0)


def _goes_on(thread: threading.Thread) -> bool:
    """Whether a thread is one that a job has left behind, and that does something yet.

    The threads of a pool that nobody has shut down, as libraries keep one for all their calls, wait for what is handed
    to them; which nobody does.
    """
    if thread.daemon or thread is threading.main_thread() or not thread.is_alive():
        return False
    pools = sys.modules.get("concurrent.futures.thread")
    if pools is None or thread not in pools._threads_queues:
        return True
    until = time.monotonic_ns() + _REST_NS
    while not _at_rest(thread, pools._worker):
        if time.monotonic_ns() > until:
            return thread.is_alive()
        # It has handed in its result before it comes to rest itself.
        thread.join(0.0002)
    return False


def _at_rest(thread: threading.Thread, loop: Any) -> bool:
    """Whether a pool's thread waits in its loop, and in nothing that the loop has called."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code is loop.__code__


def _file_behind(end: WorkerEnd) -> tuple[int, int] | None:
    """What tells the stack file from others; None where there is none, or its descriptor is closed."""
    if not isinstance(end.stack, HandedDescriptor):
        return None
    try:
        found = os.fstat(end.stack.fd)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _exit_code(error: SystemExit) -> int:
    """The exit code that the interpreter would give this SystemExit."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    with contextlib.suppress(Exception):
        print(error.code, file=sys.stderr)
    return 1


def _has_live_children() -> bool:
    """Whether a child process is alive; those that have ended, and were orphaned to us, are reaped."""
    if not hasattr(os, "WNOHANG"):
        import psutil

        return bool(psutil.Process().children())
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
