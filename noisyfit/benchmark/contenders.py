"""The methods that a comparison can name: the package's, their variants, and those of others.

The package's methods are found by their class, so that a new one needs no line here.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning

import noisyfit
from noisyfit import AutoClassifier
from noisyfit.benchmark.variants import VARIANTS
from noisyfit.utils.synonyms import did_you_mean

BASELINE = "cross_entropy"
CLEAN = "cross_entropy_clean"  # the baseline on clean labels: the best one can hope for
AUTO = "auto"  # which chooses among the package's
CLEANLAB = ("cleanlab+mlp", "cleanlab+ce", "cleanlab+boosting", "cleanlab+logistic")
SKLEARN = ("sklearn+logistic", "sklearn+forest", "sklearn+boosting", "sklearn+neighbors")
EPOCHS = {"table": 60, "image": 30}  # the package's defaults, for other packages' methods


def package_methods() -> dict[str, type[Any]]:
    """Return the package's classifiers by short name, the baseline first."""
    public = [getattr(noisyfit, name) for name in noisyfit.__all__]
    found = {
        short_name(value.__name__): value
        for value in public
        if isinstance(value, type) and issubclass(value, ClassifierMixin)
    }
    for name in ("NoisyLabelClassifier", "LabelCleaner", "AutoClassifier"):  # not methods
        del found[short_name(name)]
    return {BASELINE: found[BASELINE]} | found


def short_name(class_name: str) -> str:
    """Write ``CLIDMetaClassifier`` as ``clid_meta``."""
    words = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    return re.sub(words, "_", class_name.removesuffix("Classifier")).lower()


def method_names(given: Iterable[str]) -> list[str]:
    """Return the full names of methods, without duplicates.

    Parameters
    ----------
    given : iterable of str
        Short names or class names, in upper or lower case, with or without ``_``, or the start of
        one. ``"package"`` means every method of the package, ``"all"`` every method there is,
        ``"hrp:base"`` a variant of a method and ``"hrp:all"`` all its variants.

    Raises
    ------
    ValueError
        If a name matches no method, or several.
    """
    package = list(package_methods())
    every = [*package, AUTO, CLEAN, *CLEANLAB, *SKLEARN]
    groups = {"package": package, "all": every}
    found: list[str] = []
    for name in given:
        method, colon, variant = name.partition(":")
        if colon:
            found += _variants(_one_of(every, method), variant)
        else:
            found += groups[name] if name in groups else [_one_of(every, name)]
    return list(dict.fromkeys(found))


def _variants(method: str, name: str) -> list[str]:
    known = [full for full in VARIANTS if full.startswith(f"{method}:")]
    if not known:
        raise ValueError(f"A variant must be one of {list(VARIANTS)}. Got one of {method!r}.")
    return known if name == "all" else [_one_of(known, f"{method}:{name}")]


def _one_of(every: list[str], name: str) -> str:
    wanted = _plain(name)
    exact = [known for known in every if _plain(known) == wanted]
    begin = exact or [known for known in every if _plain(known).startswith(wanted)]
    if len(begin) != 1:
        raise ValueError(
            f"A method must be 'package', 'all' or one of {every}. Got {name!r}, which "
            f"{'could be ' + ' or '.join(begin) if begin else 'is none of them'}."
            + did_you_mean(name, every)
        )
    return begin[0]


def _plain(name: str) -> str:
    return re.sub(r"[_\- ]", "", name.lower().removesuffix("classifier"))


def make(
    name: str,
    *,
    module: str | None = None,
    max_epochs: int | None = None,
    device: str = "auto",
    random_state: Any = None,
) -> Any:
    """Return the unfitted estimator of a full name, with the defaults or the variant's settings."""
    if name in CLEANLAB:
        return CleanlabClassifier(
            name.removeprefix("cleanlab+"),
            module=module,
            max_epochs=max_epochs,
            device=device,
            random_state=random_state,
        )
    if name in SKLEARN:
        return SklearnClassifier(name.removeprefix("sklearn+"), random_state=random_state)
    if name == AUTO:
        return AutoClassifier(
            module=module, max_epochs=max_epochs, device=device, random_state=random_state
        )
    clf = package_methods()[BASELINE if name == CLEAN else name.partition(":")[0]]()
    shared = {"module": module, "max_epochs": max_epochs, "device": device}
    wanted: dict[str, Any] = shared | {"random_state": random_state}
    params = clf.get_params(deep=False)
    if "max_epochs" not in params and "estimator" in params:  # it wraps a classifier
        wanted["estimator"] = make(BASELINE, module=module, max_epochs=max_epochs, device=device)
    known = {key: value for key, value in wanted.items() if key in params or key == "estimator"}
    return clf.set_params(**known, **copy.deepcopy(VARIANTS.get(name, {})))


