"""
Find the wrong labels of photographs
====================================

Two photographs, of a temple and of a flower, are cut into small pictures, and a quarter of these
get the name of the other photograph. A network trained on ImageNet sees what is in them; the
classifier behind it only has to find out which labels to believe.
"""

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images
from sklearn.pipeline import make_pipeline

from noisyfit import ImageEmbedder, LabelIssuesDisplay, RLDClassifier, noise
from noisyfit.metrics import detection_auroc

# %%
# Files with wrong labels
# -----------------------
# Images may be an array or, as here, a list of files.
folder = TemporaryDirectory()
files, names = [], []
for name, photograph in zip(["temple", "flower"], load_sample_images().images, strict=True):
    for top, left in product(range(0, 360, 40), range(0, 570, 40)):
        files.append(Path(folder.name, f"{name}-{top}-{left}.png"))
        names.append(name)
        Image.fromarray(photograph[top : top + 64, left : left + 64]).save(files[-1])
noisy = noise.symmetric(names, 0.3, random_state=0)
print(f"{noisy.rate:.1%} of {len(files)} labels are wrong")

# %%
# Fit
# ---
# ``ImageEmbedder`` comes with its network: ``pip install "noisyfit[images]"``. With ``memory`` no
# picture is embedded again, by a second fit or by a search.
embedder = ImageEmbedder(memory=Path(folder.name, "features"))
clf = make_pipeline(embedder, RLDClassifier(random_state=0)).fit(files, noisy.labels)
quality = clf[-1].label_quality_
print(f"accuracy on the true labels: {np.mean(clf.predict(files) == names):.1%}")
print(f"AUROC of finding the wrong labels: {detection_auroc(noisy.flipped, quality):.3f}")

# %%
# Look at the most suspicious labels
# ----------------------------------
_ = LabelIssuesDisplay.from_estimator(clf, files)
folder.cleanup()
