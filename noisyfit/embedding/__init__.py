"""Features of images from networks that were trained on others."""

from noisyfit.embedding.embedder import ImageEmbedder

__all__ = ["ImageEmbedder"]
