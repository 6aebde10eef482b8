"""A lane: one worker, and the private conversation with it.

::

    caller                                     worker
    outbox ──▶ socket pair (jobs, outcomes) ◀──▶ serve()
    control ─▶ socket pair (number of the job to interrupt), then SIGINT
    page   ◀── shared memory: which job was claimed, started, and when
    tokens ◀─▶ a shared counter: who takes a job's token decides whether it is run or revoked

The lane's owner is its pool: `send`, `flush`, `revoke` are called under the pool's lock; `receive` by the dispatcher
only; `end` by one thread of its own, once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import struct
import threading
from collections import deque
from collections.abc import Mapping

from jobrunner.executors.records import Slot
from jobrunner.executors.safe_start import restored_after_start, start_variables
from jobrunner.executors.worker_process import ExitStatus, WorkerProcess
from jobrunner.handover import HandedSocket, ProgressPage, open_tokens
from jobrunner.messages import Frame, FrameReader, Kind, ProtocolError, pack_frame, pack_header
from jobrunner.processes import LANE_VARIABLE
from jobrunner.worker.process import WorkerEnd

__all__ = ["Lane", "LaneConfig"]

_SEQ = struct.Struct("<Q")
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
# How long the kernel may take to end a process, before a cancel gives up waiting.
_KERNEL_S = 5.0


@dataclasses.dataclass(frozen=True)
class LaneConfig:
    """What all lanes of a pool have in common.

    tag: what their tags begin with; the lane's number and a semicolon follow, so that no tag begins another.
    env: variables that the user wants set.
    preload: modules to import at the start.
    initializer: a serialised call to make at the start; empty for none.
    """

    tag: str
    env: Mapping[str, str]
    preload: tuple[str, ...]
    initializer: bytes


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
        with contextlib.ExitStack() as undo:
            self._sock, theirs = socket.socketpair()
            undo.callback(self._sock.close)
            with theirs:
                self._control, their_control = socket.socketpair()
                undo.callback(self._control.close)
                with their_control:
                    self._page = ProgressPage()
                    undo.callback(self._page.close_descriptor)
                    self._tokens = open_tokens()
                    undo.callback(self._tokens.close)
                    end = WorkerEnd(
                        HandedSocket(theirs),
                        HandedSocket(their_control),
                        self._page,
                        self._tokens,
                        restored_after_start(),
                        config.preload,
                        config.initializer,
                    )
                    tag = f"{config.tag}{slot.number};"
                    self.worker = WorkerProcess(end, _environment(tag, slot.threads, config.env), tag)
            undo.pop_all()
        self._page.close_descriptor()
        self._sock.setblocking(False)
        self._control.setblocking(False)
        self._words = self._page.words
        self._reader = FrameReader(self._sock)
        # Frames, or what is left of the first one, that the channel has not taken yet.
        self._outbox: deque[memoryview | bytes] = deque()
        # Jobs in the outbox that have no token yet.
        self._new_jobs = 0
        #: pickled exception of a worker that could not start
        self.start_error: bytes | None = None
        # Set when the job that is being interrupted has answered, or the worker is dead.
        self._answered = threading.Event()
        #: whether something else than frames came over the channel
        self.distrusted = False
        #: set when the worker is dead and all that it sent was taken in
        self.taken_in = threading.Event()
        self._retired = False
        self._closed = False

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.worker.pid

    # --- under the pool's lock ---

    def queue(self, kind: Kind, seq: int, body: bytes) -> None:
        """Queue a job for sending; `flush` follows."""
        self._new_jobs += 1
        if len(body) < _JOIN_BYTES:
            self._outbox.append(pack_frame(kind, seq, body))
        else:
            # Not copied behind its header.
            self._outbox += (pack_header(kind, seq, len(body)), body)

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

    def item(self) -> int | None:
        """The item in work of the chunk claimed last, counted from 0; None: none."""
        number = int(self._words[ProgressPage.ITEM])
        return number - 1 if number else None

    def item_at(self) -> float:
        """Monotonic seconds at which that item was begun."""
        return float(self._words[ProgressPage.ITEM_NS]) / 1e9

    # --- the dispatcher's ---

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
        except (ProtocolError, MemoryError):
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
            except (ProtocolError, MemoryError):
                self.distrust()
        return frames

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
        if interrupt and grace and hasattr(os, "setsid"):
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

    def exit_status(self) -> ExitStatus:
        """How the worker ended."""
        return self.worker.exit_status()

    def reap(self) -> None:
        """See that the dead worker is no zombie any more."""
        self.worker.reap()

    def close(self) -> None:
        """Release everything; the worker is dead, and all that it sent was taken in."""
        self._closed = True
        self._tokens.close()
        self._control.close()
        self._sock.close()
        self.worker.close()

    def forsake(self) -> None:
        """In a fork of the caller: let go of the channel, which is not this process's."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._sock.close()
            self._control.close()
            self._tokens.close()


def _environment(tag: str, threads: int, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that a worker is started with, on top of the caller's."""
    return {
        **dict.fromkeys(_THREAD_VARIABLES, str(threads)),
        **env,
        **start_variables(),
        LANE_VARIABLE: tag,
    }
