"""Arrays, tables, pictures and weights on disk, written atomically."""
