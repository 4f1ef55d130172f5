"""The bases from skorch and scikit-learn, which ship no types; the stub file adds them."""

from sklearn.base import BaseEstimator as BaseEstimator
from sklearn.base import ClassifierMixin as ClassifierMixin
from sklearn.base import ClassNamePrefixFeaturesOutMixin as ClassNamePrefixFeaturesOutMixin
from sklearn.base import MetaEstimatorMixin as MetaEstimatorMixin
from sklearn.base import OneToOneFeatureMixin as OneToOneFeatureMixin
from sklearn.base import TransformerMixin as TransformerMixin
from sklearn.utils.metaestimators import _BaseComposition
from skorch import NeuralNet as NeuralNet

BaseComposition = _BaseComposition  # parameters of a list of named estimators
