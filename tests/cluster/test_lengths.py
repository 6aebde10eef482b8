"""How many jobs a place is sent at a time, from how long they take."""

from __future__ import annotations

import pytest

from jobrunner.cluster.lengths import Lengths


def test_a_job_of_which_nothing_is_known_is_sent_alone() -> None:
    assert Lengths().most_at_once("unknown", 0) == Lengths().most_at_once("unknown", 3) == 1


@pytest.mark.parametrize(
    ("seconds", "once", "again"),
    [
        (1.0, 1, 1),
        (0.05, 1, 1),
        (0.03, 1, 2),
        (0.02, 1, 3),
        (0.01, 3, 6),
        (0.002, 11, 26),
        (0.001, 51, 51),
        (0.0, 501, 501),
    ],
)
def test_what_is_not_tried_again_is_sent_less_far_ahead(seconds: float, once: int, again: int) -> None:
    lengths = Lengths()
    lengths.took("job", seconds)
    assert lengths.most_at_once("job", 0) == once
    assert lengths.most_at_once("job", 1) == again


def test_that_jobs_are_long_is_believed_sooner_than_that_they_are_short() -> None:
    longer, shorter = Lengths(), Lengths()
    for lengths, first, second in ((longer, 0.001, 0.5), (shorter, 0.5, 0.001)):
        lengths.took("job", first)
        lengths.took("job", second)
    assert longer.most_at_once("job", 1) == shorter.most_at_once("job", 1) == 1
    longer.took("other", 0.001)
    assert longer.most_at_once("other", 1) > 1
