"""joblib's own tests of Parallel, as it installs them, with our backend in the place of its process backends.

Its other tests of workers are of files that loky's and multiprocessing's map into memory (`test_memmapping`), of what
`parallel_config` was told (`test_config`), and of Dask.
"""

from __future__ import annotations

import re
from pathlib import Path

import joblib.test

__all__ = ["LEFT_OUT", "write_tests"]

#: Tests that don't apply, by a part of their names, and why.
LEFT_OUT = {
    "test_nested_parallel_warnings": "warnings of what can't be nested in loky and multiprocessing, and can here",
    "test_parallel_pickling": "the wording of loky's error",
    "test_error_capture": "that the other tasks' workers are killed and replaced, which they are not here",
    "test_backend_context_manager": "that the default backend is loky",
    "test_backend_hinting_and_constraints": "that the default backend is loky",
    "test_nested_backend_in_sequential and None": "without n_jobs all CPUs are used, as with joblib's Dask backend",
    "test_auto_memmap_on_arrays_from_generator": "that arrays lie in files",
    "test_memmapping_leaks": "that arrays lie in files",
    "test_multiple_generator_call_separated_gc": "that one call's end ends another's, as in loky",
    "test_threadpool_limitation_in_child_context": "more threads than the machine has",
    "test_loky_reuse_workers": "loky's executor itself",
}


def write_tests(directory: Path) -> Path:
    """Write the tests, with the backends replaced, to a file in `directory`."""
    source = (Path(joblib.test.__file__).parent / "test_parallel.py").read_text(encoding="utf-8")
    for old, new in (
        (
            "RETURN_GENERATOR_BACKENDS = BACKENDS.copy()",
            "import jobrunner\njobrunner.register_joblib()\n"
            "from jobrunner.joblib.backend import JobrunnerBackend\n"
            'RETURN_GENERATOR_BACKENDS = {"jobrunner": JobrunnerBackend}',
        ),
        ("ALL_VALID_BACKENDS = [None] + sorted(BACKENDS.keys())", 'ALL_VALID_BACKENDS = ["jobrunner"]'),
        (
            "ALL_VALID_BACKENDS += [BACKENDS[backend_str]() for backend_str in BACKENDS]",
            "ALL_VALID_BACKENDS += [JobrunnerBackend()]",
        ),
        ('PROCESS_BACKENDS = ["multiprocessing", "loky"]', 'PROCESS_BACKENDS = ["jobrunner"]'),
        ('PARALLEL_BACKENDS = PROCESS_BACKENDS + ["threading"]', 'PARALLEL_BACKENDS = ["jobrunner"]'),
        ('ALL_VALID_BACKENDS.append(mp.get_context("spawn"))', "pass"),
        ("from ._openmp_test_helper", "from joblib.test._openmp_test_helper"),
        # In scripts that they run.
        ("from joblib import Parallel", "import jobrunner; jobrunner.register_joblib()\nfrom joblib import Parallel"),
    ):
        assert old in source, f"joblib's tests have changed: {old!r} is not among them"
        source = source.replace(old, new)
    source = re.sub(r'"(loky)"|\'(loky)\'', '"jobrunner"', source)
    path = directory / "test_parallel_here.py"
    path.write_text(source, encoding="utf-8")
    return path
