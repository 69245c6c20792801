"""Readers of published datasets: their files become prepared responses or a BIDS folder."""
