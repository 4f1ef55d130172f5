"""Variants of the methods by name: the papers' ablations, controls and other settings."""

from __future__ import annotations

from typing import Any

from noisyfit import CrossEntropyClassifier, EchoSelect

_HRP_BASE: dict[str, Any] = {  # Eq. 15 without what the ablation (Table 4) adds or takes away
    "reliability": None,
    "mixing": None,
    "contrastive_weight": 0.0,
}
_HRP_RATED: dict[str, Any] = {"reliability": "disentangled", "reweighting": 0.0}  # not in Eq. 13
_CONTRAST = {"contrastive_weight": 0.05}
_ALGORITHM_1: dict[str, Any] = {  # the paper's, with a threshold that needs no noise rate
    "selector": EchoSelect(select_by="similarity", n_rounds=1),
    "rejected_weight": 0.0,
    "modified_weight": 1.0,
}

_OF_METHODS: dict[str, dict[str, dict[str, Any]]] = {
    "clid_meta": {
        "last_epoch": {"n_snapshots": 1},
        "vri": {"meta_model": "vri"},
        "frozen": {"meta_lr": 0.0, "n_snapshots": 1},
        "ce": {"meta_objective": "ce"},
        "mae": {"meta_objective": "mae"},
    },
    "hrp": {
        "base": _HRP_BASE,
        "base+coupled": _HRP_BASE | {"reliability": "coupled"},
        "base+cdcl": _HRP_BASE | _HRP_RATED | _CONTRAST,
        "base+ram+grg": _HRP_BASE | _HRP_RATED | {"mixing": "asymmetric"},
        "base+contrast": _HRP_BASE | _CONTRAST,
        "base+mixing": _HRP_BASE | {"mixing": "symmetric", "gated": False},
        "no_ram": {"mixing": None},
        "no_cdcl": {"contrastive_weight": 0.0},
        "no_grg": {"gated": False},
        "symmetric_ram": {"mixing": "symmetric"},
    },
    "rld": {
        "no_denoising": {"denoising": False},
        "no_denoising+no_average": {"denoising": False, "temporal_momentum": 0.0},
        "no_contrast": {"contrastive_weight": 0.0},
        "no_predictor_loss": {"predictor_weight": 0.0},
        "no_guidance": {"guidance_scale": 0.0},
        "no_anchor": {"anchor": None},
        "ensemble": {"anchor": "ensemble"},
        "ensemble+no_denoising": {"anchor": "ensemble", "denoising": False},
        "all_steps": {"t_max": 50, "n_steps": 10},
    },
    "gce": {"truncated": {"truncation": 0.5}},
    "echo_align": {
        "similarity": {"selector": EchoSelect(select_by="similarity")},
        "small_loss": {"selector": EchoSelect(select_by=CrossEntropyClassifier(max_epochs=70))},
        "paper": _ALGORITHM_1,
        "select_only": _ALGORITHM_1 | {"include_modified": "none"},
        "modify_only": _ALGORITHM_1 | {"include_modified": "all", "include_originals": False},
        "released": _ALGORITHM_1
        | {"include_modified": "all", "modified_weight": "balanced", "finetune_epochs": 40},
        **{
            f"threshold_{threshold}": _ALGORITHM_1
            | {"selector": EchoSelect(select_by="similarity", n_rounds=1, threshold=threshold)}
            for threshold in (0.0, 0.2, 0.4, 0.6, 0.8)
        },
    },
}

VARIANTS: dict[str, dict[str, Any]] = {
    f"{method}:{variant}": params
    for method, variants in _OF_METHODS.items()
    for variant, params in variants.items()
}
"""Parameters of a method by ``method:variant``; the others keep their defaults."""
