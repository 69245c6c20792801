"""From raw EEG and MEG to clean signals and epochs."""
