"""The one training loop, its objectives, and the training of generators."""
