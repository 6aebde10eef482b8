"""The frames on a channel between a caller and a worker.

::

    caller ──▶ worker                          worker ──▶ caller
    JOB    seq  a call to run                  READY    0    the worker serves; body: facts, as JSON
    CHUNK  seq  many items of one function     DONE     seq  the function returned
    EXIT   0    leave when idle                RAISED   seq  it raised, or could not cross
    SHARE  id   an object for jobs to come     PARTIAL  seq  items of a chunk that are done so far
    FORGET id   it is wanted no more           DROPPED  seq  a job that was revoked before it was claimed
                                               NOTE     seq  a warning or log record of the job; body: JSON
                                               PRINTED  seq  how far what was printed goes; its outcome follows
    GONE   0    numbers of segments that are not used any more, both ways
                                               FAILED   0    the worker can't start; body: pickled exception

A frame is a header (a mark, kind, flags, sequence number of the job, length of the body) and the body.  A stream socket
keeps frames in order, and a reader takes them as they come, whole or in pieces.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "HEADER",
    "LEAVING",
    "LEVEL_SHIFT",
    "MEASURES",
    "PARTS",
    "RELAY",
    "SEGMENT",
    "UNKNOWN_END",
    "Frame",
    "FrameReader",
    "Kind",
    "Measures",
    "ProtocolError",
    "pack_call",
    "pack_failure",
    "pack_frame",
    "pack_gone",
    "pack_header",
    "pack_outcome",
    "pack_printed",
    "unpack_call",
    "unpack_failure",
    "unpack_gone",
    "unpack_outcome",
    "unpack_printed",
]

HEADER = struct.Struct("<IBBQQ")
# Begins every header: what a job writes into its descriptors by mistake is known for what it is.
_MAGIC = 0x4A524C31
_LONGEST_BODY = 1 << 40
#: How the `Measures` stand before the data of an outcome.
MEASURES = struct.Struct("<QQQQQQ")
_COUNT = struct.Struct("<I")
_LENGTH = struct.Struct("<Q")
_GONE = struct.Struct("<Q?")
_ENDS = struct.Struct("<QQ")

#: Of a stream, in a PRINTED: it goes as far as there is something to read.
UNKNOWN_END = (1 << 64) - 1

#: Flag of an outcome: the worker takes no further job, because this one left children or threads behind.
LEAVING = 1
#: Flag of a job: its warnings and log records are to be sent.  Above it stands a tenth of the caller's root log level.
RELAY = 1
LEVEL_SHIFT = 1
#: Flags of a job, an outcome or a share: its body is, or an outcome's ends in, the table of a parcel's parts, which lie
#: in a segment whose descriptor was sent before; or the parts follow in the body.  See `jobrunner.parcel`.
SEGMENT = 16
PARTS = 32

# A frame whose body is longer than this is received into a buffer of its own.
_BUFFER_BYTES = 1 << 16


class Kind(enum.IntEnum):
    """What a frame says."""

    JOB = 1
    CHUNK = 2
    EXIT = 3
    SHARE = 4
    FORGET = 5
    GONE = 6
    READY = 16
    DONE = 17
    RAISED = 18
    PARTIAL = 19
    DROPPED = 20
    FAILED = 21
    NOTE = 22
    PRINTED = 23


#: (kind, flags, seq, body)
Frame = tuple[int, int, int, bytes | bytearray]


def pack_frame(kind: int, seq: int, body: bytes | bytearray = b"", flags: int = 0) -> bytes:
    """A frame as bytes.

    Example:
        >>> len(pack_frame(Kind.EXIT, 0)) == HEADER.size
        True
    """
    return HEADER.pack(_MAGIC, kind, flags, seq, len(body)) + body


def pack_header(kind: int, seq: int, length: int, flags: int = 0) -> bytes:
    """The header of a frame whose body of `length` bytes follows by itself."""
    return HEADER.pack(_MAGIC, kind, flags, seq, length)


def pack_call(payload: bytes, handles: Sequence[bytes]) -> bytes:
    """The body of a JOB or CHUNK: the number of handles, each with its length, then the pickled call."""
    if not handles:
        return _COUNT.pack(0) + payload
    parts = [_COUNT.pack(len(handles))]
    for handle in handles:
        parts += (_LENGTH.pack(len(handle)), handle)
    return b"".join([*parts, payload])


def unpack_call(body: bytes | bytearray | memoryview) -> tuple[memoryview, list[bytes]]:
    """The pickled call and the handles of a JOB's body."""
    view = memoryview(body)
    (count,) = _COUNT.unpack_from(view)
    offset = _COUNT.size
    handles = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(view, offset)
        offset += _LENGTH.size
        handles.append(bytes(view[offset : offset + length]))
        offset += length
    return view[offset:], handles


