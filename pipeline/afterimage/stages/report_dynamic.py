"""Read what dynamic connectivity wrote, for the report of a subject."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from afterimage.io.arrays import open_dataset
from afterimage.io.tables import read_tsv
from afterimage.reports.dynamic import Dynamic

#: Field of the report by variable of ``_dynamic.nc``.
FIELDS = {
    "window_state": "window_state", "window_recording": "window_recording",
    "window_start": "window_start", "window_centre": "centres",
    "null_occupancy": "null_occupancy", "hidden_state": "hidden_state",
    "sample_recording": "sample_recording", "hidden_correlation": "hidden_correlation",
}  # fmt: skip
_NUMBERS = ("state", "value", "chance", "chance_low", "chance_high", "p")


def read_dynamic(dynamic: Path, states: Path, coupling: Path | None = None) -> Dynamic:
    """Read ``_dynamic.nc``, ``_states.tsv`` and, where couplings were fitted, ``_coupling.nc``."""
    rows: list[dict[str, Any]] = []
    for row in read_tsv(states):
        numbers = {k: float("nan") if row[k] == "n/a" else float(row[k]) for k in _NUMBERS}
        rows.append({**row, **numbers})
    weights: dict[str, np.ndarray] = {}
    if coupling is not None and coupling.is_file():
        with open_dataset(coupling) as dataset:
            for index, name in enumerate(dataset["model"].values.tolist()):
                weights[str(name)] = np.asarray(dataset["weights"].values[index])
    with open_dataset(dynamic) as dataset:
        return Dynamic(
            rows=rows,
            recordings=tuple(map(str, dataset["recording"].values)),
            width=int(dataset.attrs["width"]),
            step=int(dataset.attrs["step"]),
            sampling_rate_hz=float(dataset.attrs["sampling_rate_hz"]),
            variance=np.asarray(dataset["variance"].values),
            null_variance=np.asarray(dataset["null_variance"].values),
            weights=weights,
            notes=str(dataset.attrs["notes"]),
            **{field: np.asarray(dataset[name].values) for name, field in FIELDS.items()
               if name in dataset},
        )  # fmt: skip


def read_dynamics(folder: Path, name: str) -> list[Dynamic]:
    """Read the dynamic connectivity of a subject, one a set of regions, where there is any."""
    return [
        read_dynamic(
            file,
            file.with_name(file.name.replace("_dynamic.nc", "_states.tsv")),
            file.with_name(file.name.replace("_dynamic.nc", "_coupling.nc")),
        )
        for file in sorted(folder.glob(f"connectivity/{name}_seg-*_dynamic.nc"))
    ]
