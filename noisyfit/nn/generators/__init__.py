"""Generators that change rows until they fit their labels, behind one protocol."""

from noisyfit.nn.generators.conditional_diffusion import ConditionalDiffusion
from noisyfit.nn.generators.controlnet import ControlNetGenerator
from noisyfit.nn.generators.precomputed import PrecomputedModifier
from noisyfit.nn.generators.protocol import Modifier, Trainable

__all__ = [
    "ConditionalDiffusion",
    "ControlNetGenerator",
    "Modifier",
    "PrecomputedModifier",
    "Trainable",
]
