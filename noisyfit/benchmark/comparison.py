"""Compare methods on your own data, with or without clean labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length

from noisyfit.benchmark.cells import Problem, held_out
from noisyfit.benchmark.contenders import CLEAN, make, method_names
from noisyfit.benchmark.measuring import measure, one_thread
from noisyfit.benchmark.workers import check_backend, results
from noisyfit.utils.devices import resolve_device
from noisyfit.utils.parameters import (
    AT_LEAST_ONE,
    Interval,
    StrOptions,
    check_number,
    check_parameters,
)
from noisyfit.utils.validation import take_rows

if TYPE_CHECKING:
    import pandas as pd

CONSTRAINTS: dict[str, list[Any]] = {
    "cv": [Interval(Integral, 2, None, closed="left"), None],
    "max_epochs": [AT_LEAST_ONE, None],
    "random_state": ["random_state"],
    "n_jobs": [AT_LEAST_ONE],
    "backend": [StrOptions({"loky", "threading", "dask", "ray"})],
}


def compare(
    methods: Sequence[Any] | Mapping[str, Any],
    X: Any,
    y_noisy: Any,
    *,
    X_test: Any = None,
    y_test: Any = None,
    holdout: float = 0.2,
    cv: int | None = None,
    max_epochs: int | None = None,
    device: str = "auto",
    random_state: Any = None,
    n_jobs: int = 1,
    backend: str = "loky",
) -> pd.DataFrame:
    """Fit several methods on the same noisy labels and compare how well they do.

    No clean label is needed. Without any, there are three scores: the accuracy on the noisy labels
    of held-out rows, the CLID score, and how far the methods agree. None of them is an accuracy on
    true labels. `noisyfit.neg_clid` says what CLID can tell: it is meant for comparing settings of
    one method.

    Parameters
    ----------
    methods : sequence of str or of classifiers, or dict of such
        Names as in ``noisyfit benchmark``, such as ``"flywheel"``, ``"package"`` or
        ``"cleanlab+ce"``, and unfitted classifiers of any kind, which are cloned. The keys of a
        dict name its values.
    X : array-like or DataFrame
        A table or images.
    y_noisy : array-like of shape (n_samples,)
        Labels of any type, some of which are wrong.
    X_test, y_test : arrays, default=None
        Rows whose labels are known to be right, for scoring. They are not used to choose anything.
    holdout : float in (0, 1), default=0.2
        Fraction of the rows that is held out from training. Not used with `cv`.
    cv : int >= 2 or None, default=None
        Number of folds, each of which is held out once; the table then has means and standard
        deviations.
    max_epochs : int >= 1 or None, default=None
        Epochs of the methods given by name. None means each method's default.
    device : str, default="auto"
        Device of the methods given by name.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds, and of every classifier that has none of its own.
    n_jobs : int >= 1, default=1
        Number of fits at once, each with one thread.
    backend : {"loky", "threading", "dask", "ray"}, default="loky"
        What runs them: processes or threads of this machine, or the cluster that this process is
        connected to or that ``DASK_SCHEDULER_ADDRESS`` or ``RAY_ADDRESS`` names.

    Returns
    -------
    DataFrame
        One row per method, in the order given, with these columns:

        - ``noisy_validation``: accuracy on the noisy labels of the held-out rows;
        - ``neg_clid``: `noisyfit.neg_clid` on these rows, NaN where there are no embeddings;
        - ``agreement``: fraction of these rows for which another method predicts the same class,
          averaged over the others;
        - ``accuracy``: accuracy on the test rows, if there are any;
        - ``accuracy_clid``, ``accuracy_noisy_validation``: accuracy on the test rows at the epoch
          that each of the first two scores chooses, for methods with epochs;
        - ``suspicious``: fraction of the training labels with a quality below 0.5;
        - ``seconds``: time of one fit, with one thread on a CPU.

        With `cv`, each ``name`` also has a column ``name_std``.

    Raises
    ------
    ValueError
        If a method does not exist, or if a parameter or the data cannot be used.
    ImportError
        If the package of the backend is not installed.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from noisyfit import noise
    >>> from noisyfit.benchmark import compare
    >>> X, y = load_iris(return_X_y=True)
    >>> y_noisy = noise.symmetric(y, 0.3, random_state=0).labels
    >>> methods = ["cross_entropy", LogisticRegression(max_iter=1000)]
    >>> table = compare(methods, X, y_noisy, max_epochs=5, random_state=0)
    >>> list(table.index), bool(table["agreement"].min() > 0.5)
    (['cross_entropy', 'LogisticRegression'], True)
    """
    import pandas as pd

    check_parameters(
        CONSTRAINTS,
        {"cv": cv, "max_epochs": max_epochs, "random_state": random_state, "n_jobs": n_jobs,
         "backend": backend},
        "compare",
    )  # fmt: skip
    check_backend(backend)
    check_number("holdout", holdout)
    resolve_device(device)
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    contenders = _contenders(methods, max_epochs, device, seed)
    rows = X if hasattr(X, "iloc") else np.asarray(X)
    labels = np.asarray(y_noisy)
    check_consistent_length(rows, labels)
    if (X_test is None) != (y_test is None):
        raise ValueError("X_test and y_test must be given together. Got one of them. Pass both.")
    test = (X_test, None if y_test is None else np.asarray(y_test))
    tasks = {
        (fold, name): (clf, rows, labels, *divided, *test)
        for fold, divided in enumerate(_splits(labels, holdout, cv, seed))
        for name, clf in contenders.items()
    }
    shared = [rows, labels, *test]
    fits: dict[int, dict[str, Any]] = {fold: dict.fromkeys(contenders) for fold, _ in tasks}
    with one_thread():
        found = results(_attempt, tasks, backend=backend, jobs=n_jobs, shared=shared)
        for (fold, name), fit in found:
            if isinstance(fit, Exception):
                raise fit
            fits[fold][name] = fit
    measured = [_one_fold(fold) for fold in fits.values()]
    every = pd.concat(measured, keys=range(len(measured)), names=["fold", "method"])
    by_method = every.dropna(axis=1, how="all").groupby(level="method", sort=False)
    table = by_method.mean()
    return table if cv is None else table.join(by_method.std(ddof=1).add_suffix("_std"))


def _contenders(
    methods: Sequence[Any] | Mapping[str, Any], max_epochs: int | None, device: str, seed: int
) -> dict[str, Any]:
    """Return unfitted estimators by name, none of which is the user's own object."""
    pairs: list[tuple[str | None, Any]] = (
        list(methods.items())
        if isinstance(methods, Mapping)
        else [(None, method) for method in ([methods] if isinstance(methods, str) else methods)]
    )
    found: dict[str, Any] = {}
    for given, method in pairs:
        if isinstance(method, str):
            for name in method_names([method]):
                clf = make(name, max_epochs=max_epochs, device=device, random_state=seed)
                found[_unused(given or name, found)] = clf
        else:
            clf = clone(method() if isinstance(method, type) else method)
            if clf.get_params(deep=False).get("random_state", 0) is None:
                clf.set_params(random_state=seed)
            found[_unused(given or type(clf).__name__, found)] = clf
    found.pop(CLEAN, None)  # it would need clean labels of the training rows
    if not found:
        raise ValueError("methods must name at least one method. Got none. Pass 'package'.")
    return found


