"""
Choose a model without clean labels
===================================

How large should the network be, and when should training stop? Four in ten labels of scikit-learn's
digits are wrong, and no clean label may help to decide. ``neg_clid``, which uses no labels at all,
is compared with accuracy on noisy held-out labels, and both with what clean labels would choose.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import EpochScoring

from noisyfit import CrossEntropyClassifier, neg_clid, noise

# %%
# Three parts of the digits
# -------------------------
# The held-out rows have noisy labels, too. The clean labels of the test rows judge the result.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
y_train = noise.symmetric(y_train, 0.4, random_state=0).labels
X_train, X_held, y_train, y_held = train_test_split(
    X_train, y_train, test_size=0.25, random_state=0
)

# %%
# When to stop
# ------------
# Scorers are callbacks, each of which adds a column to the history. Cross-entropy first learns what
# most labels say and then memorises the wrong ones. To stop in between, add
# ``EarlyStopping("neg_clid", lower_is_better=False, load_best=True)``.
scores = {
    "neg_clid": neg_clid,
    "noisy accuracy": lambda net, X, y: net.score(X_held, y_held),
    "clean accuracy": lambda net, X, y: net.score(X_test, y_test),
}
watch = [
    EpochScoring(score, name=name, lower_is_better=False, on_train=name != "neg_clid")
    for name, score in scores.items()
]
clf = CrossEntropyClassifier(max_epochs=40, callbacks=watch, random_state=0)
clf.fit(X_train, y_train, X_val=X_held, y_val=y_held)

figure, axes = plt.subplots(3, sharex=True, figsize=(7, 6), layout="constrained")
for axis, name in zip(axes, scores, strict=True):
    curve = np.array(clf.history_[:, name])
    axis.plot(curve)
    axis.axvline(curve.argmax(), linestyle=":", color="black")
    axis.set_ylabel(name)
    reached = clf.history_[int(curve.argmax()), "clean accuracy"]
    print(f"the best epoch by {name}: {curve.argmax() + 1:2d}, clean accuracy {reached:.1%}")
axes[-1].set_xlabel("epoch")
print(f"the last epoch: clean accuracy {clf.history_[-1, 'clean accuracy']:.1%}")

# %%
# Which setting
# -------------
# ``GridSearchCV(clf, grid, scoring=neg_clid)`` does this with cross-validation.
settings = [(width, epochs) for width in (32, 128, 512) for epochs in (10, 40)]
rows = []
for width, epochs in settings:
    clf = CrossEntropyClassifier(module__width=width, max_epochs=epochs, random_state=0)
    clf.fit(X_train, y_train)
    rows.append([neg_clid(clf, X_held), clf.score(X_held, y_held), clf.score(X_test, y_test)])
table = np.array(rows)

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
axis.bar(range(len(settings)), table[:, 2], color="lightgrey")
for column, name in enumerate(scores):
    best = int(table[:, column].argmax())
    axis.plot(best, table[best, 2], "o", markersize=14 - 4 * column, label=f"chosen by {name}")
    print(f"{name} chooses width {settings[best][0]}, {settings[best][1]} epochs: "
          f"clean accuracy {table[best, 2]:.1%}")  # fmt: skip
axis.set_xticks(range(len(settings)), [f"width {w}\n{e} epochs" for w, e in settings])
axis.set(ylabel="clean accuracy", ylim=(table[:, 2].min() - 0.02, 1))
axis.legend()
