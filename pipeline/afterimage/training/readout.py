"""A linear head on an encoder, trained with it: fine-tuning, or from scratch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.training.loop import Batch, LoopSettings, train


def fit_readout(
    network: Any,
    tokens: NDArray[np.float32],
    known: NDArray[np.bool_],
    targets: NDArray[np.float32],
    *,
    classes: bool,
    settings: LoopSettings,
    random_state: int,
    device: str = "cpu",
    checkpoint_folder: Path | None = None,
) -> Any:
    """Train a copy of an encoder together with a linear head on its mean embedding.

    Parameters
    ----------
    network : torch.nn.Module
        A `afterimage.training.masked.MaskedNetwork`; it is left as it is.
    tokens : ndarray of float32, (n, n_segments, n_regions, ...)
    known : ndarray of bool, (n, n_segments, n_regions)
    targets : ndarray of float32, (n, n_targets)
        One-hot classes, or values to be predicted.
    classes : bool
        Cross-entropy between classes instead of squared error.
    settings : LoopSettings
    random_state, device, checkpoint_folder
        See `afterimage.training.loop.train`.

    Returns
    -------
    callable
        ``(tokens, known) -> ndarray of float32, (n, n_targets)``.
    """
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import cross_entropy, mse_loss

    class Readout(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = copy.deepcopy(network)
            with torch.inference_mode():
                latents = network.embed(*_pair(tokens[:1], known[:1]))
            self.norm = nn.LayerNorm(latents.shape[-1])
            self.head = nn.Linear(latents.shape[-1], targets.shape[1])
            nn.init.zeros_(self.head.weight)

        def predict(self, values: Tensor, hidden: Tensor) -> Tensor:
            latents = self.network.embed(values, hidden).mean(1)
            predicted: Tensor = self.head(self.norm(latents))
            return predicted

        def forward(self, batch: Batch, generator: torch.Generator) -> Tensor:
            predicted = self.predict(batch["tokens"], batch["hidden"]).float()
            loss = cross_entropy if classes else mse_loss
            return loss(predicted, batch["targets"])

    def batch_of(indices: NDArray[np.int64], _step: int) -> Batch:
        values, hidden = _pair(tokens[indices], known[indices])
        wanted = torch.from_numpy(targets[indices])
        return {"tokens": values, "hidden": hidden, "targets": wanted}

    readout = Readout()
    train(
        readout, batch_of, len(tokens), settings, random_state=random_state, device=device,
        checkpoint_folder=checkpoint_folder,
    )  # fmt: skip
    readout.to("cpu").eval()

    def predict(values: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                readout.predict(*_pair(values[i : i + 64], seen[i : i + 64])).float().numpy()
                for i in range(0, len(values), 64)
            ]
        return np.concatenate(parts)

    return predict


def _pair(tokens: NDArray[np.float32], known: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Return tokens, and what of them is hidden, as tensors."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(tokens)), torch.from_numpy(~known)