class CleanlabClassifier(ClassifierMixin, BaseEstimator):
    """cleanlab's ``CleanLearning`` with this package's interface.

    It finds label issues by cross-validation, drops those rows and fits a classifier on the rest.

    Parameters
    ----------
    kind : {"mlp", "ce", "boosting", "logistic"}, default="mlp"
        The classifier: scikit-learn's ``MLPClassifier`` on standardised columns,
        `noisyfit.CrossEntropyClassifier`, or that kind of `SklearnClassifier`.
    module : str or None, default=None
    max_epochs : int or None, default=None
    device : str, default="auto"
        These three are for ``"ce"``; the MLP uses only ``max_epochs``.
    random_state : int or None, default=None
    """

    def __init__(
        self,
        kind: str = "mlp",
        *,
        module: str | None = None,
        max_epochs: int | None = None,
        device: str = "auto",
        random_state: int | None = None,
    ) -> None:
        self.kind = kind
        self.module = module
        self.max_epochs = max_epochs
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on labels some of which are wrong."""
        from cleanlab.classification import CleanLearning

        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        before = np.random.get_state()  # cleanlab seeds the global generator
        try:
            self.learning_ = CleanLearning(
                self._classifier(X),
                seed=self.random_state,
                find_label_issues_kwargs={"n_jobs": 1},  # its processes fail inside other processes
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # epochs are few on purpose
                self.learning_.fit(self._rows(X), codes)
        finally:
            np.random.set_state(before)
        self.label_quality_ = self.learning_.get_label_issues()["label_quality"].to_numpy()
        return self

    def _classifier(self, X: Any) -> Any:
        if self.kind == "ce":
            return make(
                BASELINE,
                module=self.module,
                max_epochs=self.max_epochs,
                device=self.device,
                random_state=self.random_state,
            )
        if self.kind in ("boosting", "logistic"):
            return SklearnClassifier(self.kind, random_state=self.random_state)
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        epochs = self.max_epochs or EPOCHS["table" if np.ndim(X) == 2 else "image"]
        network = MLPClassifier((128, 128), max_iter=epochs, random_state=self.random_state)
        return make_pipeline(StandardScaler(), network)

    def _rows(self, X: Any) -> NDArray[Any]:
        return np.asarray(X) if self.kind == "ce" else _flat(X)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probabilities of the classes, shape (n_samples, n_classes)."""
        return np.asarray(self.learning_.predict_proba(self._rows(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_samples,)."""
        return self.classes_[np.asarray(self.learning_.predict(self._rows(X)))]


class SklearnClassifier(ClassifierMixin, BaseEstimator):
    """The classifiers one tries first on a table, with scikit-learn's defaults; pixels are columns.

    Parameters
    ----------
    kind : {"logistic", "forest", "boosting", "neighbors"}, default="forest"
        ``LogisticRegression`` on standardised columns, ``RandomForestClassifier``,
        ``HistGradientBoostingClassifier``, or a vote of the nearest rows on standardised columns,
        as many as the square root of the number of rows.
    random_state : int or None, default=None
    """

    def __init__(self, kind: str = "forest", *, random_state: int | None = None) -> None:
        self.kind = kind
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on labels some of which are wrong."""
        self.classifier_ = self._classifier(len(X)).fit(_flat(X), y)
        self.classes_ = self.classifier_.classes_
        return self

    def _classifier(self, n: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        if self.kind == "forest":
            return RandomForestClassifier(random_state=self.random_state)
        if self.kind == "boosting":
            return HistGradientBoostingClassifier(random_state=self.random_state)
        if self.kind == "neighbors":
            return make_pipeline(StandardScaler(), KNeighborsClassifier(round(n**0.5)))
        return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probabilities of the classes, shape (n_samples, n_classes)."""
        return np.asarray(self.classifier_.predict_proba(_flat(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_samples,)."""
        return np.asarray(self.classifier_.predict(_flat(X)))


def _flat(X: Any) -> NDArray[Any]:
    rows = np.asarray(X)
    return rows.reshape(len(rows), -1)
