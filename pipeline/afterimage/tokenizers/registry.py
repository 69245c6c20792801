"""The registry of tokenizers: signals in, discrete tokens out."""

from afterimage.registry import Registry

TOKENIZERS = Registry("tokenizer", "afterimage.tokenizers")
