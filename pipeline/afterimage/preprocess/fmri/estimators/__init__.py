"""Estimators of single-trial responses, one a file."""
