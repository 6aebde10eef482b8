"""How a run's PUBs are cut into parts, and the parts' results put together again.

How a run is cut follows from its circuits and shapes alone, never from the number of workers: the seed of a part does
too, so that a seeded run gives the same for any number of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from qiskit.primitives.containers import BitArray, DataBin
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

__all__ = ["Cut", "Part", "Piece", "cut", "join", "take"]

#: A part is to take at least so many estimated seconds: a journey costs one or two milliseconds.
_LEAST_SECONDS = 0.05

#: Into about so many parts a long run is cut, so that none is left with much to do when the others are through.
_PARTS = 64


class Cut(NamedTuple):
    """A stretch of a PUB along one axis of its shape, or of its shots.

    Attributes:
        axis: the axis; None: the whole PUB.
        start: the first index that belongs to it.
        stop: the first that doesn't any more.
        shots: how many shots are the stretch's; None: all that the PUB has.
    """

    axis: int | None = None
    start: int = 0
    stop: int = 0
    shots: int | None = None


_WHOLE = Cut()


class Piece(NamedTuple):
    """What a part has of one PUB.

    Attributes:
        pub: the PUB's index.
        cut: which stretch of it.
    """

    pub: int
    cut: Cut


@dataclasses.dataclass
class Part:
    """What is run as one job.

    Attributes:
        pieces: of one PUB or of several, in order.
        seconds: the estimated time.
    """

    pieces: list[Piece]
    seconds: float


def cut(pubs: Sequence[Any], seconds: Sequence[float], *, split_shots: bool = False) -> list[Part]:
    """Cut a run into parts.

    PUBs that are short are put together; those that are long are cut along the longest axis of their parameter
    bindings, and, if that is wished and not enough, by shots.

    Args:
        pubs: ``SamplerPub``s or ``EstimatorPub``s.
        seconds: the estimated time of each.
        split_shots: whether the shots of a PUB may be cut too.
    """
    target = max(_LEAST_SECONDS, sum(seconds) / _PARTS)
    parts: list[Part] = []
    open_part = Part([], 0.0)
    for index, (pub, length) in enumerate(zip(pubs, seconds, strict=True)):
        number = max(1, round(length / target))
        cuts = [_WHOLE] if number == 1 else _cuts(pub, number, split_shots)
        if len(cuts) > 1:
            parts += [Part([Piece(index, one)], length / len(cuts)) for one in cuts]
            continue
        if open_part.pieces and open_part.seconds + length > target:
            parts.append(open_part)
            open_part = Part([], 0.0)
        open_part.pieces.append(Piece(index, _WHOLE))
        open_part.seconds += length
    # A run without PUBs has a part, too: it gives the metadata of the result.
    if open_part.pieces or not parts:
        parts.append(open_part)
    return parts


def _cuts(pub: Any, number: int, split_shots: bool) -> list[Cut]:
    axis = _axis(pub)
    length = 1 if axis is None else pub.shape[axis]
    cuts = [Cut(axis, start, stop) for start, stop in _stretches(length, number)] if length > 1 else [_WHOLE]
    shots = getattr(pub, "shots", None)
    if not split_shots or not shots or len(cuts) >= number:
        return cuts
    portions = [stop - start for start, stop in _stretches(shots, math.ceil(number / len(cuts)))]
    return [one._replace(shots=portion) for one in cuts for portion in portions]


def _stretches(length: int, number: int) -> list[tuple[int, int]]:
    """`length` things as `number` stretches, or as many as there are things, whose lengths differ by one at most."""
    edges = np.linspace(0, length, min(length, number) + 1).round().astype(int).tolist()
    return list(itertools.pairwise(edges))


def _axis(pub: Any) -> int | None:
    """The axis of a PUB's shape along which it can be cut; None: it can't.

    Circuits with different values are simulated one by one in any case; the observables of one circuit may be measured
    together, and stay together unless there is nothing else to cut.
    """
    shape = pub.shape
    own = pub.parameter_values.shape
    own = (1,) * (len(shape) - len(own)) + tuple(own)
    for lengths in (own, shape):
        if lengths and max(lengths) > 1:
            return int(np.argmax(lengths))
    return None


def take(pub: Any, one: Cut) -> Any:
    """The stretch of a PUB, as a PUB."""
    if one is _WHOLE:
        return pub
    bindings = pub.parameter_values
    if one.axis is not None:
        bindings = _stretch_of_bindings(bindings, one, pub.ndim)
    if isinstance(pub, SamplerPub):
        return SamplerPub(pub.circuit, bindings, pub.shots if one.shots is None else one.shots, validate=False)
    observables = pub.observables
    index = _index(observables.shape, one, pub.ndim)
    if index is not None:
        observables = observables[index]
    return EstimatorPub(pub.circuit, observables, bindings, pub.precision, validate=False)


def _index(shape: Sequence[int], one: Cut, ndim: int) -> tuple[slice, ...] | None:
    """Where the stretch lies in an array that is broadcast to the PUB's shape; None: all of it belongs to it."""
    if one.axis is None:
        return None
    axis = one.axis - (ndim - len(shape))
    if axis < 0 or shape[axis] == 1:
        return None
    return (*(slice(None),) * axis, slice(one.start, one.stop))


