"""The caller's end of the way of large data: a job's arguments in shared memory, and results that came in such.

A job's memory is its own until the job is over, for it may be sent again; and a worker's that has it until the worker
says that nothing there refers to it any more, or is dead.  Then it is used again for another job's.

All is done under the pool's lock, but for `Freight.load`, which copies, and is called before a job is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from jobrunner.errors import SerializationError
from jobrunner.executors.services import services
from jobrunner.memory import machine_memory
from jobrunner.messages import PARTS, SEGMENT, pack_call
from jobrunner.parcel import APART_BYTES, Parcel, pack_parts, pack_table, split, unpack_parts, unpack_table
from jobrunner.received import SegmentError, open_received
from jobrunner.segments import Arena
from jobrunner.serialization import Call

if TYPE_CHECKING:
    from jobrunner.executors.lane import Lane

__all__ = ["Freight", "Returned", "Shipment"]

# Free memory that is kept for being used again, and how many jobs' arguments may be in shared memory at a time: the
# others' wait in the process's own.
_KEEP_BYTES = 1 << 28
_KEEP_SHARE = 1 / 16
_MOST_OPEN = 128
# To release more takes so long that another thread does it.
_HEAVY_BYTES = 1 << 27
# The memory of results is given back to their worker with the next message, that of larger ones at once.
_PROMPT_BYTES = 1 << 25
# Of results, so many may have their memory from workers at a time, each with a descriptor; others are copied.
_MOST_RECEIVED = 256

#: (number of the lane, number of the segment, whether its memory may be used again)
Returned = tuple[int, int, bool]


class Shipment:
    """A job's large data.

    Attributes:
        nbytes: their size.
        segment: the shared memory in which they lie; None where there was none to be had.
    """

    __slots__ = ("_arena", "_copies", "_holders", "_reusable", "_table", "_wanted", "_whole", "nbytes", "segment")

    def __init__(self, arena: Arena, parts: Sequence[bytes | memoryview], whole: bool) -> None:
        self._arena = arena
        # Whether the call's head is the first of the parts.
        self._whole = whole
        self._table = pack_table(parts)
        self.segment = arena.pack(parts)
        self._copies = [] if self.segment is not None else [memoryview(bytes(part)) for part in parts]
        self.nbytes = len(parts) and sum(memoryview(part).nbytes for part in parts)
        # How many workers have it; whether the job may still be sent.
        self._holders = 0
        self._wanted = True
        self._reusable = True

    def wrap(self, head: bytes) -> tuple[int, bytes]:
        """The flags and the body of the job's frame; `head` is the call without what is here."""
        if self.segment is not None:
            return SEGMENT, self._table if self._whole else self._table + head
        copies, self._copies = self._copies, []
        return PARTS, pack_parts(copies if self._whole else [head, *copies])

    def lend(self) -> None:
        """A worker gets it."""
        self._holders += 1

    def come_back(self, reusable: bool) -> None:
        """A worker has it no more."""
        self._holders -= 1
        self._reusable = self._reusable and reusable
        self._settle()

    def arrive(self) -> None:
        """The job is over, or is not to be."""
        self._wanted = False
        self._settle()

    def _settle(self) -> None:
        if self._wanted or self._holders or self.segment is None:
            return
        release = partial(self._arena.release, self.segment.number, reusable=self._reusable)
        if self.segment.capacity > _HEAVY_BYTES:
            services().callbacks.run(release)
        else:
            release()


class Freight:
    """The shared memory of one pool's jobs."""

    def __init__(self) -> None:
        keep = min(_KEEP_BYTES, int(_KEEP_SHARE * machine_memory()))
        self._arena = Arena(keep_bytes=keep, most_open=_MOST_OPEN)
        #: numbers of shared objects whose handles are gone; appended to from anywhere
        self.forgotten: deque[int] = deque()
        #: segments of workers' that nothing here refers to any more; appended to from anywhere
        self.returned: deque[Returned] = deque()
        # How many results have been mapped, and how many of those were given back.
        self._received = 0
        self._given_back = 0

    def load(self, call: Call) -> Shipment | None:
        """A call's large data, copied so that later changes of its arguments change nothing; None: it has none."""
        if call.dependencies or len(call.payload) < APART_BYTES:
            return Shipment(self._arena, call.buffers, False) if call.buffers else None
        return Shipment(self._arena, [pack_call(call.payload, ()), *call.buffers], True)

    def load_packed(self, body: bytes | memoryview, buffers: Sequence[memoryview]) -> Shipment | None:
        """The large data of a call whose frame's body is packed already; None: it has none."""
        if not buffers and len(body) < APART_BYTES:
            return None
        return Shipment(self._arena, [body, *buffers], True)

    def take_in(self, lane: Lane, flags: int, data: bytes, wake: Callable[[], None]) -> Parcel | SerializationError:
        """A result with large buffers.

        Args:
            lane: whose worker has sent it.
            flags: of its frame; PARTS, or SEGMENT: it lies in the worker's shared memory.
            data: what stands in the frame of it.
            wake: called when memory has gone that is to be given back without delay.

        Returns:
            The result; an error where this process has no room for it.

        Raises:
            SegmentError: not even the number of its memory has come, so that it can't be given back.
            ValueError: it is not what it should be.
        """
        if flags & PARTS:
            parts = unpack_parts(data)
            return Parcel(parts[0], parts[1:])
        lengths, _ = unpack_table(data)
        number = None
        try:
            fd, number, size = lane.receive_descriptor()
            on_gone = partial(self._note_returned, lane.number, number, wake if size >= _PROMPT_BYTES else None)
            memory = open_received(fd, size, writable=True, on_gone=on_gone)
        except SegmentError as error:
            number = error.number if number is None else number
            if number is None:
                raise
            self.returned.append((lane.number, number, True))
            return SerializationError(
                f"the result can't be taken in by the calling process: {error}. Results that are let go of make room."
            )
        self._received += 1
        parts = split(memory, lengths)
        if self._received - self._given_back > _MOST_RECEIVED:
            parts = [memoryview(bytearray(part)) for part in parts]
        return Parcel(parts[0], parts[1:])

    def _note_returned(self, lane: int, number: int, wake: Callable[[], None] | None, reusable: bool) -> None:
        """Nothing refers to a worker's segment any more; takes no lock."""
        self._given_back += 1
        self.returned.append((lane, number, reusable))
        if wake is not None:
            wake()

    def trim(self) -> None:
        """Give memory back that is not in use; on a thread that may take its time."""
        services().callbacks.run(self._arena.trim)

    def close(self) -> None:
        """Release everything; what was received stays."""
        self._arena.close()

    def forsake(self) -> None:
        """In a fork: the memory is the parent's."""
        self._arena.forsake()
