"""scikit-learn on our backend: a candidate that dies is that candidate's failure."""

from __future__ import annotations

import ctypes
import math
import pickle
import warnings
from typing import Any

import pytest

pytest.importorskip("sklearn")

import numpy
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.svm import SVC

import jobrunner
from jobrunner import WorkerDiedError
from tests.core.gates import use_cpu

jobrunner.register_joblib()


class Troubled(ClassifierMixin, BaseEstimator):
    """Predicts the commonest class, where fitting it has no other effect."""

    def __init__(self, trouble: str = "none") -> None:
        self.trouble = trouble

    def fit(self, x: Any, y: Any) -> Troubled:
        if self.trouble == "segfault":
            ctypes.string_at(0)
        elif self.trouble == "endless":
            while True:
                use_cpu(1)
        self.classes_ = numpy.unique(y)
        self.common_ = numpy.bincount(y).argmax()
        return self

    def predict(self, x: Any) -> Any:
        return numpy.full(len(x), self.common_)


def test_a_search_finds_what_it_finds_with_loky() -> None:
    x, y = load_iris(return_X_y=True)
    grid = {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}
    with parallel_config(backend="loky", n_jobs=2):
        expected = GridSearchCV(SVC(), grid).fit(x, y)
    with parallel_config(backend="jobrunner"):
        found = GridSearchCV(SVC(), grid).fit(x, y)
    assert found.best_params_ == expected.best_params_
    assert numpy.array_equal(found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"])


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["segfault", "endless"])
def test_a_candidate_that_is_ended_fails_alone(trouble: str) -> None:
    x, y = load_iris(return_X_y=True)
    search = GridSearchCV(Troubled(), {"trouble": ["none", trouble, "some"]}, cv=2, error_score=math.nan, refit=False)
    with parallel_config(backend="jobrunner", n_jobs=2, time_limit=8), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(x, y)
    scores = search.cv_results_["mean_test_score"]
    assert [math.isnan(score) for score in scores] == [False, True, False]
    (told,) = [str(one.message) for one in caught if issubclass(one.category, FitFailedWarning)]
    assert "2 fits failed out of a total of 6" in told
    assert ("WorkerDiedError" if trouble == "segfault" else "TimeLimitExceeded") in told


def test_error_score_raise_raises_what_has_ended_it() -> None:
    x, y = load_iris(return_X_y=True)
    with parallel_config(backend="jobrunner", n_jobs=2), pytest.raises(WorkerDiedError, match="SIGSEGV"):
        cross_validate(Troubled("segfault"), x, y, cv=3, error_score="raise")


def test_cross_validate_gives_the_score_of_failed_fits() -> None:
    x, y = load_iris(return_X_y=True)
    with (
        parallel_config(backend="jobrunner", n_jobs=2),
        pytest.raises(ValueError, match="All the 3 fits failed"),
    ):
        cross_validate(Troubled("segfault"), x, y, cv=3, error_score=0.0)


class Picky(Troubled):
    """Can't be fitted where the first row is missing."""

    def fit(self, x: Any, y: Any) -> Troubled:
        self.trouble = "none" if (x[:, 0] == -1).any() else "segfault"
        return super().fit(x, y)


def test_the_estimator_of_a_fit_that_was_ended_is_an_unfitted_one() -> None:
    x, y = load_iris(return_X_y=True)
    x[0, 0] = -1
    with parallel_config(backend="jobrunner", n_jobs=2), warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        found = cross_validate(Picky(), x, y, cv=3, return_estimator=True)
    (failed,) = [one for one, score in zip(found["estimator"], found["test_score"], strict=True) if math.isnan(score)]
    assert not hasattr(failed, "classes_")
    assert pickle.loads(pickle.dumps(failed)).get_params() == failed.get_params()
    failed.fit(x, y)
    assert failed.predict(x).shape == y.shape
