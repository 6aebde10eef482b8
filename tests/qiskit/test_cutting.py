"""How runs are cut, and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.primitives.containers import BitArray, DataBin, PubResult
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.sampler_pub import SamplerPub

from jobrunner.qiskit.cutting import Cut, cut, join, take
from tests.qiskit.circuits import bell, rotations


def _sampler_pub(shape: tuple[int, ...], shots: int = 8) -> SamplerPub:
    values = np.random.default_rng(1).random((*shape, 2))
    return SamplerPub.coerce((rotations(2, measured=True), values), shots)


def _estimator_pub(bound: tuple[int, ...], observed: tuple[int, ...]) -> EstimatorPub:
    rng = np.random.default_rng(2)
    values = rng.random((*bound, 2))
    names = np.array(["ZZ", "XX", "ZI", "IX"])[rng.integers(0, 4, observed)]
    return EstimatorPub.coerce((rotations(2), names.tolist(), values), 0.0)


def _covered(pubs: list[Any], parts: list[Any]) -> list[np.ndarray[Any, Any]]:
    """How often each element of each PUB is computed, in shots where it has them."""
    times = [np.zeros(pub.shape or (1,), dtype=int) for pub in pubs]
    for part in parts:
        for piece in part.pieces:
            one = piece.cut
            index: Any = ... if one.axis is None else (slice(None),) * one.axis + (slice(one.start, one.stop),)
            times[piece.pub][index] += one.shots or getattr(pubs[piece.pub], "shots", None) or 1
    return times


@settings(max_examples=200, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 7), max_size=3).map(tuple), min_size=1, max_size=6),
    seconds=st.lists(st.floats(1e-4, 5.0), min_size=6, max_size=6),
    split=st.booleans(),
)
def test_every_element_is_computed_once(shapes: list[Any], seconds: list[float], split: bool) -> None:
    pubs = [_sampler_pub(shape) for shape in shapes]
    parts = cut(pubs, seconds[: len(pubs)], split_shots=split)
    for times in _covered(pubs, parts):
        assert (times == 8).all()
    assert sum(part.seconds for part in parts) == pytest.approx(sum(seconds[: len(pubs)]))
    assert len(parts) <= 2 * 64 + 2 * len(pubs)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (1, 6), (2, 1, 3)])
def test_samples_are_put_together(shape: tuple[int, ...], split: bool) -> None:
    pub = _sampler_pub(shape, shots=20)
    cuts = [piece.cut for part in cut([pub], [10.0], split_shots=split) for piece in part.pieces]
    sampler = StatevectorSampler(seed=7)
    whole = sampler._run([pub])[0]
    joined = join(pub, cuts, [sampler._run([take(pub, one)])[0] for one in cuts])
    assert type(joined) is type(whole)
    assert joined.data.shape == whole.data.shape
    assert joined.data.meas.array.shape == whole.data.meas.array.shape
    assert joined.data.meas.num_bits == 2
    assert joined.metadata == whole.metadata
    if not split:
        # An int as seed of this sampler is that of each binding.
        assert (joined.data.meas.array == whole.data.meas.array).all()
    elif len(cuts) > 1:
        assert sum(one.shots or 20 for one in cuts) >= 20


@pytest.mark.parametrize(
    ("bound", "observed"),
    [
        ((), ()),
        ((7,), ()),
        ((), (5,)),
        ((7,), (7,)),
        ((6,), (3, 1)),
        ((6, 1), (4,)),
        ((1, 5), (3, 1)),
        ((2, 3), (2, 3)),
        ((4, 1, 1), (5, 2)),
    ],
)
def test_estimates_are_put_together(bound: tuple[int, ...], observed: tuple[int, ...]) -> None:
    pub = _estimator_pub(bound, observed)
    parts = cut([pub], [10.0])
    cuts = [piece.cut for part in parts for piece in part.pieces]
    assert len(cuts) == max(bound if max(bound, default=1) > 1 else observed, default=1)
    estimator = StatevectorEstimator()
    whole = estimator._run([pub])[0]
    pieces = [take(pub, one) for one in cuts]
    for piece in pieces:
        piece.validate()
    joined = join(pub, cuts, [estimator._run([piece])[0] for piece in pieces])
    assert type(joined) is type(whole)
    assert joined.data.evs.shape == whole.data.evs.shape
    np.testing.assert_array_equal(joined.data.evs, whole.data.evs)
    np.testing.assert_array_equal(joined.data.stds, whole.data.stds)
    assert joined.metadata == whole.metadata


def test_several_registers_and_unnamed_bindings() -> None:
    from qiskit import ClassicalRegister, QuantumRegister

    qubits, one, two = QuantumRegister(3), ClassicalRegister(1, "one"), ClassicalRegister(2, "two")
    circuit = QuantumCircuit(qubits, one, two)
    circuit.x(0)
    circuit.measure([0], one)
    circuit.measure([1, 2], two)
    pub = SamplerPub.coerce((circuit, np.empty((4, 0))), 10)
    cuts = [Cut(0, 0, 1), Cut(0, 1, 4)]
    sampler = StatevectorSampler(seed=1)
    joined = join(pub, cuts, [sampler._run([take(pub, piece)])[0] for piece in cuts])
    assert joined.data.one.array.shape == (4, 10, 1)
    assert joined.data.two.num_bits == 2
    assert set(joined.data.one.get_bitstrings()) == {"1"}


def test_short_pubs_are_run_together_and_long_ones_cut() -> None:
    short = [SamplerPub.coerce(bell(), 10) for _ in range(100)]
    assert 2 <= len(cut(short, [0.001] * 100)) <= 3
    assert len(cut(short[:3], [0.001] * 3)) == 1
    assert [part.pieces for part in cut([], [])] == [[]]
    (part,) = cut([SamplerPub.coerce(bell(), 10)], [100.0])
    assert part.pieces == [(0, Cut())]


def test_level_one_data_are_put_together() -> None:
    pub = _sampler_pub((4,), shots=10)
    cuts = [Cut(0, 0, 2), Cut(0, 2, 4)]
    results = [
        PubResult(DataBin(meas=np.full((2, 10), n + 0.5j), shape=(2,)), metadata={"shots": 10}) for n in range(2)
    ]
    joined = join(pub, cuts, results)
    assert joined.data.meas.shape == (4, 10)
    assert joined.data.meas[:, 0].tolist() == [0.5j, 0.5j, 1 + 0.5j, 1 + 0.5j]


def test_averages_of_shots_that_were_cut_are_refused() -> None:
    pub = _sampler_pub((2,), shots=10)
    cuts = [Cut(0, 0, 2, 5), Cut(0, 0, 2, 5)]
    results = [PubResult(DataBin(meas=np.ones((2, 3)), shape=(2,)), metadata={"shots": 5}) for _ in cuts]
    with pytest.raises(TypeError, match="leave out split_shots"):
        join(pub, cuts, results)


def test_fields_of_another_kind_are_refused() -> None:
    pub = _sampler_pub((2,))
    results = [PubResult(DataBin(meas="text")) for _ in range(2)]
    with pytest.raises(TypeError, match="field 'meas', a str"):
        join(pub, [Cut(0, 0, 1), Cut(0, 1, 2)], results)
    assert isinstance(BitArray.from_bool_array([[True]]), BitArray)
