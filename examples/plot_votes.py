"""
Votes of several people
=======================

Six people label the same digits. Some are careful, one takes every 3 for an 8, one guesses half of
the time, and nobody sees all images. The votes go in as they are, a column for each person.
"""

# %%
# Each person says what he sees of a random half of the images; -1 means that he did not see it.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import CrossEntropyClassifier

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
rng = np.random.default_rng(0)
people = {"Ann": 0.95, "Bob": 0.9, "Cem": 0.8, "Dai": 0.8, "Eva": 0.7, "Fay": 0.5}  # right votes


def said_by(name: str) -> np.ndarray:
    """Return what a person says of all images."""
    guesses = np.where(rng.random(len(y)) < people[name], y, rng.integers(0, 10, len(y)))
    return np.where((y == 3) & (name == "Cem"), 8, guesses)


votes = np.stack([said_by(name) for name in people], axis=1)
votes[rng.random(votes.shape) < 0.5] = -1

# %%
# The estimator asks networks about images that they have not seen, and weighs every vote.
clf = CrossEntropyClassifier(missing_label=-1, max_epochs=20, random_state=0).fit(X, votes)
counts = np.stack([(votes == label).sum(1) for label in range(10)], axis=1)
voted = counts.any(axis=1)
print(f"majority right:  {np.mean(counts.argmax(1)[voted] == y[voted]):.1%}")
print(f"consensus right: {np.mean(clf.consensus_[voted] == y[voted]):.1%}")
print(f"on new images:   {clf.score(X_test, y_test):.1%}")

# %%
# Who is how reliable, and how: Cem's row of the 3 gives him away.
figure, axes = plt.subplots(2, 3, figsize=(9, 6.4), layout="constrained")
for ax, name, matrix, quality in zip(
    axes.flat, people, clf.annotator_confusion_, clf.annotator_quality_, strict=True
):
    ax.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
    ax.set(title=f"{name}: {quality:.0%} right", xlabel="vote", ylabel="true class")
    ax.set(xticks=range(0, 10, 3), yticks=range(0, 10, 3))
plt.show()

# %%
# The images on which people disagree most with what is now believed, and who they are.
issues = clf.label_issues().sort_values("label_quality")
issues["disagreeing_annotators"] = [
    ", ".join([*people][k] for k in found) for found in issues["disagreeing_annotators"]
]
print(issues[["predicted_label", "label_quality", "n_votes", "disagreeing_annotators"]].head(8))
