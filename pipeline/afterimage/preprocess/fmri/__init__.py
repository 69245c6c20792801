"""From cleaned BOLD series to one response a trial and voxel."""
