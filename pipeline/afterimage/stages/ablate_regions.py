"""What each network of the cortex contributes: score decoders without it, and with it alone.

``_regions.tsv`` holds one row a decoder, analysis, network and metric: the columns of
`evaluation.scores`, and ``analysis`` (``whole``; ``without`` the network; ``only`` the network),
``network``, ``n_units`` (of the network), ``difference`` (to ``whole``, over the same pictures),
``difference_low``, ``difference_high``, ``difference_p`` and ``difference_p_holm`` (corrected for all
networks, analyses and metrics of the decoder).

A network is hidden from a decoder that learned to do without regions (`roi_tokens`); from every
other one it is taken by giving its units their mean training response, which says nothing. The
decoder is not fitted again: that it does without a network does not mean that the network knows
nothing, since others may know the same; ``only`` is the other half of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import camel_case, unit_of
from afterimage.errors import ConfigError
from afterimage.io.arrays import open_dataset, read_blocks
from afterimage.io.tables import write_tsv
from afterimage.io.trials import average_repeats, open_reader, read_responses
from afterimage.settings import StageConfig
from afterimage.stages.control_patterns import moments
from afterimage.stages.shared_decoders import open_decoder

VERSION = 1
CITES = ("holm1979",)


class Config(StageConfig):
    """Decoders without single networks of the cortex, where units have regions."""

    enabled: bool = Field(False, description="score decoders without, and with only, each network")
    networks: dict[str, tuple[str, ...]] = Field(
        default={},
        description="regions of each network, by its name; empty: every region on its own",
    )
    block: str = Field(
        "", description="feature block in which pictures are told apart; empty: clip, or the first"
    )
    # Holm corrects for some hundred questions: p must be able to be that small.
    n_bootstraps: int = Field(10_000, ge=100, description="resamples of an interval")
    n_permutations: int = Field(1000, ge=100, description="permuted pairs of a chance level")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads; nothing is fitted."""

    models: tuple[Path, ...]
    trials: Path
    features: Path
    test_features: Path


@dataclass(frozen=True)
class Outputs:
    """What the stage writes."""

    table: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Ask every decoder with the whole brain, without each network and with it alone."""
    from afterimage.evaluation.scores import COLUMNS

    with open_dataset(inputs.trials) as dataset:
        regions = dataset["roi"].values.astype(str) if "roi" in dataset.variables else None
    networks = {} if regions is None else networks_of(regions, config.networks)
    rows: list[dict[str, Any]] = []
    if regions is not None and len(networks) > 1:
        study = _Study(inputs, config, regions, networks)
        for model in inputs.models:
            rows += study.rows(model)
    more = ("analysis", "network", "n_units", "difference", "difference_low", "difference_high")
    write_tsv(outputs.table, rows, [*COLUMNS, *more, "difference_p", "difference_p_holm"])


def networks_of(
    regions: np.ndarray, asked: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return the regions of each network that the units have some of.

    Parameters
    ----------
    regions : (n_units,) of str
        ``n/a``: a unit of no region, which belongs to no network.
    asked : dict of network to regions
        Empty: every region on its own.

    Raises
    ------
    ConfigError
        Where no unit at all is of a network asked for.
    """
    there = dict.fromkeys(sorted(set(regions.tolist()) - {"n/a"}))
    if not asked:
        return {region: (region,) for region in there}
    for network, members in asked.items():
        if not set(members) & set(there):
            raise ConfigError(
                "no unit lies in a network of ablate_regions", where=f"network {network}",
                found=f"regions {', '.join(there)}", expected=", ".join(members),
                fix="name regions of the dataset under ablate_regions: networks",
            )  # fmt: skip
    return {network: tuple(members) for network, members in asked.items()}


