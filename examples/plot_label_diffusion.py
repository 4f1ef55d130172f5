"""
Watch wrong labels walk to the right class
==========================================

``RLDClassifier`` diffuses labels: noise dissolves a label, and a denoiser, guided by the
classifier, puts it back together. If it starts from a wrong label, the walk back ends at the class
that the classifier believes to be right. With three classes every label is a point in a triangle,
so that the walk can be watched.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_blobs

from noisyfit import RLDClassifier, TransitionMatrixDisplay, noise

# %%
# Three classes, four in ten labels wrong
# ---------------------------------------
X, y = make_blobs(600, 8, centers=3, cluster_std=4.0, random_state=1)
noisy = noise.symmetric(y, 0.4, random_state=0)
clf = RLDClassifier(t_max=20, n_steps=20, random_state=0).fit(X, noisy.labels)
print(f"given labels that are right: {np.mean(noisy.labels == y):.1%}")
print(f"predictions that are right: {clf.score(X, y):.1%}")

# %%
# The walk
# --------
# ``denoise`` starts at the given labels. Each line is one wrong label, coloured by its true class:
# it leaves the corner of the given class and arrives at the corner of the true one.
shown = np.flatnonzero(noisy.flipped)[:12]
walks = clf.denoise(X[shown], noisy.labels[shown], return_trajectory=True)
corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])

figure, axis = plt.subplots(figsize=(6, 5.5), layout="constrained")
axis.plot(*corners[[0, 1, 2, 0]].T, color="black", linewidth=1)
for i, row in enumerate(shown):
    axis.plot(*(walks[:, i] @ corners).T, marker=".", color=f"C{y[row]}", alpha=0.7)
for k, (x_corner, y_corner) in enumerate(corners):
    axis.annotate(f"class {k}", (x_corner, y_corner), color=f"C{k}", weight="bold")
axis.set_axis_off()
arrived = walks[-1].argmax(1) == y[shown]
print(f"{arrived.sum()} of {len(shown)} wrong labels arrive at the true class")

# %%
# Before and after
# ----------------
# The given labels against the true ones, and the denoised labels of all rows.
denoised = clf.denoise(X, noisy.labels).argmax(1)
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axis, labels, title in zip(
    axes, (noisy.labels, denoised), ("given labels", "denoised labels"), strict=True
):
    TransitionMatrixDisplay.from_predictions(y, labels, ax=axis, colorbar=False)
    axis.set(title=title, xlabel="label")