def _unused(name: str, used: dict[str, Any]) -> str:
    number = sum(known == name or known.startswith(f"{name} (") for known in used)
    return f"{name} ({number + 1})" if number else name


def _splits(
    labels: NDArray[Any], holdout: float, cv: int | None, seed: int
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    if cv is None:
        if not 0 < holdout < 1:
            raise ValueError(f"holdout must lie in (0, 1). Got {holdout}.")
        return [held_out(labels, holdout, seed)]
    if cv > len(labels):
        raise ValueError(
            f"cv must be at most the number of rows, {len(labels)}. Got {cv}. Lower it."
        )
    enough = np.unique(labels, return_counts=True)[1].min() >= cv
    kind = StratifiedKFold if enough else KFold
    return list(kind(cv, shuffle=True, random_state=seed).split(labels[:, None], labels))


def _attempt(*given: Any) -> tuple[dict[str, Any], NDArray[Any]] | Exception:
    """Return what goes wrong as well: workers raise nothing."""
    try:
        return _fit_one(*given)
    except Exception as error:
        return error


def _fit_one(
    unfitted: Any,
    X: Any,
    y: NDArray[Any],
    fit: NDArray[Any],
    held: NDArray[Any],
    X_test: Any,
    y_test: NDArray[Any] | None,
) -> tuple[dict[str, Any], NDArray[Any]]:
    """Fit a method on some rows; return its scores, and what it predicts for the others."""
    clf = clone(unfitted)
    problem = Problem(
        take_rows(X, fit),
        y[fit],
        X_val=take_rows(X, held),
        y_val=y[held],
        X_test=X_test,
        y_test=y_test,
    )
    row = measure(clf, problem)
    quality = getattr(clf, "label_quality_", None)
    scores = {
        "noisy_validation": row["noisy_validation"],
        "neg_clid": row["neg_clid"],
        "agreement": np.nan,
        "accuracy": row["accuracy_last"],
        "accuracy_clid": row.get("accuracy_clid"),
        "accuracy_noisy_validation": row.get("accuracy_noisy_validation"),
        "suspicious": None if quality is None else float(np.mean(np.asarray(quality) < 0.5)),
        "seconds": row["seconds"],
    }
    return scores, np.asarray(clf.predict(problem.X_val))


def _one_fold(fits: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per method, with how far it agrees with the others."""
    import pandas as pd

    table = {name: scores for name, (scores, _) in fits.items()}
    predicted = {name: classes for name, (_, classes) in fits.items()}
    for name, own in predicted.items():
        others = [np.mean(own == other) for key, other in predicted.items() if key != name]
        table[name]["agreement"] = float(np.mean(others)) if others else np.nan
    return pd.DataFrame.from_dict(table, orient="index").astype(np.float64)
