"""Masked autoencoders of brain series, one method a file."""
