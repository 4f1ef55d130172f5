"""
Notice rows of classes that were never seen
===========================================

A network trained on the digits 0 to 6, half of whose labels are wrong, is shown the digits 7 to 9.
It has to call each of them a 0 to 6, but can it at least tell that it has never seen such a row?
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import CrossEntropyClassifier, HRPClassifier, noise
from noisyfit.metrics import fpr_at_95_tpr, ood_auroc, ood_scores

# %%
# Known and unknown digits
# ------------------------
X, y = load_digits(return_X_y=True)
X_unknown = X[y >= 7]
X_train, X_known, y_train, y_known = train_test_split(
    X[y < 7], y[y < 7], test_size=0.3, stratify=y[y < 7], random_state=0
)
noisy = noise.symmetric(y_train, 0.5, random_state=0)
print(f"{noisy.rate:.1%} of {len(y_train)} labels are wrong")


# %%
# Four scores
# -----------
# ``msp`` and ``energy`` use the logits, ``mahalanobis`` and ``knn`` the embeddings. All of them are
# high for rows unlike the training data. The class means of ``mahalanobis`` need labels; here they
# are the corrected ones.
def score_rows(clf, X, method):
    """Return one score per row; high means unknown."""
    logits = clf.predict_logits(X)
    return ood_scores(
        logits,
        clf.transform(X),
        method=method,
        train_embeddings=clf.transform(X_train),
        train_labels=clf.corrected_labels_,
    )


methods = ("msp", "energy", "mahalanobis", "knn")
classifiers = [
    CrossEntropyClassifier(random_state=0),
    HRPClassifier(max_epochs=30, random_state=0),
]
figure, axes = plt.subplots(len(classifiers), sharex=True, figsize=(7, 6), layout="constrained")
for clf, axis in zip(classifiers, axes, strict=True):
    clf.fit(X_train, noisy.labels)
    name = type(clf).__name__
    print(f"{name}: {clf.score(X_known, y_known):.1%} right on known digits")
    for method in methods:
        known, unknown = (score_rows(clf, rows, method) for rows in (X_known, X_unknown))
        print(f"  {method:12s} AUROC {ood_auroc(known, unknown):.3f}, "
              f"FPR95 {fpr_at_95_tpr(known, unknown):.3f}")  # fmt: skip
        if method == "energy":
            bins = np.histogram_bin_edges(np.concatenate([known, unknown]), 50)
            axis.hist(known, bins, density=True, alpha=0.6, label="digits 0 to 6")
            axis.hist(unknown, bins, density=True, alpha=0.6, label="digits 7 to 9")
    axis.set(title=name, ylabel="density")
axes[-1].set_xlabel("energy")
axes[0].legend()

# %%
# Wrong labels hurt twice: a network that has memorised them is more often wrong about known digits,
# and its logits say less about unknown ones. If you reject the rows that score above 95 % of the
# known ones, FPR95 is the fraction of the unknown rows that get through.
