"""The dataset: its index, the names of our outputs, their description."""
