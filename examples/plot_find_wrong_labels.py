"""
Find the wrong labels of a training set
=======================================

Four in ten labels of scikit-learn's digits are replaced by the next class. The flywheel sees only
these labels, and what it finds is compared with the truth.
"""

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import FlywheelClassifier, LabelIssuesDisplay, TransitionMatrixDisplay, noise
from noisyfit.metrics import detection_auroc, transition_matrix_error

# %%
# Digits with wrong labels
# ------------------------
# ``noise.pairflip`` returns the noisy labels together with what only a simulation can know: which
# of them are wrong, and the probability with which each class turns into each other.
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
noisy = noise.pairflip(y_train, 0.4, random_state=0)
print(f"{noisy.rate:.1%} of {len(y_train)} labels are wrong")

# %%
# Fit
# ---
# The classifier is not told how many labels are wrong, or in what way.
clf = FlywheelClassifier(random_state=0).fit(X_train, noisy.labels)
print(f"accuracy on clean test labels: {clf.score(X_test, y_test):.1%}")

# %%
# Look at the most suspicious labels
# ----------------------------------
# ``label_issues`` returns one row per training row, with the same columns as cleanlab.
issues = clf.label_issues().sort_values("label_quality")
print(issues.head())
print(
    f"AUROC of finding the wrong labels: {detection_auroc(noisy.flipped, clf.label_quality_):.3f}"
)

_ = LabelIssuesDisplay.from_estimator(clf, X_train.reshape(-1, 8, 8), im_kw={"cmap": "gray_r"})

# %%
# Which class is mistaken for which
# ---------------------------------
# Rows are true classes and columns given ones. The bright cells next to the diagonal are the flips.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
TransitionMatrixDisplay(noisy.transition).plot(ax=left, colorbar=False)
TransitionMatrixDisplay.from_estimator(clf, ax=right, colorbar=False)
left.set_title("true")
right.set_title("estimated")
error = transition_matrix_error(clf.transition_matrix_, noisy.transition)
print(f"misplaced probability in the average row: {error:.3f}")
