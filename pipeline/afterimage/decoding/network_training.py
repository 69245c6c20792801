"""Training of the network decoders, and the readouts of all feature blocks behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.decoding.linear import prediction_gain, prediction_summary
from afterimage.decoding.readout import fit_readout
from afterimage.decoding.streams import spread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from afterimage.decoding.network_settings import NetworkSettings
    from afterimage.training.contrastive import BrainToImage, Trials

CHUNK = 256  # trials read and encoded together


def train_network(
    model: BrainToImage,
    trials: Trials,
    training: np.ndarray,
    validation: np.ndarray,
    settings: NetworkSettings,
    n_steps: int,
    **options: Any,
) -> None:
    """Train what requires a gradient; options are those of `fit_encoder`."""
    from afterimage.training.contrastive import fit_encoder
    from afterimage.training.loop import LoopSettings

    loop = LoopSettings(
        n_steps=n_steps,
        batch_size=min(settings.batch_size, len(training)),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=min(20, n_steps // 4),
        ema_decay=settings.ema_decay,
        bf16=options["device"] == "cuda",
        checkpoint_every=max(1, min(500, n_steps // 4)),
    )
    fit_encoder(
        model,
        trials,
        training,
        validation,
        loop,
        every=settings.evaluate_every,
        patience=settings.patience,
        random_state=settings.random_state,
        chunk=CHUNK,
        **options,
    )


def fit_blocks(
    model: BrainToImage,
    trials: Trials,
    training: np.ndarray,
    validation: np.ndarray,
    table: Mapping[str, np.ndarray],
    settings: NetworkSettings,
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
    """Fit the readouts on trained trials; judge them on held-out concepts.

    Returns
    -------
    arrays : dict
        Readouts, and ``mean/<block>`` and ``gain/<block>``.
    cross_validation : dict
        See `afterimage.decoding.network_decoder.NetworkDecoder`.
    """
    from afterimage.training.contrastive import compare, encode, ranks

    pieces = [validation[i : i + CHUNK] for i in range(0, len(validation), CHUNK)]
    encoded = [encode(model, trials, piece) for piece in pieces]
    representation, embedding, guess = (
        np.concatenate(parts) for parts in zip(*encoded, strict=True)
    )
    means = {name: block.mean(0, dtype=np.float64) for name, block in table.items()}
    arrays, predicted = fit_readout(
        lambda part: encode(model, trials, part)[0],
        training[spread(trials.subject[training], settings.n_statistics_max)],
        (representation, validation),
        trials.stimulus,
        table,
        means,
        settings.alphas,
        CHUNK,
    )
    own = trials.stimulus[validation]
    centred = table[settings.target] - means[settings.target]
    target_scale = np.sqrt((centred**2).mean()) or 1.0
    judged: dict[str, dict[str, Any]] = {}
    for name, block in table.items():
        truth, made = block[own] - means[name], predicted[name](slice(None))
        by = "ridge on the representation"
        if name == settings.target:
            head = guess * target_scale
            if ((head - truth) ** 2).sum() <= ((made - truth) ** 2).sum():
                made, by = head, "regression head"
                del arrays[f"coef/{name}"]
        mode = "none" if name in settings.keep_shrunk else settings.rescale
        gain = prediction_gain(made, truth, mode)
        arrays[f"mean/{name}"] = means[name].astype(np.float32)
        arrays[f"gain/{name}"] = gain
        judged[name] = {**prediction_summary(made, truth), "gain": gain, "predicted_by": by}
    candidates, row = np.unique(own, return_inverse=True)
    scores = compare(model, embedding, trials.targets[candidates], trials.subject[validation])
    found = ranks(scores, row)
    judged[settings.target] |= {
        "top1": float((found < 1).mean()),
        "top5": float((found < 5).mean()),
        "n_candidates": float(len(candidates)),
        "n_trials": float(len(own)),
    }
    return arrays, judged
