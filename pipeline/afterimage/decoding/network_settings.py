"""Settings that the network decoders share, and the checks of what they are fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.decoding.layout import LayoutLike, check_layout
from afterimage.decoding.leaks import check_fit
from afterimage.errors import ConfigError, InputError
from afterimage.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class TrainedSettings(Settings):
    """Settings common to the decoders that are trained step by step."""

    target: str = Field(
        "clip", description="Feature block of the contrastive and regression heads."
    )
    n_steps: int = Field(600, ge=1, description="Optimiser steps at most.")
    batch_size: int = Field(256, ge=2, description="Trials a step; the others are the negatives.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate of AdamW.")
    weight_decay: float = Field(1.0, ge=0, description="Decoupled weight decay of AdamW.")
    ema_decay: float = Field(0.98, ge=0, lt=1, description="Decay of averaged weights a step.")
    validation_share: float = Field(
        0.1, gt=0, lt=1, description="Share of training concepts held out for early stopping."
    )
    n_validation_max: int = Field(2000, ge=1, description="Trials looked at for early stopping.")
    n_statistics_max: int = Field(
        20000,
        ge=2,
        description="Trials that scaling, whitening, start and readouts are fitted on.",
    )
    evaluate_every: int = Field(20, ge=1, description="Steps between two looks at them.")
    patience: int = Field(8, ge=1, description="Looks without gain after which training stops.")
    adaptation_steps: int = Field(100, ge=1, description="Steps of adapting to a new subject.")
    clamp: float = Field(20.0, gt=0, description="Largest response, in standard deviations.")
    alphas: tuple[float, ...] = Field(
        (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0),
        min_length=1,
        description="Ridge penalties of the other blocks, in units of the trials' number.",
    )
    rescale: Literal["block", "target", "none"] = Field(
        "block", description="Give predictions the spread of the features, as `ridge` does."
    )
    keep_shrunk: tuple[str, ...] = Field(("pixels",), description="Blocks never rescaled.")
    random_state: int = Field(
        0,
        description="Seed; the workflow gives that of train_decoder.",
        json_schema_extra={"workflow": True},
    )


class NetworkSettings(TrainedSettings):
    """Settings common to the network decoders."""

    contrastive_weight: float = Field(
        0.75, ge=0, le=1, description="lambda of lambda * CLIP + (1 - lambda) * MSE."
    )
    n_embedding: int = Field(
        64, ge=1, description="Dimensions, at first principal components, where images are sought."
    )


def checked_epochs(
    responses: Any,
    features: Mapping[str, Any],
    stimuli: np.ndarray,
    held_out: Collection[str],
    layout: LayoutLike,
    target: str,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Refuse a fit that cannot work; return features a stimulus, and each trial's row there."""
    check_fit(stimuli, held_out)
    wrong = [name for name, block in features.items() if block.shape[:1] != stimuli.shape]
    if responses.shape[:1] != stimuli.shape or wrong or not features:
        raise InputError(
            "responses, features and stimuli of the fit do not belong together",
            where="decoder fit",
            found=f"responses {responses.shape}, stimuli {stimuli.shape}, "
            f"features { {name: block.shape for name, block in features.items()} }",
            expected="one row a trial in each",
        )
    check_layout(responses.shape, layout, "decoder fit")
    if target not in features:
        raise ConfigError(
            "the target of the decoder is not among the features",
            found=target,
            expected=", ".join(sorted(features)),
            fix="set `target` of the decoder to one of these",
        )
    names, first, row = np.unique(stimuli, return_index=True, return_inverse=True)
    if len(names) < 3:
        raise InputError(
            "too few stimuli to hold some out",
            where="decoder fit",
            found=f"{len(names)} different stimuli",
            expected="at least 3",
        )
    table = {name: np.asarray(block[first], np.float32) for name, block in features.items()}
    broken = [name for name, block in table.items() if not np.isfinite(block).all()]
    if broken:
        raise InputError(
            "a value that is not finite",
            where="decoder fit",
            found=", ".join(broken),
            expected="finite numbers",
        )
    return table, row
