"""One module per rule of the workflow: what it reads, writes and lets you set."""