class Measures(NamedTuple):
    """What a worker has measured of a job: its `time.monotonic_ns`, its CPU time, its memory; 0 where not known.

    rest_bytes is the worker's resident memory after the job.
    """

    taken_ns: int
    started_ns: int
    finished_ns: int
    cpu_ns: int
    peak_bytes: int
    rest_bytes: int


def pack_outcome(
    taken_ns: int, started_ns: int, finished_ns: int, cpu_ns: int, peak_bytes: int, rest_bytes: int, data: bytes
) -> bytes:
    """The body of a DONE or RAISED: what `Measures` holds, and the data."""
    return MEASURES.pack(taken_ns, started_ns, finished_ns, cpu_ns, peak_bytes, rest_bytes) + data


def unpack_outcome(body: bytes | bytearray) -> tuple[Measures, bytes]:
    """The measures and the data of an outcome's body."""
    return Measures(*MEASURES.unpack_from(body)), bytes(memoryview(body)[MEASURES.size :])


def pack_failure(told: str, data: bytes) -> bytes:
    """The data of a RAISED: the exception in words, and pickled."""
    words = told.encode(errors="replace")
    return _COUNT.pack(len(words)) + words + data


def unpack_failure(data: bytes) -> tuple[str, bytes]:
    """The words and the pickled exception of a RAISED's data."""
    (length,) = _COUNT.unpack_from(data)
    end = _COUNT.size + length
    return data[_COUNT.size : end].decode(errors="replace"), data[end:]


def pack_gone(gone: Sequence[tuple[int, bool]]) -> bytes:
    """The body of a GONE: the number of each segment, and whether its memory may be used again."""
    return b"".join(_GONE.pack(number, reusable) for number, reusable in gone)


def unpack_gone(body: bytes | bytearray) -> list[tuple[int, bool]]:
    """What a GONE says.

    Raises:
        struct.error: it is none.
    """
    return list(_GONE.iter_unpack(body))


def pack_printed(ends: tuple[int, int]) -> bytes:
    """The body of a PRINTED: how many bytes of stdout and stderr had been printed at the end of the job, since ever."""
    return _ENDS.pack(*ends)


def unpack_printed(body: bytes | bytearray) -> tuple[int, int]:
    """What a PRINTED says."""
    out, err = _ENDS.unpack(body)
    return out, err


class ProtocolError(Exception):
    """Something else than frames came over a channel."""


class FrameReader:
    """Takes frames off a stream socket, as they come.

    One owner; not thread-safe.  `read` makes at most one receive call, so on a non-blocking socket it never waits.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = 0  # first byte not yet parsed
        self._end = 0  # first byte not yet received
        # A large frame on its way: its header and the buffer that its body goes to, filled up to _large_filled.
        self._large: tuple[int, int, int] | None = None
        self._large_body = bytearray()
        self._large_filled = 0
        #: whether the other end has closed
        self.eof = False

    def read(self) -> list[Frame]:
        """Receive once, and return the frames that are complete now.

        Raises:
            BlockingIOError: a non-blocking socket has nothing.
            OSError: the channel is broken.
            ProtocolError: something else than frames has come; nothing after it can be understood.
        """
        if self._large is not None:
            return self._read_large()
        if self._end == len(self._buffer):
            self._compact()
        received = self._sock.recv_into(self._view[self._end :])
        if received == 0:
            self.eof = True
            return []
        self._end += received
        return self._parse()

    def _compact(self) -> None:
        rest = bytes(self._view[self._start : self._end])
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _parse(self) -> list[Frame]:
        frames: list[Frame] = []
        start, end, buffer = self._start, self._end, self._buffer
        size = HEADER.size
        while end - start >= size:
            magic, kind, flags, seq, length = HEADER.unpack_from(buffer, start)
            if magic != _MAGIC or length > _LONGEST_BODY:
                raise ProtocolError("what arrived on the channel is no frame")
            body_start = start + size
            if end - body_start >= length:
                start = body_start + length
                frames.append((kind, flags, seq, bytes(self._view[body_start:start])))
                continue
            if length > _BUFFER_BYTES - size:
                self._large = (kind, flags, seq)
                self._large_body = bytearray(length)
                self._large_filled = end - body_start
                self._large_body[: self._large_filled] = self._view[body_start:end]
                start = end
            break
        if start == end:
            start = end = 0
        self._start, self._end = start, end
        return frames

    def _read_large(self) -> list[Frame]:
        assert self._large is not None
        received = self._sock.recv_into(memoryview(self._large_body)[self._large_filled :])
        if received == 0:
            self.eof = True
            return []
        self._large_filled += received
        if self._large_filled < len(self._large_body):
            return []
        kind, flags, seq = self._large
        body, self._large, self._large_body = self._large_body, None, bytearray()
        return [(kind, flags, seq, body)]
