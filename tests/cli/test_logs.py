"""`jobrunner logs`: what the jobs printed, each under the point that it is of."""

from __future__ import annotations

import json

import pytest

from jobrunner.batch.store import Store
from jobrunner.cli.stored_points import stored_points
from tests.batch.stores import StoreBuilder
from tests.cli.store_commands import invoke, store

__all__ = ["store"]


@pytest.fixture
def printed(store: StoreBuilder) -> StoreBuilder:
    batch = store.batch(total=5)
    runner = store.runner(batch)
    store.failed(batch, runner, 0, {"x": 1}, "E: no", stderr="oh\tno\n")
    store.done(batch, runner, 1, {"x": 2}, 1, stdout="without an end")
    store.done(batch, runner, 2, {"x": 3}, 1)
    store.done(batch, runner, 3, {"x": 4}, 1, stdout="out\n", stderr="10%\r20%\r\n\x1b[31mred\n")
    point = store.point(batch, 4, {"x": 5})  # its worker died, and it will run again
    store.outcome(point, runner, "retried", stderr="dying\n")
    return store


def test_all_that_was_printed_is_shown_in_the_order_of_the_points(printed: StoreBuilder) -> None:
    ran = invoke("logs")
    assert ran.exit_code == 0
    assert ran.stdout == (
        "==> point 0: x=1: stderr <==\n"
        "oh\tno\n"
        "==> point 1: x=2: stdout <==\n"
        "without an end\n"
        "==> point 3: x=4: stdout <==\n"
        "out\n"
        "==> point 3: x=4: stderr <==\n"
        "10%\n20%\n\\x1b[31mred\n"
        "==> point 4: x=5: stderr <==\n"
        "dying\n"
    )


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ("--failed", ["point 0: x=1: stderr"]),
        ("--stdout", ["point 1: x=2: stdout", "point 3: x=4: stdout"]),
        ("--stderr --point 3", ["point 3: x=4: stderr"]),
        ("--point 4 --point 1", ["point 1: x=2: stdout", "point 4: x=5: stderr"]),
    ],
)
def test_points_and_streams_may_be_chosen(printed: StoreBuilder, arguments: str, headers: list[str]) -> None:
    lines = invoke(f"logs {arguments}").stdout.splitlines()
    assert [line for line in lines if line.startswith("==>")] == [f"==> {header} <==" for header in headers]


def test_json_has_the_text_as_it_was(printed: StoreBuilder) -> None:
    found = json.loads(invoke("logs --json").stdout)
    assert [item["point"] for item in found] == [0, 1, 3, 4]
    assert found[2] == {
        "point": 3,
        "parameters": {"x": 4},
        "replicate": 0,
        "status": "done",
        "stdout": "out\n",
        "stderr": "10%\r20%\r\n\x1b[31mred\n",
    }


def test_what_was_asked_for_and_not_printed_is_said(printed: StoreBuilder) -> None:
    ran = invoke("logs --point 2 --point 1 --stderr")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "point 1 has not printed to stderr: it is done" in ran.stderr
    assert "point 2 has not printed to stderr: it is done" in ran.stderr
    assert "point 1 has not failed: it is done" in invoke("logs --point 1 --failed").stderr
    assert "no failed job of batch 'squares' has printed to stdout" in invoke("logs --failed --stdout").stderr


def test_a_batch_that_keeps_no_output_says_so(store: StoreBuilder) -> None:
    store.batch(options='{"capture_output": false}')
    assert "is not kept (capture_output is off)" in invoke("logs").stderr


def test_a_point_whose_status_changes_meanwhile_comes_once(store: StoreBuilder) -> None:
    """It is found in both statuses; here the second time is the first of a part: 508 is 4 + 8 + ... + 256."""
    batch = store.batch(total=601)
    runner = store.runner(batch)
    store.many(batch, {"done": 507}, runner)
    retried = store.point(batch, 600, {"x": 600})
    store.outcome(retried, runner, "retried")
    store.connection.execute("UPDATE outcome SET stdout = 'printed'")
    with Store(store.path) as opened:
        points = stored_points(opened, opened.batch(), output=True)
        found = [next(points).place]
        store.connection.execute("UPDATE point SET status = 'done' WHERE id = ?", (retried,))
        found += [point.place for point in points]
    assert found == [*range(507), 600]


def test_large_outputs_come_one_after_another(store: StoreBuilder) -> None:
    """Longer than a part that is read at a time."""
    batch = store.batch(total=12)
    runner = store.runner(batch)
    for place in range(12):
        store.done(batch, runner, place, {"x": place}, 1, stdout=f"{place}" * (1 << 20))
    lines = invoke("logs").stdout.splitlines()
    assert [line[:2] for line in lines[1::2]] == [f"{place}{place}"[:2] for place in range(12)]
