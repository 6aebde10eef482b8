"""jobrunner under joblib, and so under scikit-learn and everything else that joblib runs.

    import joblib, jobrunner

    jobrunner.register_joblib()
    with joblib.parallel_config(backend="jobrunner", n_jobs=-1, time_limit=60):
        results = joblib.Parallel()(joblib.delayed(f)(x) for x in points)

Each task is a job in a process of its own: the death of one is the death of no other, a limit or joblib's own
``timeout=`` ends its process, and what is left when a call fails is cancelled, the processes included.  The backend's
options are those of `LocalExecutor`, or ``executor=``: one of ours that is there already, on a cluster for instance.
"""

from __future__ import annotations

__all__ = ["register_joblib"]


def register_joblib(make_default: bool = False) -> None:
    """Make ``backend="jobrunner"`` known to joblib; once more changes nothing.

    Args:
        make_default: whether joblib uses it where no backend is named.

    Raises:
        ImportError: joblib is not installed (``pip install 'jobrunner[joblib]'``).

    Example:
        >>> import joblib
        >>> register_joblib()
        >>> with joblib.parallel_config(backend="jobrunner", n_jobs=2):
        ...     joblib.Parallel()(joblib.delayed(pow)(2, n) for n in range(4))
        [1, 2, 4, 8]
    """
    try:
        import joblib
    except ImportError as error:
        raise ImportError("register_joblib() needs joblib: pip install 'jobrunner[joblib]'") from error
    from jobrunner.joblib.backend import JobrunnerBackend

    joblib.register_parallel_backend("jobrunner", JobrunnerBackend, make_default=make_default)
