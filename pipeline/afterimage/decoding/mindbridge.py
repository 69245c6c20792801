"""MindBridge (Wang et al. 2024, arXiv:2404.07850): one decoder for several subjects, responses rebuilt.

Each subject's responses are brought to a common width (max-pooling over neighbours, as published, or
a linear layer of the subject), embedded by layers of the subject, and read by a translator and heads
that all share. A builder a subject goes back to responses: they must be rebuilt, and what one
subject embeds must survive the way through another one's responses (cycle). A new subject gets layers
of its own, everything else frozen (reset-tuning); the cycle starts from kept embeddings of the others.

What differs: heads predict centred features of variance one by squared error, where published heads
predict vectors of length one; batches are drawn from all trials, not as many of each subject; the
builder has no norm and GELU, since responses are negative as often as positive; the temperature
(.005 for 197,376 features) and sizes are settings, by default for a laptop. As published: ``n_hidden``
2048, ``n_common`` 8192, ``n_blocks`` 4, ``temperature`` .005, ``dropout_embedder`` .5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.registry import SHARED_DECODERS
from afterimage.decoding.shared import SharedSettings, check_target
from afterimage.decoding.shared_decoder import SharedDecoder

if TYPE_CHECKING:
    from collections.abc import Mapping

N_BANK = 2048  # embeddings kept of the subjects of a fit


class MindBridgeSettings(SharedSettings):
    """Settings of MindBridge."""

    kind: Literal["mindbridge"] = Field("mindbridge", description="MindBridge.")
    more_targets: tuple[str, ...] = Field(
        (), description="More blocks with a head and a contrast, such as one of captions."
    )
    aggregation: Literal["maxpool", "linear"] = Field(
        "linear",
        description="To the common width: maxpool over neighbours (published), or a linear layer.",
    )
    n_common: int = Field(128, ge=2, description="Width that all subjects are brought to.")
    n_bottleneck: int = Field(64, ge=1, description="Width inside the adapters.")
    dropout_embedder: float = Field(0.3, ge=0, lt=1, description="Dropout of the embedders.")
    weight_error: float = Field(1.0, ge=0, description="Weight of the squared error of features.")
    weight_reconstruction: float = Field(
        3.0, ge=0, description="Weight of rebuilding responses (published: 1)."
    )
    weight_cycle: float = Field(1.0, ge=0, description="Weight of the cycle over two subjects.")
    adaptation_weight_cycle: float = Field(
        0.0,
        ge=0,
        description="The same while adapting; with few trials it does harm (published: 1).",
    )


@SHARED_DECODERS.register("mindbridge", MindBridgeSettings)
class MindBridgeDecoder(SharedDecoder):
    """SoftCLIP and squared error of features, reconstruction of responses and cycle."""

    def synthesise(self, responses: Any, subject: str, target: str) -> np.ndarray:
        """Say how another subject would have responded to what one subject saw.

        Parameters
        ----------
        responses : (m, n_units) of ``subject``
        subject, target : str
            Who saw it, and who is asked for.

        Returns
        -------
        float32, (m, n_units of target) or, with max-pooling, (m, n_common)
            Standard scores of the units, or of the pooled ones (see `aggregate`).
        """
        import torch

        name = self._known(responses, subject)
        hidden = self._encoded(responses, name, slice(None)).hidden
        with torch.inference_mode():
            built = self._model.layers(target).builder(torch.from_numpy(hidden))
        return np.asarray(built.numpy(), np.float32)

    def aggregate(self, responses: Any, subject: str) -> np.ndarray:
        """Return responses as `synthesise` gives them: standardised, and pooled if so set."""
        import torch

        name = self._known(responses, subject)
        values = torch.from_numpy(self._source(name, responses)(np.arange(len(responses))))
        return np.asarray(self._model.layers(name).aggregate(values).numpy(), np.float32)

    def _head_blocks(self, sizes: Mapping[str, int]) -> list[str]:
        for block in self.settings.more_targets:
            check_target(block, sizes, "more_targets")
        return list(dict.fromkeys([self.settings.target, *self.settings.more_targets]))

    def _network(self, n_targets: dict[str, int]) -> Any:
        from afterimage.training.mindbridge import BridgeSizes, MindBridge

        names = BridgeSizes.__dataclass_fields__
        sizes = BridgeSizes(**{name: getattr(self.settings, name) for name in names})
        bank = self._state.get("network/bank")
        return MindBridge(n_targets, sizes, 0 if bank is None else len(bank))

    def _after_fit(self, trials: Any, training: np.ndarray) -> None:
        import torch

        from afterimage.training.shared import encode

        step = max(1, -(-len(training) // N_BANK))
        hidden = encode(self._model, trials, training[::step]).hidden
        self._model.bank = torch.from_numpy(hidden)
