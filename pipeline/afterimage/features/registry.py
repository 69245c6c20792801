"""The registry of stimulus encoders: images in, one feature block out."""

from afterimage.registry import Registry

ENCODERS = Registry("stimulus encoder", "afterimage.features")
