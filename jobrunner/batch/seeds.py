"""Each point's own random numbers, from one documented hash.

The seed of a point is::

    text = canonical JSON of {"parameters": {...}, "replicate": 0, "seed": <the batch's seed>}
    seed = first 8 bytes of SHA-256(text as ASCII), big-endian, without the lowest bit   (0 <= seed < 2**63)

`jobrunner.batch.values.canonical_json` defines the text.  Parameters are those that the batch gives (swept, zipped and
fixed alike), not the function's defaults.  So a point's seed depends on nothing but the batch's seed and the point: not
on its place in the sweep, the order of running, or the workers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jobrunner.batch.values import canonical_json
from jobrunner.errors import SpecError

__all__ = ["Seeding", "point_seed"]


def point_seed(batch_seed: int, parameters: Mapping[str, Any], replicate: int = 0) -> int:
    """The seed of one point, at least 0 and below 2**63.

    Args:
        batch_seed: the seed of the batch; any whole number.
        parameters: the point's parameters; they must have a JSON form.
        replicate: which repetition of the point, from 0.

    Raises:
        SpecError: a parameter has no JSON form.

    Example:
        >>> point_seed(1, {"size": 16, "temperature": 2.5})
        7850077832905866327
        >>> point_seed(1, {"temperature": 2.5, "size": 16})
        7850077832905866327
    """
    try:
        text = canonical_json({"parameters": parameters, "replicate": replicate, "seed": batch_seed})
    except (TypeError, ValueError) as error:
        raise SpecError(
            f"a seed is derived from the parameters' JSON form, and these have none ({error}): {dict(parameters)!r}; "
            "pass the seed as a parameter of its own"
        ) from error
    return int.from_bytes(hashlib.sha256(text.encode("ascii")).digest()[:8], "big") >> 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeding:
    """Which seed arguments a function takes, and what each point gets for them.

    Attributes:
        batch_seed: the seed that all others come from.
        drawn: whether it was drawn at random rather than given.
        takes_seed: the function has a parameter ``seed`` that the points do not give: an int below 2**63.
        takes_rng: it has a parameter ``rng`` that the points do not give: a ``numpy.random.Generator``, namely
            ``Generator(PCG64(seed))`` of the same seed.
    """

    batch_seed: int
    drawn: bool = False
    takes_seed: bool = False
    takes_rng: bool = False

    @classmethod
    def of(cls, function: Callable[..., object], names: Iterable[str], seed: int | None = None) -> Seeding:
        """The seeding of `function` on points that have the parameters `names`.

        Args:
            function: what the batch runs.
            names: the parameters that the points give; one of them named ``seed`` or ``rng`` is left alone.
            seed: the batch's seed; None: one is drawn.

        Example:
            >>> def roll(sides, seed): ...
            >>> Seeding.of(roll, ["sides"], seed=7)
            Seeding(batch_seed=7, drawn=False, takes_seed=True, takes_rng=False)
        """
        given = set(names)
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # some functions written in C do not tell
            parameters = {}  # type: ignore[assignment]
        free = {
            name
            for name, parameter in parameters.items()
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in given
        }
        return cls(
            # 32 bits are short enough to be typed again, and too many to be drawn twice.
            batch_seed=secrets.randbits(32) if seed is None else seed,
            drawn=seed is None,
            takes_seed="seed" in free,
            takes_rng="rng" in free,
        )

    @property
    def used(self) -> bool:
        """Whether the function gets anything from the batch's seed."""
        return self.takes_seed or self.takes_rng

    def seed(self, parameters: Mapping[str, Any], replicate: int = 0) -> int | None:
        """The seed of a point, or None if the function takes none.

        Args:
            parameters: the point.
            replicate: which repetition of it, from 0.
        """
        return point_seed(self.batch_seed, parameters, replicate) if self.used else None

    def arguments(self, seed: int | None) -> dict[str, Any]:
        """The arguments that a point with this `seed` gets beside its parameters.

        Raises:
            SpecError: the function takes an ``rng``, and NumPy is not installed.
        """
        if seed is None:
            return {}
        arguments: dict[str, Any] = {}
        if self.takes_seed:
            arguments["seed"] = seed
        if self.takes_rng:
            try:
                from numpy.random import PCG64, Generator
            except ImportError as error:
                raise SpecError(
                    "the function takes a NumPy Generator, and NumPy is not installed: pip install numpy", key="rng"
                ) from error
            arguments["rng"] = Generator(PCG64(seed))
        return arguments
