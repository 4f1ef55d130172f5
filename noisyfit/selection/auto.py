"""One estimator that chooses among the others without clean labels, and says why."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from joblib import Memory
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import check_random_state, get_tags, indexable
from sklearn.utils.validation import check_is_fitted

from noisyfit import quality, trust
from noisyfit.estimator.bases import BaseComposition, MetaEstimatorMixin
from noisyfit.estimator.delegation import beliefs_of
from noisyfit.estimator.fitted import all_or_nothing
from noisyfit.estimator.labels import LabelProtocol, as_labels
from noisyfit.estimator.persistence.savable import Savable
from noisyfit.exceptions import NoisyFitError, warn
from noisyfit.nn.held_out import mixture_weights, softened
from noisyfit.selection.agreement import in_agreed_order
from noisyfit.selection.candidates import default_candidates
from noisyfit.selection.race import Candidate, Data, OutOfTimeError, Race, n_kept
from noisyfit.selection.words import in_words
from noisyfit.utils.parameters import AT_LEAST_ONE, POSITIVE, Interval
from noisyfit.utils.progress import progress_bar
from noisyfit.utils.validation import (
    check_lengths,
    count_rows,
    take_rows,
)

if TYPE_CHECKING:
    import pandas as pd


class AutoClassifier(LabelProtocol, MetaEstimatorMixin, Savable, BaseComposition):
    """Choose among many classifiers without clean labels, and let the best few vote.

    No method is best on all data, and which one is cannot be seen from held-out labels as they are:
    they are wrong as well. But they are wrong in the same way for all methods. Candidates are
    compared by how probable their predictions make the labels of rows that they have not seen, each
    with the transition matrix that explains these labels best.

    Successive halving (`noisyfit.selection.race`) keeps the cost low: all candidates are fitted on
    a part of the rows, the better ones on two thirds of them, and the best few on all folds and on
    all rows. Of candidates that are hardly apart the cheaper one goes on. All classifiers of the
    finalists vote, with weights that make the held-out labels most probable.

    Parameters
    ----------
    candidates : list of (str, classifier) or None, default=None
        What to choose from, from cheap to costly; each needs ``predict_proba``. None is
        cross-entropy, GCE, ELR, co-teaching, flywheel, DivideMix, CLID-MU, RLD, HRP and EchoAlign,
        and on tables also logistic regression, a vote of the nearest rows and, on at most 256
        columns, gradient boosting.
    n_candidates : int >= 1, default=3
        Number of finalists.
    cv : int >= 2, default=3
        Number of folds.
    time_budget : float > 0 or None, default=None
        Seconds for `fit`. What would take too long is not begun, and networks stop when the time
        is up; other classifiers cannot be stopped. What is chosen then depends on the machine.
    n_jobs : int or None, default=None
        Number of fits at once, as in scikit-learn.
    memory : path, joblib.Memory or None, default=None
        Keeps finished fits, so that a fit that was stopped goes on when it is called again.
    module, max_epochs, device : default=None, None, "auto"
        Of the networks among the default candidates, as in `CrossEntropyClassifier`.
    missing_label : scalar or None, default=None
        Marks rows without a label. They get a belief, but nothing learns from them.
    random_state : int, RandomState instance or None, default=None
        Divides the rows, and is passed to candidates that have none of their own.
    verbose : bool, default=False
        Whether to show a progress bar. On a terminal there is one after some seconds anyway.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    leaderboard_ : DataFrame
        One row a candidate, the best first: how far it came (``n_fits``, ``n_rows`` of the largest
        fit), its ``score`` (mean log-probability of held-out labels, in nats), ``error`` (standard
        error of its difference to the best one of the same rounds), ``accuracy`` on held-out given
        labels, ``seconds`` of all its fits, ``agreement`` (share of held-out rows where it predicts
        what the vote predicts), its ``weight`` in the vote, and why it left (``failure``).
    members_ : list of lists of classifiers
        Those of each finalist: one a fold, and one of all rows.
    weights_, temperatures_ : ndarray of shape (n_finalists,)
        Of the finalists in the vote, and by which their beliefs are softened first.
    best_estimator_ : classifier
        The last one of the best finalist, fitted on all rows.
    label_quality_ : ndarray of shape (n_samples,)
        Probability that the label is right, by the vote of classifiers that have not seen the row
        and the transition matrix that explains all labels. Which row has which of these
        probabilities is decided together with the finalists that rate what they have learned from
        (`noisyfit.selection.agreement`). In [0, 1]; 1 for trusted rows, NaN without a label. Low
        means suspicious.
    label_distribution_ : ndarray of shape (n_samples, n_classes)
        Probabilities of the true classes by the same vote, given the label too.
    held_out_vote_ : ndarray of shape (n_samples, n_classes)
        The vote alone.
    corrected_labels_, given_labels_ : ndarray of shape (n_samples,)
    transition_matrix_ : ndarray of shape (n_classes, n_classes)

    Notes
    -----
    Scores of different rounds are not comparable: more rows make a better classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisyfit import AutoClassifier, CrossEntropyClassifier, GCEClassifier, noise
    >>> X, y = load_iris(return_X_y=True)
    >>> noisy = noise.symmetric(y, 0.3, random_state=0)
    >>> candidates = [("cross_entropy", CrossEntropyClassifier()), ("gce", GCEClassifier())]
    >>> auto = AutoClassifier(candidates, n_candidates=1, random_state=0).fit(X, noisy.labels)
    >>> bool(auto.score(X, y) > 0.85)
    True
    """

    __metadata_request__fit: ClassVar = {"clean_mask": True}
    _needed: ClassVar[tuple[str, ...]] = (
        "classes_", "members_", "temperatures_", "weights_", "n_features_in_",
    )  # fmt: skip
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "candidates": [list, None],
        "n_candidates": [AT_LEAST_ONE],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "time_budget": [POSITIVE, None],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        candidates: Sequence[tuple[str, Any]] | None = None,
        *,
        n_candidates: int = 3,
        cv: int = 3,
        time_budget: float | None = None,
        n_jobs: int | None = None,
        memory: str | Memory | None = None,
        module: Any = None,
        max_epochs: int | None = None,
        device: Any = "auto",
        missing_label: Any = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.candidates = candidates
        self.n_candidates = n_candidates
        self.cv = cv
        self.time_budget = time_budget
        self.n_jobs = n_jobs
        self.memory = memory
        self.module = module
        self.max_epochs = max_epochs
        self.device = device
        self.missing_label = missing_label
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.three_d_array = True
        if self.candidates:
            parts = [get_tags(candidate) for _, candidate in self.candidates]
            for what in ("sparse", "allow_nan", "categorical", "string", "three_d_array"):
                setattr(tags.input_tags, what, any(getattr(p.input_tags, what) for p in parts))
        return tags

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, and with ``deep`` those of the candidates by their names."""
        return self._get_params("candidates", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, replace a candidate by its name, or set its parameters."""
        self._set_params("candidates", **params)
        return self

    # ------------------------------------------------------------------------------- fit

    def fit(self, X: Any, y: Any, *, clean_mask: Any = None) -> Self:
        """Choose, and fit what was chosen.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame
            Rows as the candidates take them. They are divided, but not converted.
        y : array-like of shape (n_samples,)
            Given labels of any type.
        clean_mask : array-like of bool of shape (n_samples,), default=None
            Rows whose label is known to be right.

        Raises
        ------
        ValueError, TypeError
            If a parameter or the data cannot be used; what a candidate says of the data, if none
            could be fitted. The estimator is left unchanged.
        NoisyFitError
            If the time is up before any candidate was fitted.
        """
        with all_or_nothing(self):
            self._check_parameters()
            (X,) = indexable(X)
            data = self._read_training(X, y, clean_mask)
            seed = check_random_state(self.random_state).randint(2**31 - 1)
            candidates = self._make_candidates(X)
            finalists = self._race(data, candidates, seed)
            self._vote(data, finalists)
            self._write_standings(candidates, finalists)
        return self

    def _read_training(self, X: Any, y: Any, clean_mask: Any) -> Data:
        codes, trusted = self._read_training_labels(X, y, clean_mask)
        most = int(np.bincount(codes + 1, minlength=len(self.classes_) + 1)[1:].max())
        if most < self.cv:
            raise ValueError(
                "cv must be at most the number of labels of the largest class. Got "
                f"cv={self.cv} and {most} of {len(codes)} rows (n_samples={len(codes)}). Lower "
                "cv."
            )
        return Data(X, codes, trusted, self.classes_)

    def _make_candidates(self, X: Any) -> list[Candidate]:
        chosen = self.candidates
        if chosen is None:
            chosen = default_candidates(
                X, module=self.module, max_epochs=self.max_epochs, device=self.device
            )
        if not chosen:
            raise ValueError("candidates must hold a classifier. Got none. Pass None for all.")
        for name, candidate in chosen:
            if isinstance(candidate, type) or not hasattr(candidate, "predict_proba"):
                raise ValueError(
                    "candidates must be classifiers with predict_proba. Got "
                    f"{candidate!r} as {name!r}. Pass CrossEntropyClassifier(), for example."
                )
        names = [name for name, _ in chosen]
        self._validate_names(names)
        return [Candidate(name, candidate) for name, candidate in chosen]

    def _race(self, data: Data, candidates: list[Candidate], seed: int) -> list[Candidate]:
        splitter = StratifiedKFold(self.cv, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class")  # one label is enough
            folds = list(splitter.split(data.codes, data.codes))
        memory = self.memory if isinstance(self.memory, Memory) else Memory(self.memory, verbose=0)
        n_fits = len(candidates) + n_kept(len(candidates), self.n_candidates)
        n_fits += self.cv * self.n_candidates
        with progress_bar(n_fits, "fit", self.verbose) as bar:
            race = Race(
                data, folds, memory=memory, seed=seed, n_jobs=self.n_jobs,
                time_budget=self.time_budget, bar=bar,
            )  # fmt: skip
            try:
                return race.run(candidates, self.n_candidates)
            except OutOfTimeError:
                raise NoisyFitError(
                    "time_budget must be long enough to fit one candidate on a part of the rows. "
                    f"Got {self.time_budget} seconds. Raise it, or begin candidates with one that "
                    "is faster."
                ) from None

    def _vote(self, data: Data, finalists: list[Candidate]) -> None:
        """Write who votes with which weight, and what they believe of rows not seen."""
        self.members_ = [[part.classifier for part in c.parts] for c in finalists]
        self.temperatures_ = np.array([c.temperature for c in finalists])
        beliefs = self._softened([self._out_of_fold(c, data) for c in finalists])
        held_out = finalists[0].unseen
        judged = held_out[(data.codes[held_out] >= 0) & ~data.trusted[held_out]]
        given = torch.as_tensor(data.codes[judged])
        self.weights_ = mixture_weights(torch.as_tensor(beliefs[:, judged]), given).numpy()
        if len(held_out) < len(data.codes):
            warn(
                "Every row should be rated by classifiers that have not seen it. The time was up "
                f"after those of {len(held_out)} of {len(data.codes)} rows, and the others are "
                "rated by ones that have. Raise time_budget."
            )
        self.best_estimator_ = self.members_[0][-1]
        self._write_features()
        self.held_out_vote_ = np.einsum("m,mnk->nk", self.weights_, beliefs)
        known = trust.weigh(self.held_out_vote_, data.codes, data.trusted)
        rating = trust.label_quality(known.distribution, data.codes)
        doubtful = (data.codes >= 0) & ~data.trusted
        rating = in_agreed_order(rating, doubtful, finalists)
        self._write_beliefs(data.codes, rating, known.distribution)

    def _out_of_fold(self, candidate: Candidate, data: Data) -> NDArray[np.float64]:
        """Return what a finalist believes of all rows, by classifiers that have not seen them."""
        beliefs = np.full((len(data.codes), len(self.classes_)), np.nan)
        for part in candidate.parts:
            beliefs[part.unseen] = part.beliefs
        left = np.isnan(beliefs[:, 0])
        if left.any():  # the time was up before the last fold
            classifiers = [part.classifier for part in candidate.parts]
            beliefs[left] = self._mean_belief(classifiers, take_rows(data.X, left))
        return beliefs

    def _softened(self, beliefs: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return what each finalist believes, as sure as it is right."""
        pairs = zip(beliefs, self.temperatures_, strict=True)
        return np.stack([softened(torch.as_tensor(b), float(t)).numpy() for b, t in pairs])

    def _mean_belief(self, classifiers: Sequence[Any], X: Any) -> NDArray[np.float64]:
        beliefs = [beliefs_of(classifier, X, self.classes_) for classifier in classifiers]
        mean: NDArray[np.float64] = np.mean(beliefs, axis=0)
        return mean

    def _write_features(self) -> None:
        """Say of the rows what the best classifier says of them."""
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.best_estimator_, name):
                setattr(self, name, getattr(self.best_estimator_, name))

    # ------------------------------------------------------------------------------- predict

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities of the classes, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        beliefs = self._softened([self._mean_belief(members, X) for members in self.members_])
        return np.einsum("m,mnk->nk", self.weights_, beliefs)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, shape (n_samples,)."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def score_labels(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Rate the labels of new rows.

        Parameters
        ----------
        X : array-like, sparse matrix or data frame
            Rows like those of `fit`.
        y : array-like of shape (n_samples,)
            Their given labels.

        Returns
        -------
        ndarray of shape (n_samples,)
            Their predicted probability. In [0, 1]; low means suspicious, NaN means that there is
            no label.
        """
        check_is_fitted(self)
        labels = as_labels(y)
        check_lengths(count_rows(X), len(labels))
        return quality.self_confidence(self._encoded(labels), self.predict_proba(X))

    # ------------------------------------------------------------------------------- reasons

    def _write_standings(self, candidates: list[Candidate], finalists: list[Candidate]) -> None:
        """Write how far each candidate came, and warn of those that could not be fitted."""
        others = [candidate for candidate in candidates if candidate not in finalists]
        others.sort(key=lambda candidate: (-candidate.n_fitted, -candidate.score))
        winners, shares = self.held_out_vote_.argmax(1), [*self.weights_, *np.zeros(len(others))]
        self.standings_ = [
            {
                "name": candidate.name,
                "n_fits": candidate.n_fits,
                "n_rows": candidate.n_fitted,
                "score": candidate.score,
                "error": candidate.error,
                "accuracy": candidate.accuracy,
                "seconds": candidate.seconds,
                "agreement": candidate.agreement(winners),
                "weight": float(weight),
                "failure": "" if candidate.failure is None else str(candidate.failure),
            }
            for candidate, weight in zip([*finalists, *others], shares, strict=True)
        ]
        self.doubts_ = [said for c in finalists for said in c.said]
        for candidate in candidates:
            if candidate.failure is not None and not isinstance(candidate.failure, OutOfTimeError):
                what = "was not fitted on all rows" if candidate in finalists else "left the race"
                warn(
                    f"Candidates should be able to learn from these rows. {candidate.name} "
                    f"{what}: {candidate.failure} Leave it out of candidates, if that is "
                    "as it should be."
                )

    @property
    def leaderboard_(self) -> pd.DataFrame:
        """How far each candidate came, the best one first."""
        import pandas as pd

        return pd.DataFrame(self.standings_).set_index("name")

    def explain(self) -> str:
        """Return a paragraph: what was tried, what won by how much, and what to doubt."""
        check_is_fitted(self)
        return in_words(self)
