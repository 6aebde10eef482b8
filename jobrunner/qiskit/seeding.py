"""Where a primitive keeps its seed, and how one is given to the copy that runs a part."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from qiskit.primitives import BaseEstimatorV2, BaseSamplerV2
from qiskit.providers import Backend

__all__ = ["GENERATORS", "own_seed", "part_seed", "with_seed"]


def own_seed(primitive: Any) -> Any:
    """The seed that a primitive was made with: an int, a ``numpy.random.Generator``, or None.

    Where it has none itself, that of its run options counts, then that of a backend or another primitive that it uses:
    all parts of a run would draw the same from it.
    """
    slot = _slot_of(primitive)
    seed = None if slot is None else slot[0](primitive)
    if seed is not None:
        return seed
    own = getattr(primitive, "__dict__", {})
    seeds = [_run_option(own.get("_options")), *map(_seed_within, own.values())]
    return next((seed for seed in seeds if seed is not None), None)


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
    """How the seed of a primitive is read and set; None: not known.

    What is set here counts before what else the primitive or its backend has.
    """
    own = getattr(primitive, "__dict__", {})
    if "_seed" in own:  # StatevectorSampler and StatevectorEstimator; Aer's SamplerV2
        return _SEED
    options = own.get("_options")
    if hasattr(options, "seed_simulator"):  # BackendSamplerV2 and BackendEstimatorV2
        return _SEED_SIMULATOR
    if isinstance(getattr(options, "run_options", None), dict):  # Aer's EstimatorV2
        return _RUN_OPTION
    if hasattr(getattr(options, "simulator", None), "seed_simulator"):  # qiskit-ibm-runtime's, in local mode
        return _SIMULATOR_OPTION
    return None


def _seed_within(value: Any) -> Any:
    """The seed of a backend or a primitive that another one uses; None: it has none, or is neither."""
    if isinstance(value, Backend):
        return getattr(getattr(value, "options", None), "seed_simulator", None)
    return own_seed(value) if isinstance(value, (BaseSamplerV2, BaseEstimatorV2)) else None


def _run_option(options: Any) -> Any:
    run_options = getattr(options, "run_options", None)
    return run_options.get("seed_simulator") if isinstance(run_options, dict) else None


def _simulator_option(primitive: Any) -> Any:
    seed = primitive._options.simulator.seed_simulator
    return seed if isinstance(seed, (int, np.integer)) else None  # there is a value for what is not set


def _set_seed(primitive: Any, seed: int) -> None:
    primitive._seed = seed


def _set_seed_simulator(primitive: Any, seed: int) -> None:
    primitive._options = copy.copy(primitive._options)
    primitive._options.seed_simulator = seed


def _set_run_option(primitive: Any, seed: int) -> None:
    primitive._options = copy.copy(primitive._options)
    primitive._options.run_options = {**primitive._options.run_options, "seed_simulator": seed}


def _set_simulator_option(primitive: Any, seed: int) -> None:
    primitive._options = copy.copy(primitive._options)
    simulator = copy.copy(primitive._options.simulator)
    simulator.seed_simulator = seed
    primitive._options.simulator = simulator


_SEED: _Slot = (lambda primitive: primitive._seed, _set_seed)
_SEED_SIMULATOR: _Slot = (lambda primitive: primitive._options.seed_simulator, _set_seed_simulator)
_RUN_OPTION: _Slot = (lambda primitive: _run_option(primitive._options), _set_run_option)
_SIMULATOR_OPTION: _Slot = (_simulator_option, _set_simulator_option)
