"""Where a primitive keeps its seed, and how one is given to the copy that runs a part."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["GENERATORS", "own_seed", "part_seed", "with_seed"]


def own_seed(primitive: Any) -> Any:
    """The seed that a primitive was made with: an int, a ``numpy.random.Generator``, or None."""
    slot = _slot_of(primitive)
    return None if slot is None else slot[0](primitive)


def with_seed(primitive: Any, seed: int) -> Any:
    """A copy of a primitive that draws from `seed`; the primitive itself stays as it is.

    Raises:
        TypeError: it is not known where a primitive of its class keeps its seed.
    """
    slot = _slot_of(primitive)
    if slot is None:
        raise TypeError(
            f"it is not known how to seed a {type(primitive).__qualname__}: pass a factory that takes the seed, such "
            "as ParallelSampler(lambda seed: MySampler(seed=seed), seed=42)"
        )
    twin = copy.copy(primitive)
    slot[1](twin, seed)
    return twin


def part_seed(seed: int, *path: int) -> int:
    """The seed of a part of a run.

    It is the first 32-bit word of ``numpy.random.SeedSequence(seed, spawn_key=path)``, which are independent for
    different paths (M. E. O'Neill, "Developing a seed_seq Alternative", 2015; NumPy's SeedSequence).

    Args:
        seed: of the run, not negative.
        path: where the part stands.
    """
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1)[0])


#: What draws random numbers, and is another one after each.
GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)

_Slot = tuple[Callable[[Any], Any], Callable[[Any, int], None]]


def _slot_of(primitive: Any) -> _Slot | None:
    """How the seed of a primitive is read and set; None: not known."""
    own = getattr(primitive, "__dict__", {})
    if "_seed" in own:  # StatevectorSampler and StatevectorEstimator; Aer's SamplerV2
        return _SEED
    options = own.get("_options")
    if hasattr(options, "seed_simulator"):  # BackendSamplerV2 and BackendEstimatorV2
        return _SEED_SIMULATOR
    if isinstance(getattr(options, "run_options", None), dict):  # Aer's EstimatorV2
        return _RUN_OPTION
    return None


def _set_seed(primitive: Any, seed: int) -> None:
    primitive._seed = seed


def _set_seed_simulator(primitive: Any, seed: int) -> None:
    primitive._options = copy.copy(primitive._options)
    primitive._options.seed_simulator = seed


def _set_run_option(primitive: Any, seed: int) -> None:
    primitive._options = copy.copy(primitive._options)
    primitive._options.run_options = {**primitive._options.run_options, "seed_simulator": seed}


def _run_option(primitive: Any) -> Any:
    return primitive._options.run_options.get("seed_simulator")


_SEED: _Slot = (lambda primitive: primitive._seed, _set_seed)
_SEED_SIMULATOR: _Slot = (lambda primitive: primitive._options.seed_simulator, _set_seed_simulator)
_RUN_OPTION: _Slot = (_run_option, _set_run_option)
