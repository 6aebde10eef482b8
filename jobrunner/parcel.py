"""A pickle whose large buffers stand apart, and how it lies in the body of a frame or in shared memory.

::

    frame, flag PARTS:     [number][lengths …][part][part] …      all in the body
    frame, flag SEGMENT:   [number][lengths …]                    the parts lie in a segment, as `segments.layout` says

The parts are a head, which has the pickle, and the buffers (PEP 574).  What is small travels as a head alone, without
either flag.
"""

from __future__ import annotations

import dataclasses
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jobrunner.segments import layout

__all__ = ["APART_BYTES", "Parcel", "apart", "pack_parts", "pack_table", "split", "unpack_parts", "unpack_table"]

#: A buffer, or a pickle, of so many bytes stands apart: below that a copy through the channel is no slower.
APART_BYTES = 1 << 17

_NUMBER = struct.Struct("<Q")
# No call has more buffers: what claims to is no parcel.
_MOST_PARTS = 1 << 20


@dataclasses.dataclass(slots=True)
class Parcel:
    """A pickle and its buffers.

    payload: the pickle.
    buffers: what it asks for, in order.
    """

    payload: bytes | memoryview
    buffers: Sequence[memoryview]

    @property
    def nbytes(self) -> int:
        """The size of all, in bytes."""
        return len(self.payload) + sum(buffer.nbytes for buffer in self.buffers)

    def loads(self) -> Any:
        """What was pickled; writing to it changes the buffers."""
        return pickle.loads(self.payload, buffers=apart(self.buffers))  # noqa: S301 (its owner knows where it is from)

    def __reduce_ex__(self, protocol: Any) -> tuple[Callable[..., Parcel], tuple[Any, ...]]:
        # Its buffers stand apart again where that can be; otherwise copies that are as writable.
        kept: list[Any] = list(apart(self.buffers))
        if protocol < 5:
            kept = [bytes(buffer) if buffer.readonly else bytearray(buffer) for buffer in self.buffers]
        return _rebuild, (bytes(self.payload), kept)


def apart(buffers: Sequence[memoryview]) -> Iterator[pickle.PickleBuffer]:
    """Buffers for the unpickler, each by itself: a class that asks a slice whose memory it is would get the whole."""
    return map(pickle.PickleBuffer, buffers)


def _rebuild(payload: bytes, buffers: Sequence[bytes | bytearray | pickle.PickleBuffer]) -> Parcel:
    return Parcel(payload, [memoryview(buffer).cast("B") for buffer in buffers])


def pack_table(parts: Sequence[bytes | memoryview]) -> bytes:
    """The number of parts and their lengths.

    Example:
        >>> unpack_table(pack_table([b"head", b""]))
        ([4, 0], 24)
    """
    return struct.pack(f"<{len(parts) + 1}Q", len(parts), *map(_length, parts))


def _length(part: bytes | memoryview) -> int:
    return part.nbytes if isinstance(part, memoryview) else len(part)


def pack_parts(parts: Sequence[bytes | memoryview]) -> bytes:
    """The table and the parts in one, a copy.

    Example:
        >>> [bytes(part) for part in unpack_parts(pack_parts([b"head", b"buffer"]))]
        [b'head', b'buffer']
    """
    table = pack_table(parts)
    offsets, length = layout([len(table), *map(_length, parts)])
    body = bytearray(length)
    for part, offset in zip([table, *parts], offsets, strict=True):
        body[offset : offset + _length(part)] = part
    return bytes(body)


def unpack_table(body: bytes | bytearray | memoryview) -> tuple[list[int], int]:
    """The lengths of the parts, and the length of the table.

    Raises:
        ValueError: it is no table.
    """
    try:
        (count,) = _NUMBER.unpack_from(body)
        if count > _MOST_PARTS:
            raise ValueError(f"{count} parts")
        return list(struct.unpack_from(f"<{count}Q", body, _NUMBER.size)), (count + 1) * _NUMBER.size
    except struct.error as error:
        raise ValueError(f"no table of parts: {error}") from None


def split(memory: memoryview, lengths: Sequence[int]) -> list[memoryview]:
    """The parts that lie in `memory` by `segments.layout`.

    Raises:
        ValueError: it is too short for them.
    """
    offsets, end = layout(lengths)
    if end > memory.nbytes:
        raise ValueError(f"parts of {end} bytes in {memory.nbytes}")
    return [memory[offset : offset + length] for offset, length in zip(offsets, lengths, strict=True)]


def unpack_parts(body: bytes | bytearray) -> list[memoryview]:
    """The parts in a body that `pack_parts` made, to be written to, which changes no other's.

    Raises:
        ValueError: it is no such body.
    """
    lengths, size = unpack_table(body)
    return split(memoryview(body if isinstance(body, bytearray) else bytearray(body)), [size, *lengths])[1:]
