"""From trials of EEG, MEG or any response with a time axis to the condition of each trial."""
