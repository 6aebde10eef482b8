"""One function over many parameter points.

::

    spec.py     a TOML file ──┐
    values.py   -p key=text ──┼──▶ points.py   Points ──▶ run.py ──submit──▶ an executor
    target.py   module:function ─▶ the function ────────────▲  │
    seeds.py    each point's seed ──────────────────────────┘  └──outcomes──▶ output.py   .csv, .jsonl

Example:
    >>> import concurrent.futures
    >>> from jobrunner.batch import run_points, sweep
    >>> def square(x):
    ...     return x * x
    >>> with concurrent.futures.ThreadPoolExecutor() as executor:
    ...     summary = run_points(square, sweep(x=range(100)), executor)
    >>> summary.done
    100
"""

from jobrunner.batch.columns import flatten, to_json
from jobrunner.batch.output import OutputWriter, check_output, open_output, outcome_as_json
from jobrunner.batch.points import Points, sweep, zip_points
from jobrunner.batch.run import Outcome, OutcomeStatus, StopRequest, Summary, run_points
from jobrunner.batch.seeds import Seeding, point_seed
from jobrunner.batch.spec import Spec, load_spec
from jobrunner.batch.target import Target, check_parameters, load_target
from jobrunner.batch.values import canonical_json, parse_range, parse_values

__all__ = [
    "Outcome",
    "OutcomeStatus",
    "OutputWriter",
    "Points",
    "Seeding",
    "Spec",
    "StopRequest",
    "Summary",
    "Target",
    "canonical_json",
    "check_output",
    "check_parameters",
    "flatten",
    "load_spec",
    "load_target",
    "open_output",
    "outcome_as_json",
    "parse_range",
    "parse_values",
    "point_seed",
    "run_points",
    "sweep",
    "to_json",
    "zip_points",
]
