"""What a report is given of a masked model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class PretrainedModel:
    """One masked model of the group.

    Parameters
    ----------
    name : str
        Its name in the configuration, and of the regions where there are several sets.
    pretext : sequence of Row
        Rows of ``_pretext.tsv``.
    probes : sequence of Row
        Rows of ``_probes.tsv``; empty where nothing was asked.
    details : mapping
        ``labels`` of ``_probes.json``.
    arrays : mapping of array
        ``losses``, and where there are ``tokens``, ``predicted``, ``hidden``, ``embedding``,
        ``connectivity`` (``_example.safetensors``).
    """

    name: str
    pretext: Sequence[Row]
    probes: Sequence[Row] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
