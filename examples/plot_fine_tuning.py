"""
Features first, then fine-tune
==============================

A network trained on photographs sees enough of other images to tell which labels are wrong, though
not enough for the last points of accuracy. So the labels are corrected on its features, and then
the whole network is trained on the corrected labels. The images here are digits, and 38 % of the
labels are wrong.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from noisyfit import CrossEntropyClassifier, ImageEmbedder, RLDClassifier, noise

images, digits = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8) / 16
X, X_test, y, y_test = train_test_split(images, digits, test_size=0.4, random_state=0)
noisy = noise.symmetric(y, 0.4, random_state=0)

# %%
# Features first
# --------------
# The network is frozen: each image is embedded once, and any method learns on the features.
# Images are small here, for the sake of this page; leave out ``size`` otherwise.
first = make_pipeline(ImageEmbedder(size=48), RLDClassifier(random_state=0)).fit(X, noisy.labels)
believed = first[-1]
print(f"labels that are right: {np.mean(noisy.labels == y):.1%} as given, ", end="")
print(f"{np.mean(believed.corrected_labels_ == y):.1%} corrected")

# %%
# Then fine-tune
# --------------
# The whole network learns from the corrected labels, each of which counts by how probable it is.
# Pretrained weights ask for a lower learning rate than random ones.
#
# This is the part for a GPU, which is used if there is one. On it, take all images, a larger size
# and ten epochs or more.
confidence = believed.label_distribution_.max(axis=1)
tuned = CrossEntropyClassifier(
    "efficientnet_lite0",
    module__size=48,
    lr=0.01,
    max_epochs=4,
    batch_size=32,
    flip=False,
    random_state=0,
)
tuned.fit(X, believed.corrected_labels_, sample_weight=confidence)

# %%
# What each step is worth
# -----------------------
# The last bar is the same network, trained on the labels as they were given.
untreated = clone(tuned).fit(X, noisy.labels)
scores = {
    "features": first.score(X_test, y_test),
    "then fine-tuned": tuned.score(X_test, y_test),
    "fine-tuned on\nthe given labels": untreated.score(X_test, y_test),
}
figure, axis = plt.subplots(figsize=(5, 3), layout="constrained")
axis.bar_label(axis.bar(list(scores), list(scores.values())), fmt="{:.1%}")
axis.set(ylabel="accuracy on test digits", ylim=(0.5, 1))
