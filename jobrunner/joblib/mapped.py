"""Arrays in memory-mapped files among the tasks of a call: a task's process maps the file itself.

What travels is where the file is and how the array lies in it, whatever its size: no bytes are copied, and what a task
writes to a map that can be written to reaches the file, as with loky.  Each job maps it anew, so that by the file alone
one job's writes reach another.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
import sys
from collections.abc import Callable
from typing import Any, Literal

__all__ = ["Loose", "Mapped", "ReadOnly", "mapped_under"]


def mapped_under(array: Any) -> Any:
    """The `numpy.memmap` whose memory an array lies in, as made from its file; None: it lies in none.

    Example:
        >>> import numpy, tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     made = numpy.memmap(file.name, dtype="f8", mode="w+", shape=(4, 3))
        ...     mapped_under(made[1:, ::2]) is mapped_under(numpy.asarray(made)) is made
        True
    """
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    # A view of `as_strided` is one of something that is no array, which is one of the array.
    while array is not None:
        if isinstance(array, numpy.memmap) and isinstance(array.base, mmap.mmap):
            return array
        array = getattr(array, "base", None)
    return None


#: Names that mean another file in each process, or none.
_ONES_OWN = ("/proc/", "/dev/fd/")


@dataclasses.dataclass(frozen=True, slots=True)
class Mapped:
    """What arrives as an array that lies in a memory-mapped file: see `Mapped.of`.

    path: of the file.
    mode: ``"r"``, ``"r+"``, or ``"c"``: what is written is the job's alone.
    first_byte: where, in the file, the array's lowest byte lies.
    nbytes: from there to its highest.
    start: where, in these, its first element lies: above 0 where strides are negative.
    order: ``"C"`` or ``"F"``: it arrives as a `numpy.memmap`; None: as a plain array, as what doesn't lie in one piece.
    """

    path: str | bytes
    mode: Literal["r", "r+", "c"]
    first_byte: int
    nbytes: int
    start: int
    dtype: Any
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    order: Literal["C", "F"] | None

    @classmethod
    def of(cls, array: Any, under: Any) -> Mapped | None:
        """How a job is to map an array, not empty, that lies in the memory of the map `under`.

        Returns:
            None: there is no file of that name, or never was.
        """
        if under.filename is None or not os.path.exists(under.filename):
            return None
        if os.fsdecode(under.filename).startswith(_ONES_OWN):
            return None
        # Mapped as "w+", the file would be emptied.  What can't be written to here can't be there.
        mode: Any = ("r+" if under.mode == "w+" else under.mode) if array.flags.writeable else "r"
        in_one_piece = array.flags.forc and isinstance(array, type(under))
        reach = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
        start = -sum(step for step in reach if step < 0)
        first = _address(array) - start - _address(under) + under.offset
        return cls(
            path=os.fspath(under.filename),
            mode=mode,
            first_byte=int(first),
            nbytes=sum(map(abs, reach)) + array.itemsize,
            start=start,
            dtype=array.dtype,
            shape=array.shape,
            strides=array.strides,
            order=("C" if array.flags.c_contiguous else "F") if in_one_piece else None,
        )

    def open(self) -> Any:
        """The array, by a map of this process's own.

        Raises:
            OSError, ValueError: the file isn't there any more, or has become too short.
        """
        import numpy

        if self.order is not None:
            return numpy.memmap(self.path, self.dtype, self.mode, self.first_byte, self.shape, self.order)
        # The bytes that it lies among, and it in these.
        around = numpy.memmap(self.path, "u1", self.mode, self.first_byte, (self.nbytes,))
        return numpy.ndarray(self.shape, self.dtype, around, self.start, self.strides)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _open, tuple(getattr(self, field.name) for field in dataclasses.fields(self))


def _open(*fields: Any) -> Any:
    return Mapped(*fields).open()


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


@dataclasses.dataclass(frozen=True, slots=True)
class ReadOnly:
    """What arrives as an array that can't be written to."""

    array: Any

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _read_only, (self.array,)


@dataclasses.dataclass(frozen=True, slots=True)
class Loose:
    """What arrives as a copy of an array in a map that has no file name: read-only, as no write would reach the map."""

    array: Any

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        import numpy

        return _read_only, (numpy.array(self.array),)


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array
