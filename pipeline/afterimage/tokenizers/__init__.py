"""Tokenizers: continuous EEG, MEG and intracranial signals in, discrete tokens out, and back."""
