"""How one part of a parallel run is run: in a worker, or, where the whole run is short, in a thread of the caller."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from jobrunner.qiskit.acceleration import accelerate
from jobrunner.qiskit.cost import is_known
from jobrunner.qiskit.running import Template, rebuild
from jobrunner.qiskit.seeding import part_seed, with_seed
from jobrunner.role import is_worker
from jobrunner.serialization import dump_exception

__all__ = ["Outcome", "Source", "make_primitive", "pack_pub", "run_carried", "run_part", "takes_seed"]

#: What came of a piece: (whether it went well, its ``PubResult`` or its exception).
Outcome = tuple[bool, Any]


class Source(NamedTuple):
    """What a part's primitive is made from.

    Attributes:
        template: the primitive, as a template; or None.
        factory: what makes it, where there is no template.
    """

    template: Template | None
    factory: Callable[..., Any] | None


def takes_seed(factory: Callable[..., Any]) -> bool:
    """Whether a factory has a parameter for the seed: one named ``seed``."""
    try:
        return "seed" in inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return False


def make_primitive(factory: Callable[..., Any], seed: int | None) -> Any:
    """What a factory makes, given the seed if it takes one; else seeded afterwards."""
    if takes_seed(factory):
        return factory(seed=seed)
    primitive = factory()
    return primitive if seed is None else with_seed(primitive, seed)


def run_part(
    make: Callable[[int | None], Any], pubs: Sequence[Any], seed: int | None, options: dict[str, Any]
) -> tuple[list[Outcome], dict[str, Any]]:
    """Run the PUBs of a part; each that fails is a failure of its own.

    Args:
        make: gives the primitive, to draw from that seed; None: as it does by itself.
        pubs: as the primitive's `run` takes them.
        seed: of the part; None: the primitive draws as it does by itself.
        options: further arguments of the primitive's `run`; none where the PUBs say all.

    Returns:
        What came of each PUB, and the metadata of the whole result.
    """
    try:
        result = _run(make(seed), pubs, options)
        return [(True, one) for one in result], dict(result.metadata)
    except Exception as error:
        if len(pubs) == 1:
            return [(False, error)], {}
    # One of them failed, and took the others along: each by itself.
    outcomes: list[Outcome] = []
    metadata: dict[str, Any] = {}
    for index, pub in enumerate(pubs):
        try:
            result = _run(make(None if seed is None else part_seed(seed, index)), [pub], options)
            outcomes.append((True, result[0]))
            metadata = dict(result.metadata)
        except Exception as error:
            outcomes.append((False, error))
    return outcomes, metadata


def run_carried(
    source: Source, carried: Sequence[tuple[Any, ...]], seed: int | None, options: dict[str, Any], run_id: str
) -> tuple[list[Outcome], dict[str, Any]]:
    """In a worker: run a part whose PUBs have come as tuples (see `pack_pub`).

    Args:
        source: what its primitive is made from.
        carried: the PUBs.
        seed: of the part; None: the primitive draws as it does by itself.
        options: further arguments of the primitive's `run`.
        run_id: tells the run from others.

    Returns:
        As `run_part`, but for exceptions, which are bytes that are sure to be rebuilt: one that can't be would take the
        other PUBs' results along.
    """

    def make(of: int | None) -> Any:
        if source.template is None:
            assert source.factory is not None
            return make_primitive(source.factory, of)
        primitive = rebuild(source.template)
        return primitive if of is None else with_seed(primitive, of)

    with contextlib.ExitStack() as stack:
        if is_worker():  # else it would hold for all that runs here
            stack.enter_context(accelerate(min_seconds=0))
            stack.enter_context(_warning_once(run_id))
        outcomes, metadata = run_part(make, [_unpack_pub(*one) for one in carried], seed, options)
    return [(ok, value if ok else dump_exception(value)) for ok, value in outcomes], metadata


#: What this worker has warned of in the latest runs, by their ids.
_warned: OrderedDict[str, set[tuple[Any, ...]]] = OrderedDict()
_MOST_RUNS = 8


@contextlib.contextmanager
def _warning_once(run_id: str) -> Iterator[None]:
    """Within, what this worker has warned of already in the same run is not shown again."""
    warned = _warned.setdefault(run_id, set())
    while len(_warned) > _MOST_RUNS:
        _warned.popitem(last=False)
    with warnings.catch_warnings():
        # The caller has said so already, once for the whole run.
        warnings.filterwarnings("ignore", message=".*output classical registers", category=UserWarning)
        show = warnings.showwarning

        def show_once(message: Any, category: Any, filename: str, lineno: int, *rest: Any, **more: Any) -> None:
            told = category, str(message), filename, lineno
            if told not in warned:
                warned.add(told)
                show(message, category, filename, lineno, *rest, **more)

        warnings.showwarning = show_once
        yield


def pack_pub(pub: Any, circuit: Any) -> tuple[Any, ...]:
    """A PUB as a tuple in which `circuit` stands for its circuit, perhaps as a shared object."""
    if isinstance(pub, SamplerPub):
        return circuit, pub.parameter_values, pub.shots
    return circuit, pub.observables, pub.parameter_values, pub.precision


def _unpack_pub(*fields: Any) -> Any:
    return (SamplerPub if len(fields) == 3 else EstimatorPub)(*fields, validate=False)


def _run(primitive: Any, pubs: Sequence[Any], options: dict[str, Any]) -> Any:
    if is_known(primitive) and not options:
        # Without the job that `run` makes of it: this is one already.
        return primitive._run(list(pubs))
    return primitive.run(pubs, **options).result()
