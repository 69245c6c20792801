"""What a report is given of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class TokenizerCard:
    """One tokenizer of the group.

    Parameters
    ----------
    name : str
        Its name in the configuration.
    rows : sequence of Row
        Rows of ``_card.tsv``.
    details : mapping
        ``_card.json``: the vocabulary, what its codes stand for.
    exposure : sequence of Row
        Rows of ``_exposure.tsv``: which recordings it has seen.
    arrays : mapping of array
        ``losses``, ``motifs``, ``examples``, ``spectra``, ``frequency_hz``, ``target``, ``decoded``,
        ``example_codes`` (``_example.safetensors``).
    """

    name: str
    rows: Sequence[Row]
    details: Mapping[str, Any] = field(default_factory=dict)
    exposure: Sequence[Row] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
