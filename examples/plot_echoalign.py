"""
Change the rows until they fit their labels
===========================================

Four in ten labels of scikit-learn's digits are wrong. EchoAlign takes every label to be right and
changes the digit instead. Where the label is right, there is little to change, and this reveals
which labels are wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from noisyfit import (
    CrossEntropyClassifier,
    EchoAlignClassifier,
    EchoSelect,
    LabelQualityDisplay,
    noise,
)
from noisyfit.nn.generators import ConditionalDiffusion

# %%
# Digits with wrong labels
# ------------------------
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=0)
noisy = noise.symmetric(y_train, 0.4, random_state=0)
print(f"{noisy.rate:.1%} of {len(y_train)} labels are wrong")

# %%
# Fit
# ---
# The generator is a small diffusion model, trained on these rows and their noisy labels. Here it is
# trained only briefly; leave ``modifier`` out for the default. The similarity decides, to show what
# it sees. Rows that had to change a lot are learned from with less weight: the originals under the
# label of similar rows, the modified rows under the given one. By default, with a generator that
# has learned the wrong labels too, the loss of networks decides instead (``select_by="auto"``).
generator = ConditionalDiffusion(n_train_steps=400, width=128)
echo = EchoSelect(generator, select_by="similarity", n_rounds=1)
clf = EchoAlignClassifier(selector=echo, random_state=0).fit(X_train, noisy.labels)
plain = CrossEntropyClassifier(random_state=0).fit(X_train, noisy.labels)
print(f"accuracy on clean test labels: {clf.score(X_test, y_test):.1%}")
print(f"cross-entropy on the rows as they were: {plain.score(X_test, y_test):.1%}")

# %%
# Originals and modified rows
# ---------------------------
# The originals with their given labels are above, the modified rows below. The first four labels
# are right, the others wrong.
selector = clf.selector_
right, wrong = np.flatnonzero(~noisy.flipped)[:4], np.flatnonzero(noisy.flipped)[:4]
figure, axes = plt.subplots(2, 8, figsize=(10, 3), layout="constrained")
for column, row in zip(axes.T, [*right, *wrong], strict=True):
    for axis, picture in zip(column, (X_train[row], selector.modified_[row]), strict=True):
        axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=16)
        axis.set_axis_off()
    column[0].set_title(f"given {noisy.labels[row]}", fontsize=9)
    column[1].set_title(f"similarity {selector.similarities_[row]:.2f}", fontsize=9)

# %%
# Similarities
# ------------
# The threshold, the black line, is Otsu's and does not depend on knowing which labels are wrong.
display = LabelQualityDisplay.from_predictions(
    selector.similarities_, flipped=noisy.flipped, name="similarity", bins=60
)
display.ax_.axvline(selector.threshold_, color="black")
display.ax_.set(xlabel="cosine similarity of original and modified row", ylabel="rows")
kept = clf.support_
print(f"{kept.sum()} originals are kept, {(~noisy.flipped)[kept].mean():.1%} with right labels")
