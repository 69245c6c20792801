"""How good reconstructions are, and how much of that is chance, leak or ceiling."""
