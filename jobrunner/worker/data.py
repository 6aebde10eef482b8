"""A worker's end of the way of large data: what arrives in shared memory or leaves by it, and shared objects.

Descriptors come and go over a channel of their own, each before the frame that speaks of it.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from jobrunner.errors import SerializationError
from jobrunner.memory import resident_bytes
from jobrunner.messages import PARTS, SEGMENT, unpack_gone
from jobrunner.parcel import APART_BYTES, Parcel, pack_parts, pack_table, split, unpack_parts, unpack_table
from jobrunner.received import SegmentError, open_received, receive_descriptor
from jobrunner.segments import CAN_PASS, Arena, send_descriptor

__all__ = ["DataPort"]

# What a worker keeps of memory for results, to be used again, and how many results may be with the caller in such.
_KEEP_BYTES = 1 << 27
_MOST_OPEN = 64


class DataPort:
    """Where a worker's large data arrive and leave.

    Args:
        sock: the channel for descriptors; None where there is none.
        unpickled: told by how many bytes the process has grown when a shared object was unpickled.
    """

    def __init__(self, sock: socket.socket | None, unpickled: Callable[[int], None]) -> None:
        self._sock = sock
        self._unpickled = unpickled
        self._arena = Arena(keep_bytes=_KEEP_BYTES, most_open=_MOST_OPEN if sock is not None and CAN_PASS else 0)
        # Segments of the caller's that nothing here refers to any more; appended to from anywhere.
        self._gone: deque[tuple[int, bool]] = deque()
        # Shared objects by number: as they came, and unpickled once a job has asked for one.
        self._shares: dict[int, Parcel | SerializationError] = {}
        self._objects: dict[int, Any] = {}
        # How much shared memory each takes.
        self._sizes: dict[int, int] = {}

    # --- what arrives ---

    def open(self, flags: int, body: bytes | bytearray) -> list[memoryview]:
        """The parts of a parcel whose table, or all of which, is in `body`; the caller is told when they go.

        Raises:
            SegmentError: its memory can't be had.
            OSError, EOFError, ValueError: the caller has gone, or speaks nonsense.
        """
        if flags & PARTS:
            return unpack_parts(body)
        try:
            return self._map(body, writable=True)
        except SegmentError as error:
            if error.number is None:
                raise ValueError(str(error)) from error
            self._gone.append((error.number, True))
            raise

    def _map(self, body: bytes | bytearray, *, writable: bool) -> list[memoryview]:
        """The parts of a parcel that lie in a segment whose descriptor has been sent.

        Raises:
            SegmentError: its memory can't be had; without a number, nonsense came.
        """
        lengths, _ = unpack_table(body)
        assert self._sock is not None
        fd, number = receive_descriptor(self._sock)
        on_gone = partial(_note, self._gone, number) if writable else _ignore
        try:
            memory = open_received(fd, os.fstat(fd).st_size, writable=writable, on_gone=on_gone)
        except SegmentError as error:
            error.number = number
            raise
        return split(memory, lengths)

    def take_gone(self) -> list[tuple[int, bool]]:
        """The caller's segments that are not used any more, each told once."""
        gone = []
        while self._gone:
            gone.append(self._gone.popleft())
        return gone

    # --- what leaves ---

    def pack(self, data: bytes | Parcel) -> tuple[int, bytes]:
        """The flags and bytes by which a result leaves; its descriptor is on its way if it has one.

        Raises:
            OSError: the caller has gone.
        """
        if isinstance(data, bytes) and len(data) < APART_BYTES:
            return 0, data
        parts = [data] if isinstance(data, bytes) else [data.payload, *data.buffers]
        segment = self._arena.pack(parts)
        if segment is None:
            return (0, data) if isinstance(data, bytes) else (PARTS, pack_parts(parts))
        assert self._sock is not None
        send_descriptor(self._sock, segment.fd, segment.number)
        return SEGMENT, pack_table(parts)

    def release(self, body: bytes | bytearray) -> None:
        """The caller has no more use for results of ours."""
        for number, reusable in unpack_gone(body):
            self._arena.release(number, reusable=reusable)

    # --- shared objects ---

    def share(self, number: int, flags: int, body: bytes | bytearray) -> None:
        """Take a shared object in."""
        try:
            payload, *buffers = unpack_parts(body) if flags & PARTS else self._map(body, writable=False)
            parcel = self._shares[number] = Parcel(payload, [buffer.toreadonly() for buffer in buffers])
            self._sizes[number] = 0 if flags & PARTS else parcel.nbytes
        except SegmentError as error:
            self._shares[number] = SerializationError(f"a shared object can't be had in the worker: {error}")

    def forget(self, number: int) -> None:
        """Nobody will ask for a shared object any more."""
        for kept in (self._shares, self._objects, self._sizes):
            kept.pop(number, None)

    @property
    def shared_bytes(self) -> int:
        """How much shared memory the shared objects take."""
        return sum(self._sizes.values())

    @property
    def finder(self) -> Callable[[int], Any] | None:
        """Finds shared objects by number; None where there are none."""
        return self._find if self._shares or self._objects else None

    def _find(self, number: int) -> Any:
        if number in self._objects:
            return self._objects[number]
        share = self._shares[number]
        if isinstance(share, SerializationError):
            raise share
        before = resident_bytes([os.getpid()])
        found = self._objects[number] = share.loads()
        del self._shares[number]
        self._unpickled(max(0, resident_bytes([os.getpid()]) - before))
        return found


def _ignore(reusable: bool) -> None:
    """A shared object's memory is the caller's own business."""


def _note(gone: deque[tuple[int, bool]], number: int, reusable: bool) -> None:
    gone.append((number, reusable))
