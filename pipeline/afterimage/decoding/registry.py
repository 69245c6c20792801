"""The registries of decoders, of one subject and of several: responses in, features out."""

from afterimage.registry import Registry

DECODERS = Registry("decoder", "afterimage.decoding")
SHARED_DECODERS = Registry("shared decoder", "afterimage.decoding")
