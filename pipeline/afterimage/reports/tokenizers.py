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
    probes : sequence of Row
        Rows of ``_probes.tsv``; empty where nothing was asked.
    probe_details : mapping
        ``_probes.json``.
    """

    name: str
    rows: Sequence[Row]
    details: Mapping[str, Any] = field(default_factory=dict)
    exposure: Sequence[Row] = ()
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    probes: Sequence[Row] = ()
    probe_details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class TokenModel:
    """One masked-token model of the group.

    Parameters
    ----------
    name, tokenizer : str
        Names in the configuration.
    pretext : sequence of Row
        Rows of ``_pretext.tsv``.
    exposure : sequence of Row
        Rows of ``_exposure.tsv``.
    card : mapping
        Beside its weights: ``losses``, ``n_weights``, ...
    """

    name: str
    tokenizer: str
    pretext: Sequence[Row]
    exposure: Sequence[Row] = ()
    card: Mapping[str, Any] = field(default_factory=dict)
