"""Score every reconstruction of one subject beside its controls, baselines and ceilings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from afterimage.bids.names import entity, unit_of
from afterimage.evaluation.metrics import PROTOCOL, family_of
from afterimage.io.arrays import block_means, open_dataset, read_blocks
from afterimage.io.atomic import write_json
from afterimage.io.images import read_image
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.trials import read_averages
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig
from afterimage.stages.caption_scores import CaptionMetrics, score_captions
from afterimage.stages.evaluation_audit import (
    lint,
    near_duplicates_of,
    split_facts,
    without_duplicates,
)
from afterimage.stages.published_protocols import (
    check_networks,
    describe_networks,
    judges,
    retrievals,
)
from afterimage.stages.reconstruction_sets import (
    Judge,
    is_transductive,
    rows_of,
    shrink,
)
from afterimage.stages.shared_decoders import scores_of_test

if TYPE_CHECKING:
    from afterimage.evaluation.encoding_agreement import Agreement
    from afterimage.evaluation.measures import Resampling, Scores
    from afterimage.evaluation.scores import ReconstructionSet

VERSION = 4
CITES = ("wang2004", "shirakawa2025", "scotti2024")
#: Label of the rows that hold the true pictures against the brain.
TRUE_IMAGES = "trueImages"


class Config(StageConfig):
    """Which metrics, how many resamples, and how the audit looks for leaks."""

    encoders: list[str] = Field(
        default=["clip", "pixels", "gabor"],
        description="feature blocks in which reconstructions are compared (twoway_<block>)",
    )
    protocols: list[Literal["afterimage", "mindeye2", "brain_diffuser"]] = Field(
        default=["afterimage"],
        description="protocols of the scores; our own, afterimage, is always there",
    )
    networks: dict[str, str] = Field(
        default={},
        description="local folders of the networks of published protocols, by name: alexnet, "
        "inception_v3, efficientnet_b1, efficientnet_b1_v1, swav, clip_vit_l14",
    )
    agreement: list[str] = Field(
        default=["clip", "gabor"],
        description="feature blocks (of encoders) of the encoding model that reconstructions are "
        "held against the brain with; empty: not done",
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    n_comparisons: int = Field(
        10_000, ge=1000, description="resamples of a difference between decoders"
    )
    n_permutations: int = Field(1000, ge=100, description="permuted pairs of a chance level")
    n_clusters: int = Field(10, ge=2, description="clusters that the cluster oracle knows")
    near_duplicate: float = Field(
        0.95, gt=0, le=1, description="correlation from which a test picture counts as a copy"
    )
    captions: CaptionMetrics = Field(
        CaptionMetrics(), description="how captions are scored, where there are any"
    )
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads. This is the only stage that compares with test pictures."""

    trials: Path
    split: Path
    dataset: Path
    features: Path
    test_features: Path
    models: tuple[Path, ...]
    predictions: tuple[Path, ...]
    images: tuple[Path, ...]
    candidates: tuple[Path, ...]
    captions: Path | None = None
    generator: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; per label also ``_metrics.json`` and ``recon/*_recon.tsv``.

    Captions have a table ``recon/*_captions.tsv`` a label.
    """

    metrics: Path
    per_image: Path
    audit: Path
    comparison: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Score, audit, and write the tables; without test pictures, write them empty."""
    from afterimage.evaluation import decoder_comparison
    from afterimage.evaluation.metrics import COLUMNS
    from afterimage.evaluation.scores import Resampling, image_rows

    checked = check_networks(config)
    resampling = Resampling(
        n_bootstraps=config.n_bootstraps,
        n_permutations=config.n_permutations,
        random_state=config.random_state or 0,
    )
    test_ids, test_blocks = read_blocks(inputs.test_features)
    rows: list[dict[str, Any]] = []
    per_image: list[dict[str, Any]] = []
    compared: list[dict[str, Any]] = []
    found: dict[str, Any] = {"near_duplicates": None, "cluster_oracle": None}
    folder = inputs.dataset.parent / "stimuli"
    split = read_tsv(inputs.split)
    files = {row["stimulus_id"]: row["file"] for row in split}
    if len(test_ids):
        pictures = [read_image(folder / files[name]) for name in test_ids]
        # Token grids of thousands of pictures are gigabytes, and nothing here needs them whole.
        needed = dict.fromkeys([config.encoders[0], *agreement_blocks(config)])
        train_ids, train_blocks = read_blocks(inputs.features, names=needed)
        judge = Judge(inputs, config, pictures, test_ids, test_blocks, device)
        predicted = _predictions(inputs, test_ids, test_blocks, judge, resampling)
        rows += predicted.rows
        training = [shrink(read_image(folder / files[name])) for name in train_ids]
        baselines, oracle = judge.baselines(train_ids, train_blocks, training)
        scored, more, networks = _score(
            judge, itertools.chain(judge.reconstructions(), baselines), pictures, checked,
            (train_ids, train_blocks), resampling, device,
        )  # fmt: skip
        rows += [*scored.rows, *more]
        rows += retrievals(inputs, config, (test_ids, test_blocks), judge, resampling)
        if inputs.captions:
            rows += score_captions(
                inputs.captions, inputs.split, inputs.features, list(test_ids), test_blocks,
                config.captions, resampling, device,
            )  # fmt: skip
        per_image = image_rows(list(test_ids), scored.per_image)
        compared = decoder_comparison.compare_over_images(
            [*predicted.rows, *scored.rows], {**predicted.per_image, **scored.per_image},
            n_bootstraps=config.n_comparisons, random_state=resampling.random_state,
        )  # fmt: skip
        copies = near_duplicates_of(training, pictures, train_ids, test_ids, config)
        found = {
            "cluster_oracle": oracle,
            "near_duplicates": copies,
            "without_duplicates": without_duplicates(copies, test_ids, scored),
            "protocols": networks,
        }
    noise = _noise_ceiling(inputs.trials)
    for row in rows:
        no_brain = row["decoder"] in ("", "n/a", "ceiling", None)  # and no noise of its own
        if not no_brain and row["noise_ceiling"] is None:
            row["noise_ceiling"] = noise
    per_image_columns = ["stimulus", "label"]
    per_image_columns += sorted({key for row in per_image for key in row} - {"stimulus", "label"})
    write_tsv(outputs.per_image, per_image, per_image_columns)
    _write_by_label(inputs, outputs, rows, per_image, per_image_columns[2:])
    write_json(
        outputs.audit,
        {
            **found,
            "leak_linter": lint(inputs, folder, files),
            "split": split_facts(split),
            "n_test_pictures": len(test_ids),
        },
    )
    write_tsv(outputs.comparison, compared, decoder_comparison.COLUMNS)
    write_tsv(outputs.metrics, rows, COLUMNS)


def _score(
    judge: Judge,
    sets: Iterator[ReconstructionSet],
    pictures: Sequence[np.ndarray],
    checked: Mapping[str, dict[str, Any]],
    training: tuple[np.ndarray, dict[str, np.ndarray]],
    resampling: Resampling,
    device: str,
) -> tuple[Scores, list[dict[str, Any]], dict[str, Any]]:
    """Score all sets by our protocol, by the published ones asked for, and against the brain.

    Every set is read once, and one is held at a time.
    """
    from afterimage.evaluation.encoding_agreement import with_ceiling
    from afterimage.evaluation.scores import reconstruction_rows

    others = judges(judge, pictures, checked, resampling, device)
    agreement = _agreement(judge, training, resampling)
    blocks = agreement_blocks(judge.config)

    def passed_on() -> Iterator[ReconstructionSet]:
        for one in sets:
            if one.role != "audit":  # wrong brains are judged by our own protocol, which is cheap
                for other in others:
                    other.add(one)
            if agreement is not None and one.role != "baseline":
                identity = {"subject": judge.subject, "label": one.label, "decoder": one.decoder}
                identity |= {"method": one.method, "role": one.role}
                features = np.concatenate([one.embeddings[name] for name in blocks], axis=1)
                agreement.add(features, identity, one.selection, one.how)
            yield one

    scored = reconstruction_rows(
        judge.truth, judge.truth_blocks, passed_on(), subject=judge.subject, size=judge.size,
        clusters=judge.clusters, resampling=resampling,
    )  # fmt: skip
    more = [row for other in others for row in other.rows()]
    if agreement is not None:
        more += with_ceiling(agreement.rows, TRUE_IMAGES)
    return scored, more, describe_networks(others, checked, judge.config.encoders)


def agreement_blocks(config: Config) -> list[str]:
    """Return the blocks of the encoding model: those wanted that reconstructions are embedded in."""
    return [name for name in config.agreement if name in config.encoders]


def _agreement(
    judge: Judge, training: tuple[np.ndarray, dict[str, np.ndarray]], resampling: Resampling
) -> Agreement | None:
    """Fit features -> responses on the training trials; None for responses over time.

    One response a unit is needed: where there is a course of them, its window is another choice.
    """
    from afterimage.evaluation.encoding_agreement import Agreement, fit_encoding
    from afterimage.preprocess.noise_ceiling import averaged_ceiling

    names, blocks = training
    wanted, path = agreement_blocks(judge.config), judge.inputs.trials
    with open_dataset(path) as dataset:
        if not wanted or "time" in dataset.variables:
            return None
        regions = dataset["roi"].values.astype(str) if "roi" in dataset else None
        single = dataset["ceiling"].values.astype(np.float64)
    responses, stimuli, _ = read_averages(path, "train")
    order = rows_of(names, stimuli)
    features = np.concatenate(
        [blocks[name].reshape(len(names), -1)[order] for name in wanted], axis=1
    )
    test, test_stimuli, counts = read_averages(path, "test")
    places = rows_of(test_stimuli, judge.ids)
    snr = single / np.sqrt(np.maximum(1 - single**2, 1e-9))
    agreement = Agreement(
        fit_encoding(features, responses),
        test[places],
        regions if regions is not None else ["n/a"] * len(single),
        encoder=" and ".join(wanted),
        noise_ceiling=averaged_ceiling(snr, counts[places]),
        drawing=resampling,
    )
    identity = {"subject": judge.subject, "label": TRUE_IMAGES, "decoder": "", "method": ""}
    truth = np.concatenate([judge.truth_blocks[name] for name in wanted], axis=1)
    agreement.add(truth, identity | {"role": "ceiling"}, "the true images")
    return agreement


def _predictions(
    inputs: Inputs,
    test_ids: np.ndarray,
    test_blocks: dict[str, np.ndarray],
    judge: Judge,
    resampling: Resampling,
) -> Scores:
    """Score decoded features over the full gallery of test pictures, with no generator between."""
    from afterimage.evaluation.measures import Scores
    from afterimage.evaluation.scores import prediction_rows

    found, means = Scores(), block_means(inputs.features)
    for model, predictions in zip(inputs.models, inputs.predictions, strict=True):
        decoder = entity(predictions, "desc")
        ids, predicted = read_blocks(predictions, "brain")
        predicted.pop("training_scores")
        order = rows_of(ids, test_ids)
        card = load_weights(model, mapped=True)[1]
        names, scores = scores_of_test(model, inputs.trials, test_blocks)
        scores = scores[rows_of(names, test_ids)]
        own = prediction_rows(
            {name: values[order] for name, values in predicted.items()},
            test_blocks,
            subject=judge.subject,
            label=decoder,
            decoder=decoder,
            training_means=means,
            score_matrix=scores,
            how=("transductive",) if is_transductive(card) else (),
            resampling=resampling,
        )
        found.rows.extend(own.rows)
        found.per_image.update(own.per_image)
    return found


def _noise_ceiling(trials: Path) -> float | None:
    """Return the median over units of the noise ceiling of the averaged test trials."""
    from afterimage.preprocess.noise_ceiling import averaged_ceiling

    with open_dataset(trials) as dataset:
        single = dataset["ceiling"].values.astype(np.float64)
        test = dataset["split"].values.astype(str) == "test"
        repeats = np.unique(dataset["stimulus"].values[test].astype(str), return_counts=True)[1]
    single = single[np.isfinite(single)]
    if not len(single) or not len(repeats):
        return None
    snr = single / np.sqrt(np.maximum(1 - single**2, 1e-9))
    return float(np.median(averaged_ceiling(snr, repeats)))


def _write_by_label(
    inputs: Inputs,
    outputs: Outputs,
    rows: list[dict[str, Any]],
    per_image: list[dict[str, Any]],
    metrics: list[str],
) -> None:
    """Write, for every decoder and method, its scores and the table of its reconstructions.

    These follow from what the stage declares, and are written before it: there are dozens a
    subject, which would slow the workflow down without telling it anything.
    """
    name = unit_of(outputs.metrics)
    folder = outputs.metrics.parents[1]
    scores = {(row["label"], row["stimulus"]): row for row in per_image}
    manifest = [row for path in inputs.candidates for row in read_tsv(path)]
    made = list(dict.fromkeys(row["label"] for row in manifest))
    for label in [*(entity(path, "desc") for path in inputs.predictions), *made]:
        own = [row for row in rows if row["label"] == label]
        values = {_key(row): _values(row) for row in own}
        write_json(folder / f"{name}_desc-{label}_metrics.json", values)
    columns = ["stimulus_id", "decoder", "method", "seed", "file", *metrics, "details"]
    for label in made:
        listed = [row for row in manifest if row["label"] == label]
        table: list[dict[str, Any]] = [
            {**row, **scores.get((label, row["stimulus_id"]), {})} for row in listed
        ]
        write_tsv(folder / "recon" / f"{name}_desc-{label}_recon.tsv", table, columns)


def _key(row: dict[str, Any]) -> str:
    """Name of a metric; of a published protocol with the protocol before it."""
    family = family_of(row)
    return row["metric"] if family == PROTOCOL else f"{family}/{row['metric']}"


def _values(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("value", "ci_low", "ci_high", "chance", "chance_low", "chance_high", "ceiling")
    return {key: row[key] for key in (*keys, "noise_ceiling", "p", "n", "protocol")}