class _Study:
    """The test pictures of one subject, asked of decoders that see parts of the brain."""

    def __init__(
        self,
        inputs: Inputs,
        config: Config,
        regions: np.ndarray,
        networks: dict[str, tuple[str, ...]],
    ) -> None:
        self.inputs, self.config, self.networks = inputs, config, networks
        self.unit_regions = regions
        self.subject = unit_of(inputs.trials).removeprefix("sub-")
        _, features = read_blocks(inputs.features)
        self.gallery_names, self.gallery = read_blocks(inputs.test_features)
        usual = "clip" if "clip" in features else next(iter(features))
        self.block = config.block or usual
        if self.block not in features:
            raise ConfigError(
                "the feature block of ablate_regions is not there", where=str(inputs.features),
                found=self.block, expected=", ".join(sorted(features)),
                fix="set ablate_regions: block to one of the encoders of extract_features",
            )  # fmt: skip
        self.training_mean = features[self.block].mean(axis=0)

    def rows(self, model: Path) -> list[dict[str, Any]]:
        """Score one decoder: whole, and without and with only each network."""
        decoder, card = open_decoder(model)
        tmin_s, tmax_s = card["window_s"]
        responses, stimuli = read_responses(self.inputs.trials, "test", tmin_s, tmax_s)
        known = np.isin(stimuli, self.gallery_names)
        patterns, shown, _ = average_repeats(responses[known], stimuli[known])
        if len(shown) < 2:
            return []
        usual = self._usual(tmin_s, tmax_s)
        regions = np.repeat(self.unit_regions, patterns.shape[1] // len(self.unit_regions))
        place = {name: row for row, name in enumerate(self.gallery_names)}
        index = np.array([place[name] for name in shown])
        name = str(card["decoder"])
        whole = self._score(name, decoder, patterns, index)
        rows = [row | {"analysis": "whole"} for row in whole[0]]
        compared: list[dict[str, Any]] = []
        for network, members in self.networks.items():
            inside = np.isin(self.unit_regions, members)
            told = {"network": network, "n_units": int(inside.sum())}
            for analysis in ("without", "only"):
                taken = set(members)
                if analysis == "only":
                    taken = set(self.unit_regions.tolist()) - taken
                asked, seen = _without(decoder, patterns, regions, taken, usual)
                scored, per_image = self._score(name, asked, seen, index)
                for row in scored:
                    against = whole[1][row["metric"]]
                    difference = self._difference(per_image[row["metric"]], against)
                    compared.append(row | told | {"analysis": analysis} | difference)
        from afterimage.evaluation.statistics import holm

        corrected = holm([row["difference_p"] for row in compared])
        for row, p in zip(compared, corrected, strict=True):
            row["difference_p_holm"] = float(p)
        return rows + compared

    def _usual(self, tmin_s: float | None, tmax_s: float | None) -> np.ndarray:
        """Mean training response of each unit (and time), (n_values,)."""
        from afterimage.decoding.streams import TrialRows

        with ExitStack() as stack:
            reader = stack.enter_context(open_reader(self.inputs.trials))
            train = np.flatnonzero(reader.split == "train")
            return moments(TrialRows(reader, train, reader.window(tmin_s, tmax_s)))[0]

    def _score(
        self, name: str, decoder: Any, patterns: np.ndarray, index: np.ndarray
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        from afterimage.evaluation.decoder_comparison import is_question
        from afterimage.evaluation.scores import Resampling, prediction_rows

        label = camel_case(name, "regions")
        scores = prediction_rows(
            {self.block: decoder.predict(patterns)[self.block]},
            {self.block: self.gallery[self.block]},
            subject=self.subject,
            label=label,
            decoder=name,
            index=index,
            training_means={self.block: self.training_mean},
            score_matrix=decoder.scores(patterns, self.gallery),
            resampling=Resampling(
                n_bootstraps=self.config.n_bootstraps,
                n_permutations=self.config.n_permutations,
                random_state=self.config.random_state or 0,
            ),
        )
        kept = [
            row
            for row in scores.rows
            if is_question(row["metric"]) and not row["metric"].endswith("image_to_brain")
        ]
        return kept, scores.per_image[label]

    def _difference(self, values: np.ndarray, whole: np.ndarray) -> dict[str, float]:
        from afterimage.evaluation.statistics import paired_bootstrap_difference

        found = paired_bootstrap_difference(
            values,
            whole,
            n_bootstraps=self.config.n_bootstraps,
            random_state=self.config.random_state or 0,
        )
        return {
            "difference": found.value,
            "difference_low": found.low,
            "difference_high": found.high,
            "difference_p": found.p,
        }


def _without(
    decoder: Any, patterns: np.ndarray, regions: np.ndarray, taken: set[str], usual: np.ndarray
) -> tuple[Any, np.ndarray]:
    """Return the decoder and the patterns without some regions: it looks away, or they say nothing."""
    known = set(getattr(decoder, "regions", ()))
    if hasattr(decoder, "without") and taken <= known:
        return decoder.without(taken), patterns
    return decoder, np.where(np.isin(regions, list(taken)), usual, patterns).astype(np.float32)
