"""afterimage: from raw brain scans to the images a person saw, with scores a scientist can trust."""

__version__ = "0.1.0"
