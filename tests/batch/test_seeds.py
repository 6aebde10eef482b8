"""Seeds: one documented hash, for functions that take ``seed`` or ``rng``."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrunner import SpecError
from jobrunner.batch import Seeding, point_seed


def takes_seed(size: int, seed: int) -> None: ...


def takes_both(size: int, *, seed: int, rng: Any = None) -> None: ...


def takes_none(size: int, **others: Any) -> None: ...


def test_the_hash_is_the_documented_one() -> None:
    text = b'{"parameters":{"size":16,"temperature":2.5},"replicate":0,"seed":7}'
    expected = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
    assert point_seed(7, {"temperature": 2.5, "size": 16}) == expected


@given(st.integers(), st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_a_seed_is_a_63_bit_number_and_does_not_depend_on_order(batch_seed: int, parameters: dict[str, Any]) -> None:
    seed = point_seed(batch_seed, parameters)
    assert 0 <= seed < 2**63
    assert seed == point_seed(batch_seed, dict(reversed(parameters.items())))


def test_points_batches_and_replicates_have_seeds_of_their_own() -> None:
    seeds = {point_seed(b, {"x": x}, replicate=r) for b in range(5) for x in range(20) for r in range(3)}
    assert len(seeds) == 5 * 20 * 3


def test_a_function_gets_what_it_has_parameters_for() -> None:
    numpy = pytest.importorskip("numpy")
    seeding = Seeding.of(takes_both, ["size"], seed=1)
    seed = seeding.seed({"size": 16})
    arguments = seeding.arguments(seed)
    assert set(arguments) == {"seed", "rng"}
    assert arguments["seed"] == seed == point_seed(1, {"size": 16})
    expected = numpy.random.Generator(numpy.random.PCG64(seed))
    assert arguments["rng"].random() == expected.random()


def test_each_replicate_has_a_seed_of_its_own() -> None:
    seeding = Seeding.of(takes_seed, ["size"], seed=1)
    assert seeding.seed({"size": 16}, 2) == point_seed(1, {"size": 16}, replicate=2)
    assert seeding.seed({"size": 16}, 0) == seeding.seed({"size": 16}) != seeding.seed({"size": 16}, 1)


def test_a_seed_given_as_a_parameter_wins() -> None:
    seeding = Seeding.of(takes_seed, ["size", "seed"], seed=1)
    assert not seeding.used
    assert seeding.arguments(seeding.seed({"size": 16, "seed": 3})) == {}


@pytest.mark.parametrize("function", [takes_none, max, print])
def test_a_function_without_such_a_parameter_gets_nothing(function: Any) -> None:
    seeding = Seeding.of(function, ["size"], seed=1)
    assert seeding.seed({"size": object()}) is None


def test_a_seed_that_is_not_given_is_drawn() -> None:
    first, second = Seeding.of(takes_seed, ["size"]), Seeding.of(takes_seed, ["size"])
    assert first.drawn
    assert first.batch_seed != second.batch_seed


def test_parameters_without_a_json_form_are_refused_for_a_seed() -> None:
    with pytest.raises(SpecError, match="JSON form"):
        point_seed(1, {"thing": object()})
