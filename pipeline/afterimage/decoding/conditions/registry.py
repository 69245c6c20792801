"""The registry of classifiers: trials with a time axis in, the condition of each trial out."""

from afterimage.registry import Registry

CLASSIFIERS = Registry("classifier", "afterimage.decoding.conditions")
