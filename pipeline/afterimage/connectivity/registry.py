"""The registry of connectivity measures: series of one recording in, a matrix over units out."""

from afterimage.registry import Registry

CONNECTIVITY = Registry("connectivity measure", "afterimage.connectivity")
