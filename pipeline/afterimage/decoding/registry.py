"""The registry of decoders: brain responses in, stimulus features out."""

from afterimage.registry import Registry

DECODERS = Registry("decoder", "afterimage.decoding")
