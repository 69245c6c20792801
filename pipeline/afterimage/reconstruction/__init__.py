"""From predicted features to pictures: one method a file, all behind one interface."""