def _stretch_of_bindings(bindings: BindingsArray, one: Cut, ndim: int) -> BindingsArray:
    index = _index(bindings.shape, one, ndim)
    if index is None:
        return bindings
    data = {names: values[index] for names, values in bindings.data.items()}
    shape = list(bindings.shape)
    shape[len(index) - 1] = one.stop - one.start
    return BindingsArray(data, shape=tuple(shape))


def join(pub: Any, cuts: Sequence[Cut], results: Sequence[Any]) -> Any:
    """The result of a PUB from those of its stretches, of the same class.

    Raises:
        TypeError: a field of the data is of a kind that can't be put together.
    """
    if len(cuts) == 1 and cuts[0] == _WHOLE:
        return results[0]
    first = results[0]
    rows: list[list[Any]] = []
    metadata = dict(first.metadata)
    by_stretch: dict[tuple[int, int], list[Any]] = {}
    for one, result in zip(cuts, results, strict=True):
        by_stretch.setdefault((one.start, one.stop), []).append(result)
    rows = list(by_stretch.values())
    fields = {name: _join_field(name, rows, cuts[0].axis, pub.ndim) for name in first.data}
    if cuts[0].shots is not None and "shots" in metadata:
        metadata["shots"] = sum(result.metadata["shots"] for result in rows[0])
    return type(first)(DataBin(**fields, shape=pub.shape), metadata=metadata)


def _join_field(name: str, rows: list[list[Any]], axis: int | None, ndim: int) -> Any:
    values = [[result.data[name] for result in row] for row in rows]
    kind = values[0][0]
    if isinstance(kind, BitArray):
        arrays = [np.concatenate([value.array for value in row], axis=-2) for row in values]
        return BitArray(arrays[0] if axis is None else np.concatenate(arrays, axis=axis), kind.num_bits)
    if not isinstance(kind, np.ndarray):
        raise TypeError(f"the results' field {name!r}, a {type(kind).__qualname__}, can't be put together from parts")
    # Single shots stand along the axis behind the PUB's own.
    for row, results in zip(values, rows, strict=True):
        if len(row) > 1 and any(
            value.ndim <= ndim or value.shape[ndim] != result.metadata.get("shots")
            for value, result in zip(row, results, strict=True)
        ):
            raise TypeError(f"the results' field {name!r} has no single shots to put together: leave out split_shots")
    arrays = [row[0] if len(row) == 1 else np.concatenate(row, axis=ndim) for row in values]
    return arrays[0] if axis is None else np.concatenate(arrays, axis=axis)
