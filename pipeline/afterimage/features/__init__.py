"""From pictures to arrays: one kind of encoder a file, all behind one interface."""
