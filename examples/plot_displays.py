"""
Draw what a fit has found
=========================

Five displays show which labels look wrong, how sure the classifier is, which classes are mistaken
for which, how training went, and how the belief about single rows moved. They work like those of
scikit-learn: ``from_estimator`` draws, and the result has ``ax_`` and ``figure_``.
"""

import numpy as np
from sklearn.datasets import load_iris
from skorch.callbacks import Callback, EpochScoring

from noisyfit import (
    BeliefTrajectoryDisplay,
    ELRClassifier,
    LabelIssuesDisplay,
    LabelQualityDisplay,
    TrainingHistoryDisplay,
    TransitionMatrixDisplay,
    noise,
)
from noisyfit.metrics import relabelled_share

# %%
# Three species, three in ten labels wrong
# ----------------------------------------
X, species = load_iris(return_X_y=True, as_frame=True)
y = load_iris().target_names[species]
noisy = noise.symmetric(y, 0.3, random_state=0)


# %%
# Fit
# ---
# Callbacks record what the displays show of training. ``EpochScoring`` adds a column to the
# history; the other keeps the probabilities of twelve rows whose label is wrong.
class Beliefs(Callback):
    """Predict the same rows after each epoch."""

    def __init__(self, X):
        self.X = X

    def on_train_begin(self, net, **kwargs):
        """Forget an earlier fit."""
        self.probs_ = []

    def on_epoch_end(self, net, **kwargs):
        """Keep the probabilities of the classes."""
        self.probs_.append(net.predict_proba(self.X))


watched = np.flatnonzero(noisy.flipped)[:12]
beliefs = Beliefs(X.iloc[watched])
relabelled = EpochScoring(relabelled_share, on_train=True)
clf = ELRClassifier(validation_fraction=0.2, callbacks=[relabelled, beliefs], random_state=0)
clf.fit(X, noisy.labels)

# %%
# The most suspicious labels
# --------------------------
# Rows of a table are shown as they are; images and image files are shown as pictures.
_ = LabelIssuesDisplay.from_estimator(clf, X, n_issues=8)

# %%
# How far apart right and wrong labels are
# ----------------------------------------
# Without ``y_true``, which is seldom known, there is one histogram of all labels.
_ = LabelQualityDisplay.from_estimator(clf, y_true=y)

# %%
# Which class is mistaken for which
# ---------------------------------
_ = TransitionMatrixDisplay.from_estimator(clf)

# %%
# How training went
# -----------------
_ = TrainingHistoryDisplay.from_estimator(clf)

# %%
# How the belief about twelve wrong labels moved
# ----------------------------------------------
# Where the lines cross, the classifier stopped believing the label. For ``RLDClassifier``,
# ``from_estimator`` draws the steps of its diffusion instead.
_ = BeliefTrajectoryDisplay.from_predictions(
    beliefs.probs_, noisy.labels[watched], classes=clf.classes_, marker=""
)
