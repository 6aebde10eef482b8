"""A lane: one worker, and the private conversation with it.

::

    caller                                     worker
    outbox ──▶ socket pair (jobs, outcomes) ◀──▶ serve()
    control ─▶ socket pair (number of the job to interrupt), then SIGINT
    page   ◀── shared memory: which job was claimed, started, and when
    stack  ◀── a file in memory: the worker's Python stack, when it crashes or is ended
    output ◀── two pipes: what is printed
    descriptors ◀─▶ a socket pair, of the shared memory in which large data lie
    tokens ◀─▶ a shared counter: who takes a job's token decides whether it is run or revoked

The lane's owner is its pool: `send`, `flush`, `revoke`, `receive` are called under the pool's lock; `end` by one thread
of its own, once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from jobrunner.executors.allocator import allocator_variables
from jobrunner.executors.attendant import Attendant
from jobrunner.executors.freight import Shipment
from jobrunner.executors.output import CAN_REDIRECT, LaneOutput, OutputWriter
from jobrunner.executors.post_mortem import Death, clean_stack
from jobrunner.executors.records import Slot
from jobrunner.executors.safe_start import restored_after_start, start_variables
from jobrunner.executors.worker_process import WorkerProcess
from jobrunner.handover import HandedDescriptor, HandedSocket, ProgressPage, open_stack_file, open_tokens
from jobrunner.memory import oom_kills
from jobrunner.messages import (
    PARTS,
    SEGMENT,
    Frame,
    FrameReader,
    Kind,
    ProtocolError,
    pack_frame,
    pack_gone,
    pack_header,
)
from jobrunner.processes import LANE_VARIABLE
from jobrunner.received import receive_descriptor
from jobrunner.segments import CAN_PASS, send_descriptor
from jobrunner.sharing import Shared
from jobrunner.worker.process import WorkerEnd

__all__ = ["Lane", "LaneConfig"]

_SEQ = struct.Struct("<Q")
# So many descriptors may be on their way, with room for those of the jobs themselves; more don't fit into the channel.
_MOST_PASSED = 64
# Frames that are sent in one call, at most.
_BATCH = 64
# Bodies below this are copied behind their headers, to be sent as one.
_JOIN_BYTES = 1 << 16
# The variables by which BLAS and OpenMP libraries learn how many threads to use.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)
# How long a worker that was told to leave may take, before it is ended.
_LEAVE_S = 5.0
_KILL = getattr(signal, "SIGKILL", None)
# How long the kernel may take to end a process, before a cancel gives up waiting.
_KERNEL_S = 5.0


@dataclasses.dataclass(frozen=True)
class LaneConfig:
    """What all lanes of a pool have in common.

    tag: what their tags begin with; the lane's number and a semicolon follow, so that no tag begins another.
    env: variables that the user wants set.
    brisk: whether a worker may look for its next job for a moment before it goes to sleep: there is a core for each.
    preload: modules to import at the start.
    initializer: a serialised call to make at the start; empty for none.
    writer: where the output of workers goes.
    """

    tag: str
    env: Mapping[str, str]
    brisk: bool
    preload: tuple[str, ...]
    initializer: bytes
    writer: OutputWriter


class Lane:
    """A worker and the conversation with it; made by the spawner.

    Args:
        slot: the scheduler's record of the lane.
        config: what the pool's lanes have in common.

    Raises:
        OSError: the system is out of descriptors, processes or memory.
    """

    def __init__(self, slot: Slot, config: LaneConfig) -> None:
        self.slot = slot
        self.number = slot.number
        #: what the worker prints; None: it prints where the caller does
        self.output: LaneOutput | None = None
        self._stack = open_stack_file()
        # How many processes the kernel had killed for want of memory before this one; None: it doesn't tell.
        self._oom_kills = oom_kills()
        with contextlib.ExitStack() as undo:
            if self._stack is not None:
                undo.callback(self._stack.close_descriptor)
            self._page = ProgressPage()
            undo.callback(self._page.close_descriptor)
            if CAN_REDIRECT:
                self.output = LaneOutput(config.writer, self._page.words)
                undo.callback(self.output.close)
            self._sock, theirs = socket.socketpair()
            undo.callback(self._sock.close)
            with theirs:
                self._control, their_control = socket.socketpair()
                undo.callback(self._control.close)
                self._descriptors, their_descriptors = socket.socketpair()
                undo.callback(self._descriptors.close)
                with their_control, their_descriptors:
                    self._tokens = open_tokens()
                    undo.callback(self._tokens.close)
                    end = WorkerEnd(
                        HandedSocket(theirs),
                        HandedSocket(their_control),
                        HandedSocket(their_descriptors) if CAN_PASS else None,
                        self._page,
                        self._tokens,
                        None if self.output is None else _handed(self.output),
                        self._stack,
                        0 if any(name in config.env for name in _THREAD_VARIABLES) else slot.threads,
                        _log_levels(),
                        config.brisk,
                        {**restored_after_start(), **dict.fromkeys(allocator_variables(config.env))},
                        config.preload,
                        config.initializer,
                    )
                    tag = f"{config.tag}{slot.number};"
                    self.worker = WorkerProcess(end, _environment(tag, slot.threads, config.env), tag)
            undo.pop_all()
        #: the worker's process id
        self.pid = self.worker.pid
        self._page.close_descriptor()
        if self.output is not None:
            self.output.close_theirs()
        if self._stack is not None:
            self._stack.close_descriptor()
        self._sock.setblocking(False)
        self._control.setblocking(False)
        self._descriptors.setblocking(False)
        # The numbers of the shared objects that the worker has; the data of jobs that it has, by number.
        self._shares: set[int] = set()
        # Descriptors sent since the worker last told that it has taken in what was sent.
        self._passed = 0
        self._lent: dict[int, list[Shipment]] = {}
        self._words = self._page.words
        self._reader = FrameReader(self._sock)
        # Frames, or what is left of the first one, that the channel has not taken yet.
        self._outbox: deque[memoryview | bytes] = deque()
        # Jobs in the outbox that have no token yet.
        self._new_jobs = 0
        # Set when the job that is being interrupted has answered, or the worker is dead.
        self._answered = threading.Event()
        #: whether something else than frames came over the channel
        self.distrusted = False
        #: whether this process had no memory for what came
        self.short_of_memory = False
        #: set when the worker is dead and all that it sent was taken in
        self.taken_in = threading.Event()
        self._retired = False
        self._closed = False
        #: the thread that listens to the channel instead of the dispatcher; set and taken away under the pool's lock
        self.attendant: Attendant | None = None

    # --- under the pool's lock ---

    def queue(self, kind: Kind, seq: int, body: bytes, flags: int) -> None:
        """Queue a job for sending; `flush` follows."""
        self._new_jobs += 1
        if len(body) < _JOIN_BYTES:
            self._outbox.append(pack_frame(kind, seq, body, flags))
        else:
            # Not copied behind its header.
            self._outbox += (pack_header(kind, seq, len(body), flags), body)

    def ship(self, shipment: Shipment | None, shared: Sequence[Shared[Any]]) -> None:
        """Send the descriptors of the large data of a job that is queued next, and the shared objects that it needs."""
        for share in shared:
            if share.number not in self._shares:
                self._shares.add(share.number)
                if share.descriptor is None or self._passed >= _MOST_PASSED:
                    self._outbox.append(pack_frame(Kind.SHARE, share.number, share.inline, PARTS))
                else:
                    self._pass_on(share.descriptor, share.number)
                    self._outbox.append(pack_frame(Kind.SHARE, share.number, share.body, SEGMENT))
        if shipment is not None and shipment.segment is not None:
            shipment.lend()
            self._lent.setdefault(shipment.segment.number, []).append(shipment)
            self._pass_on(shipment.segment.fd, shipment.segment.number)

    def _pass_on(self, fd: int, number: int) -> None:
        self._passed += 1
        try:
            send_descriptor(self._descriptors, fd, number)
        except OSError:
            # Dead, or out of what it takes: what it has not claimed goes to another.
            self.worker.kill()

    def forget(self, number: int) -> None:
        """Tell the worker that a shared object is wanted no more."""
        if number in self._shares:
            self._shares.discard(number)
            self._outbox.append(pack_frame(Kind.FORGET, number))

    def return_segments(self, returned: Sequence[tuple[int, bool]]) -> None:
        """Tell the worker that results of its are not used any more."""
        self._outbox.append(pack_frame(Kind.GONE, 0, pack_gone(returned)))

    def come_back(self, number: int, reusable: bool) -> None:
        """The worker has the data of a job no more.

        Raises:
            KeyError: it never had them.
        """
        shipments = self._lent[number]
        shipments.pop().come_back(reusable)
        if not shipments:
            del self._lent[number]

    def receive_descriptor(self) -> tuple[int, int, int]:
        """The descriptor that the worker sent before a frame, its number, and the size of what it stands for.

        Raises:
            SegmentError: this process has no descriptor left for it.
            OSError, EOFError: there is none.
        """
        fd, number = receive_descriptor(self._descriptors)
        return fd, number, os.fstat(fd).st_size

    def flush(self) -> bool:
        """Send what the channel takes; whether that was all."""
        outbox = self._outbox
        if self._new_jobs:
            # Tokens first: a job that arrives without one is taken for revoked.
            self._tokens.give(self._new_jobs)
            self._new_jobs = 0
        try:
            while outbox:
                if len(outbox) == 1 or not hasattr(self._sock, "sendmsg"):
                    sent = self._sock.send(outbox[0])
                else:
                    sent = self._sock.sendmsg([outbox[index] for index in range(min(_BATCH, len(outbox)))])
                while sent and outbox:
                    first = outbox[0]
                    if sent < len(first):
                        outbox[0] = memoryview(first)[sent:]
                        break
                    sent -= len(first)
                    outbox.popleft()
        except BlockingIOError:
            return False
        except OSError:
            # The worker is gone, or the job closed its end: the worker's death tells the rest.
            outbox.clear()
        return True

    def retire(self) -> None:
        """Tell the worker to leave."""
        self._retired = True
        self._outbox.append(pack_frame(Kind.EXIT, 0))

    def revoke(self) -> int:
        """Take back the tokens that the worker has not taken; the number of them."""
        return 0 if self._closed else self._tokens.take_up_to(len(self.slot.inflight))

    def unload(self) -> None:
        """The worker is dead, and so is all that it started: it has no data any more."""
        lent, self._lent = self._lent, {}
        for shipments in lent.values():
            for shipment in shipments:
                shipment.come_back(True)

    # --- what the worker says in its page; any thread, any time ---

    def claimed(self) -> int:
        """The number of the job claimed last; 0: none yet."""
        return int(self._words[ProgressPage.TAKEN])

    def started(self) -> int:
        """The number of the job whose function started last; 0: none yet."""
        return int(self._words[ProgressPage.STARTED])

    def claimed_at(self) -> float:
        """Monotonic seconds at which the job claimed last was claimed."""
        return float(self._words[ProgressPage.TAKEN_NS]) / 1e9

    def started_at(self) -> float:
        """Monotonic seconds at which the function started last."""
        return float(self._words[ProgressPage.STARTED_NS]) / 1e9

    def left_bytes(self) -> int:
        """What jobs before have left of memory in the worker when the job claimed last was claimed."""
        return int(self._words[ProgressPage.LEFT_BYTES])

    def item(self) -> int | None:
        """The item in work of the chunk claimed last, counted from 0; None: none."""
        number = int(self._words[ProgressPage.ITEM])
        return number - 1 if number else None

    def item_at(self) -> float:
        """Monotonic seconds at which that item was begun."""
        return float(self._words[ProgressPage.ITEM_NS]) / 1e9

    def fileno(self) -> int:
        """The channel's descriptor."""
        return self._sock.fileno()

    def receive(self) -> list[Frame]:
        """The frames that have arrived; never waits."""
        if self._reader.eof:
            return []
        try:
            return self._reader.read()
        except BlockingIOError:
            return []
        except OSError:
            self._reader.eof = True
        except MemoryError:
            self.short_of_memory = True
            self.distrust()
        except ProtocolError:
            self.distrust()
        return []

    def distrust(self) -> None:
        """The job has written into the channel: nothing that comes is believed any more, and the worker is killed."""
        self.distrusted = True
        self._reader.eof = True
        self.worker.kill()

    @property
    def eof(self) -> bool:
        """Whether the worker's end of the channel is closed; it is not necessarily dead, nor is it open if it is."""
        return self._reader.eof

    def drain(self) -> list[Frame]:
        """All that a worker which is dead has sent."""
        frames: list[Frame] = []
        while not self._reader.eof:
            try:
                frames += self._reader.read()
            except OSError:  # nothing more, though a process that it forked may hold the channel open
                break
            except MemoryError:
                self.short_of_memory = True
                self.distrust()
            except ProtocolError:
                self.distrust()
        return frames

    def idle(self) -> None:
        """The worker has answered for all jobs that it was sent."""
        self._passed = 0

    def answered(self) -> None:
        """The worker has spoken, or is dead: whoever gives it grace need not wait on."""
        self._answered.set()

    # --- ending; a thread of its own ---

    def end(self, interrupt: int, grace: float) -> bool:
        """End the worker and all that it started.

        Args:
            interrupt: the number of the job to interrupt first; 0: none.
            grace: seconds that the job has after the interrupt.

        Returns:
            Whether none is alive; False if the kernel took too long, in which case `await_death` waits on.
        """
        if interrupt and self._stack is not None:
            self.worker.write_stack(self._stack.length)
        if interrupt and grace:
            self._answered.clear()
            with contextlib.suppress(OSError):
                self._control.send(_SEQ.pack(interrupt))
                # The interrupt is a signal; the number says whom it is for.
                self.worker.send_signal(signal.SIGINT)
                self._answered.wait(grace)
        elif self._retired:
            self.worker.wait(_LEAVE_S)
        return self.worker.end_tree(_KERNEL_S)

    def await_death(self) -> None:
        """Wait for processes that the kernel is slow to end, as long as it takes."""
        while not self.worker.end_tree(60.0):
            pass

    def death(self) -> Death:
        """How the worker, which is dead, ended, and what is known of the job that it had claimed last."""
        code, number = self.worker.exit_status()
        usage = self.worker.usage()
        words = self._words
        peak = self.worker.peak_when_ended
        if not peak and usage.peak_bytes > words[ProgressPage.FLOOR_BYTES]:
            peak = usage.peak_bytes
        kills = oom_kills() if number == _KILL else None
        return Death(
            pid=self.pid,
            exit_code=code,
            exit_signal=number,
            cpu_s=max(0.0, usage.cpu_s - words[ProgressPage.CPU_NS] / 1e9),
            # If nothing else is known: what the worker had before the job.
            peak_bytes=max(0, (peak or int(words[ProgressPage.REST_BYTES])) - self.left_bytes()),
            rest_bytes=int(words[ProgressPage.REST_BYTES]),
            stack=None if self._stack is None else clean_stack(self._stack.read()),
            oom_kills=None if kills is None or self._oom_kills is None else kills - self._oom_kills,
            distrusted=self.distrusted,
            short_of_memory=self.short_of_memory,
        )

    def reap(self) -> None:
        """See that the dead worker is no zombie any more."""
        self.worker.reap()

    def close(self) -> None:
        """Release everything; the worker is dead, and all that it sent was taken in."""
        self._closed = True
        self._tokens.close()
        self._control.close()
        self._descriptors.close()
        self._sock.close()
        if self.output is not None:
            self.output.close()
        self.worker.close()

    def forsake(self) -> None:
        """In a fork of the caller: let go of the channel, which is not this process's."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._sock.close()
            self._control.close()
            self._descriptors.close()
            self._tokens.close()
            if self.output is not None:
                self.output.close()


def _handed(output: LaneOutput) -> tuple[HandedDescriptor, HandedDescriptor]:
    out, err = output.theirs
    return HandedDescriptor(out), HandedDescriptor(err)


def _log_levels() -> dict[str, int]:
    """The levels of the caller's loggers by name, that of the root logger under the empty name."""
    root = logging.getLogger()
    levels = {"": root.level}
    for name, logger in list(root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[name] = logger.level
    return levels


def _environment(tag: str, threads: int, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that a worker is started with, on top of the caller's."""
    return {
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        **env,
        **allocator_variables(env),
        **start_variables(),
        LANE_VARIABLE: tag,
    }
