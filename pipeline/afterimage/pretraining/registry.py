"""The registry of masked models: series in, a pretrained encoder out."""

from afterimage.registry import Registry

MASKED_MODELS = Registry("masked model", "afterimage.pretraining")
TOKEN_MODELS = Registry("masked-token model", "afterimage.pretraining")
