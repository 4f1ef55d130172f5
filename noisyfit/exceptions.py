"""Errors and warnings of the package."""


class NoisyFitWarning(UserWarning):
    """Something works, but not as well as it could; the message names the remedy."""


class NoisyFitError(RuntimeError):
    """Training cannot continue; the message says what happened and what to do."""
