"""Brains with known truth: pictures we draw and responses we know how they were made."""
