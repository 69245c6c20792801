"""Every registered method: name, room, paper, what it needs and the test that checks it."""

from __future__ import annotations

import sys
from typing import Any

from afterimage.connectivity.registry import CONNECTIVITY
from afterimage.decoding.conditions.registry import CLASSIFIERS
from afterimage.decoding.registry import DECODERS, SHARED_DECODERS
from afterimage.features.registry import ENCODERS
from afterimage.preprocess.fmri.registry import ESTIMATORS
from afterimage.pretraining.registry import MASKED_MODELS, TOKEN_MODELS
from afterimage.reconstruction.registry import RECONSTRUCTIONS
from afterimage.tokenizers.registry import TOKENIZERS


def list_methods() -> list[dict[str, Any]]:
    """Return one entry a method, in the order of the data.

    Returns
    -------
    list of dict
        ``name``; ``room`` of the package; ``paper``, the first line of its file; ``needs``, the
        model folders it reads; ``check``, the test that tells it from a toy.
    """
    methods = []
    for registry in (
        *(ESTIMATORS, CONNECTIVITY, CLASSIFIERS, MASKED_MODELS, TOKENIZERS),
        *(TOKEN_MODELS, ENCODERS, DECODERS, SHARED_DECODERS, RECONSTRUCTIONS),
    ):
        for name in registry.names():
            module = sys.modules[registry.get(name).__module__]
            fields = registry.settings(name).model_fields
            folders = [key for key in ("path", "generator") if key in fields]
            # The last folders of a method's room and its own name: preprocess.fmri, lss.
            *inner, stem = [p for p in module.__name__.split(".")[2:] if p != "estimators"]
            methods.append(
                {
                    "name": name,
                    "room": module.__name__.split(".")[1],
                    "paper": (module.__doc__ or "").strip().split("\n")[0],
                    "needs": ", ".join(f"{key}: {fields[key].default}" for key in folders) or "-",
                    "check": f"tests/unit/test_{'_'.join([*inner, stem])}.py",
                }
            )
    return methods
