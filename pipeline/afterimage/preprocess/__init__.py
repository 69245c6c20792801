"""From recordings to trials."""
