"""What other libraries call the parameters, and what to use here instead."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_SYNONYMS = {
    "lr": "learning_rate learning_rate_init initial_lr init_lr base_lr eta eta0 step_size",
    "lr_schedule": "scheduler lr_scheduler lr_scheduler_type schedule learning_rate_schedule "
    "lr_policy lr_decay",
    "max_epochs": "epochs epoch n_epochs num_epochs nb_epoch nb_epochs num_train_epochs max_iter "
    "n_iter num_iter iterations n_estimators",
    "batch_size": "batch batches batchsize bs minibatch_size mini_batch_size train_batch_size "
    "per_device_train_batch_size",
    "random_state": "seed random_seed rng manual_seed generator",
    "validation_fraction": "validation_split train_split val_split val_fraction valid_fraction "
    "eval_fraction validation_size val_size test_size",
    "missing_label": "missing missing_values missing_value unlabeled unlabelled unlabeled_label "
    "ignore_index",
    "augmentation": "augment augmentations data_augmentation transform transforms",
    "checkpoint_dir": "checkpoint checkpoints checkpoint_path ckpt ckpt_dir ckpt_path resume "
    "save_dir output_dir dirname default_root_dir",
    "checkpoint_every": "save_freq save_steps save_every every_n_epochs",
    "device": "cuda gpu gpus use_gpu use_cuda accelerator devices no_cuda",
    "precision": "amp fp16 bf16 half dtype mixed_precision use_amp autocast",
    "verbose": "verbosity log_level logging progress progress_bar silent debug disp",
    "callbacks": "callback hooks",
    "module": "model net network estimator base_estimator architecture arch backbone build_fn "
    "encoder",
    "optimizer": "solver optim opt optimiser",
    "optimizer__momentum": "momentum",
    "optimizer__nesterov": "nesterov nesterovs_momentum",
    "optimizer__weight_decay": "weight_decay wd decay l2 l2_reg alpha c reg_lambda reg_alpha "
    "regularization penalty kernel_regularizer",
    "optimizer__betas": "betas beta_1 beta_2 beta1 beta2",
    "module__dropout": "dropout dropout_rate drop_rate hidden_dropout_prob",
    "module__width": "hidden_layer_sizes hidden hidden_size hidden_sizes hidden_dim hidden_units "
    "n_hidden n_units units width",
    "module__depth": "depth layers n_layers num_layers n_hidden_layers",
    "warmup_epochs": "warmup warm_up warm_up_epochs num_warmup_epochs",
    "num_workers": "n_workers workers",
    "flip": "horizontal_flip random_flip hflip",
    "image_layout": "data_format channels_last channels_first",
}
_STOPPING = (
    "early_stopping early_stop patience tol n_iter_no_change early_stopping_rounds min_delta "
    "restore_best_weights monitor stopping_rounds"
)
_REMEDIES = {
    "Pass callbacks=[skorch.callbacks.EarlyStopping(patience=5)] and validation_fraction=0.1.": (
        _STOPPING
    ),
    "Pass optimizer__momentum=0.9 and the like, one parameter each.": "optimizer_params "
    "optimizer_kwargs optimizer_args optim_params optimizer_config",
    "Pass module__width=64 and the like, one parameter each.": "module_params module_kwargs "
    "module_args model_kwargs model_params model_args",
    "It has none: the loss is the method's own. Choose another method, or write a subclass with "
    "_fit(data).": "criterion loss loss_fn loss_function loss_func objective",
    "It has none: labels count as they are believed. Use CrossEntropyClassifier, ELRClassifier, "
    "GCEClassifier or MixUpClassifier, and pass sample_weight to its fit.": "class_weight "
    "class_weights sample_weight sample_weights scale_pos_weight is_unbalance",
    "It has none: torch takes the cores itself. Call torch.set_num_threads(n).": "n_jobs "
    "n_threads num_threads nthread thread_count",
    "It has none: each fit starts anew. CrossEntropyClassifier.fine_tune goes on with a fitted "
    "network, checkpoint_dir with a killed fit.": "warm_start",
    "It has none: let module be a function that returns torch.compile(network).": "compile "
    "torch_compile jit jit_compile run_eagerly",
    "It has none: classes are learned from y in fit, and stand in classes_.": "labels "
    "n_classes num_classes num_labels n_outputs output_dim out_features class_names",
    "It has none: shapes are learned from X in fit.": "n_features in_features in_channels "
    "input_dim input_shape input_size n_inputs num_features",
    "It has none: rows are shuffled in every epoch.": "shuffle drop_last sampler",
    "It has none: rows are read by fit(X, y), a Dataset by num_workers processes.": "dataset "
    "iterator_train iterator_valid iterator dataloader train_dataloader collate_fn pin_memory",
    "It has none: predict_proba is the softmax of predict_logits.": "predict_nonlinearity "
    "activation_last output_activation out_activation",
    "It has none: the default networks have ReLU. Pass a module of your own.": "activation "
    "activations act nonlinearity",
    "It has none: the noise is estimated from the data.": "noise_rate noise_type noise noise_level "
    "noise_ratio corruption_rate",
    "Pass X_val and y_val to fit.": "validation_data eval_set valid_data val_data x_val y_val",
    "Pass callbacks=[skorch.callbacks.EpochScoring('accuracy')].": "metrics metric scoring "
    "eval_metric",
    "Pass callbacks=[skorch.callbacks.GradientNormClipping(1.0)].": "gradient_clip_val "
    "gradient_clip clip_grad clip_grad_norm max_grad_norm clipnorm clipvalue grad_clip",
    "It has none: fit keeps everything it needs.": "use_caching torch_load_kwargs cache_size",
}
NAMES = {other: ours for ours, others in _SYNONYMS.items() for other in others.split()}
REMEDIES = {other: remedy for remedy, others in _REMEDIES.items() for other in others.split()}


def did_you_mean(name: str, known: Collection[str], prefix: str = "") -> str:
    """Return ``" Did you mean '...'?"`` for the closest known name, or nothing."""
    close = get_close_matches(name, sorted(known), n=1, cutoff=0.65)
    return f" Did you mean {prefix + close[0]!r}?" if close else ""


def remedy(name: str, known: Collection[str], prefix: str = "") -> str:
    """Return what to pass instead of ``name``, by other libraries' names or by spelling.

    Parameters
    ----------
    name : str
        The name that was passed, without its prefix.
    known : collection of str
        The names that are known, without the prefix.
    prefix : str
        For example ``"module__"``.
    """
    other = name.lower()
    if other in NAMES and _exists(NAMES[other], known, prefix):
        return f" Did you mean {NAMES[other]!r}?"
    if other in REMEDIES:
        return f" {REMEDIES[other]}"
    return did_you_mean(name, known, prefix)


def _exists(ours: str, known: Collection[str], prefix: str) -> bool:
    if ours.startswith(prefix) and prefix:
        return ours.removeprefix(prefix) in known
    return bool(prefix) or "__" in ours or ours in known
