"""What holds for all tests."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

# A machine that has other things to do draws slowly: that says nothing of what is tested.
settings.register_profile("busy machine", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


class _ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Tests that share a cluster run in one process, so that it is started once; all others where there is room."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        engine = re.search(r"[\[-](dask|ray)[]-]", nodeid)
        if engine is None or path.endswith("/test_losses.py"):  # which have a cluster each
            return nodeid
        where = path.rpartition("/")[0] if "/behaviour/" in path else path
        return f"{where}[{engine[1]}]"


#: Where there are tests that take tens of seconds: begun last, one of them would run alone at the end.
_LONG = (
    "tests/benchmarks/", "tests/cli/test_bench.py", "tests/cluster/test_losses.py", "tests/core/test_storms.py",
    "tests/examples/", "tests/joblib/test_upstream.py", "tests/test_guide.py", "tests/test_readme.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(_LONG))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByCluster | None:
    return _ByCluster(config, log) if config.getvalue("dist") == "loadscope" else None
