"""Score every reconstruction of one subject beside its controls, baselines and ceilings."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import camel_case, entity, unit_of
from afterimage.decoding.registry import DECODERS
from afterimage.features.registry import ENCODERS
from afterimage.io.arrays import groups_of, open_dataset, read_blocks
from afterimage.io.atomic import write_json
from afterimage.io.images import read_image, resize_images
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.trials import average_repeats, read_responses
from afterimage.io.weights import load_weights
from afterimage.settings import StageConfig

if TYPE_CHECKING:
    from afterimage.evaluation.scores import ReconstructionSet, Resampling

VERSION = 2
CITES = ("wang2004", "shirakawa2025", "scotti2024")
#: Native pictures larger than this are scored at this size, that of the literature.
LARGEST_PX = 425
#: Training pictures are held at no more than this, so that ten thousand fit in memory.
SMALL_PX = 128
ROLES = {"brain": "reconstruction", "shuffled": "audit", "mean": "audit", "truth": "ceiling"}


class Config(StageConfig):
    """Which metrics, how many resamples, and how the audit looks for leaks."""

    encoders: list[str] = Field(
        default=["clip", "pixels", "gabor"],
        description="feature blocks in which reconstructions are compared (twoway_<block>)",
    )
    n_bootstraps: int = Field(1000, ge=100, description="resamples of an interval")
    n_permutations: int = Field(1000, ge=100, description="permuted pairs of a chance level")
    n_clusters: int = Field(10, ge=2, description="clusters that the cluster oracle knows")
    near_duplicate: float = Field(
        0.95, gt=0, le=1, description="correlation from which a test picture counts as a copy"
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
    generator: Path | None = None


@dataclass(frozen=True)
class Outputs:
    """What the stage writes; per label also ``_metrics.json`` and ``recon/*_recon.tsv``."""

    metrics: Path
    per_image: Path
    audit: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Score, audit, and write the tables; without test pictures, write them empty."""
    from afterimage.evaluation.metrics import COLUMNS
    from afterimage.evaluation.scores import Resampling, image_rows

    subject = unit_of(inputs.trials).removeprefix("sub-")
    resampling = Resampling(
        n_bootstraps=config.n_bootstraps,
        n_permutations=config.n_permutations,
        random_state=config.random_state or 0,
    )
    test_ids, test_blocks = read_blocks(inputs.test_features)
    rows: list[dict[str, Any]] = []
    per_image: list[dict[str, Any]] = []
    oracle: dict[str, Any] | None = None
    folder = inputs.dataset.parent / "stimuli"
    files = {row["stimulus_id"]: row["file"] for row in read_tsv(inputs.split)}
    if len(test_ids):
        pictures = [read_image(folder / files[name]) for name in test_ids]
        train_ids, train_blocks = read_blocks(inputs.features)
        rows += _prediction_rows(inputs, subject, test_ids, test_blocks, train_blocks, resampling)
        judge = _Judge(inputs, config, pictures, test_ids, test_blocks, device)
        training = [_shrink(read_image(folder / files[name])) for name in train_ids]
        baselines, oracle = judge.baselines(train_ids, train_blocks, training)
        sets = itertools.chain(judge.reconstructions(), baselines)
        scored = judge.score(sets, subject, resampling)
        rows += scored.rows
        per_image = image_rows(list(test_ids), scored.per_image)
        duplicates = _near_duplicates(training, pictures, train_ids, test_ids, config)
    else:
        duplicates = None
    noise = _noise_ceiling(inputs.trials)
    for row in rows:
        if row["decoder"] not in ("", "n/a", "ceiling", None):  # no brain, no noise of its own
            row["noise_ceiling"] = noise
    per_image_columns = ["stimulus", "label"]
    per_image_columns += sorted({key for row in per_image for key in row} - {"stimulus", "label"})
    write_tsv(outputs.per_image, per_image, per_image_columns)
    _write_by_label(inputs, outputs, rows, per_image, per_image_columns[2:])
    write_json(
        outputs.audit,
        {
            "leak_linter": _lint(inputs, folder, files),
            "near_duplicates": duplicates,
            "cluster_oracle": oracle,
            "n_test_pictures": len(test_ids),
        },
    )
    write_tsv(outputs.metrics, rows, COLUMNS)


class _Judge:
    """The test pictures of one subject, at one size, and the encoders that compare with them."""

    def __init__(
        self,
        inputs: Inputs,
        config: Config,
        pictures: Sequence[np.ndarray],
        test_ids: np.ndarray,
        test_blocks: dict[str, np.ndarray],
        device: str,
    ) -> None:
        sizes = {picture.shape[:2] for picture in pictures}
        height, width = sizes.pop() if len(sizes) == 1 else (LARGEST_PX, LARGEST_PX)
        largest = max(height, width)
        if largest > LARGEST_PX:
            height, width = (round(side * LARGEST_PX / largest) for side in (height, width))
        self.height, self.width = height, width
        native = {picture.shape[:2] for picture in pictures} == {(height, width)}
        self.size = "native size" if native else f"resized to {height} x {width}"
        self.truth = resize_images(pictures, height, width)
        self.ids, self.inputs, self.config = test_ids, inputs, config
        self.truth_blocks = {name: test_blocks[name] for name in config.encoders}
        with open_dataset(inputs.features) as dataset:
            settings = {
                name: json.loads(dataset[name].attrs["encoder"]) for name in config.encoders
            }
        self.transductive = {entity(p, "desc"): _transductive(p) for p in inputs.predictions}
        self.encoders = {}
        for name, values in settings.items():
            if values["kind"] == "vae" and inputs.generator:
                values["path"] = str(inputs.generator)
            checked = ENCODERS.settings(values["kind"])(**values)
            self.encoders[name] = ENCODERS.get(values["kind"])(checked, device=device)

    def embed(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Embed pictures with every encoder, equal ones once; (n, n_features) each."""
        different: dict[bytes, int] = {}
        rows = [different.setdefault(image.tobytes(), len(different)) for image in images]
        unique = [images[rows.index(number)] for number in range(len(different))]
        return {
            name: encoder.encode(unique).reshape(len(unique), -1)[rows]
            for name, encoder in self.encoders.items()
        }

    def make_set(
        self, images: Sequence[np.ndarray], *, label: str, decoder: str, method: str, role: str,
        ceiling: str = "", selection: str = "one sample",
    ) -> ReconstructionSet:  # fmt: skip
        """Put one set of reconstructions at the size of the test pictures, and embed it."""
        from afterimage.evaluation.scores import ReconstructionSet

        return ReconstructionSet(
            label=label, decoder=decoder, method=method, role=role,
            images=_uint8(resize_images(list(images), self.height, self.width)),
            embeddings=self.embed(images), ceiling=ceiling, selection=selection,
        )  # fmt: skip

    def reconstructions(self) -> Iterator[ReconstructionSet]:
        """Read the stacks of reconstructions one by one: the brain's, controls', the ceiling's."""
        decoders = [entity(path, "desc") for path in self.inputs.images]
        several = len([name for name in decoders if name != "ceiling"]) > 1
        manifest = [row for path in self.inputs.candidates for row in read_tsv(path)]
        order = list(dict.fromkeys(row["method"] for row in manifest))
        for path, decoder in zip(self.inputs.images, decoders, strict=True):
            for source in groups_of(path):
                if source not in ROLES:  # regions alone: there is no picture to compare with
                    continue
                ids, _ = read_blocks(path, source, names=[])
                with open_dataset(path, source) as dataset:
                    stacks = {
                        str(name): (values.values.reshape(-1, *values.attrs["shape"]))
                        for name, values in dataset.data_vars.items()
                    }
                rows = [0] * len(self.ids) if source == "mean" else _rows_of(ids, self.ids)
                # netCDF lists variables by name; people expect the order of the configuration.
                for method in sorted(stacks, key=order.index):
                    stack = stacks[method]
                    words = {"brain": [decoder], "truth": ["ceiling"]}.get(
                        source, ([decoder] if several else []) + [f"{source}_brain"]
                    )
                    yield self.make_set(
                        list(stack[rows]),
                        label=camel_case(*words, method),
                        decoder="" if source == "truth" else decoder,
                        method=method,
                        role=ROLES[source],
                        ceiling="" if source == "truth" else camel_case("ceiling", method),
                        selection=_selection(self.inputs.candidates, decoder, method)
                        + self.transductive.get(decoder, ""),
                    )

    def baselines(
        self,
        train_ids: np.ndarray,
        train_blocks: dict[str, np.ndarray],
        training: Sequence[np.ndarray],
    ) -> tuple[list[ReconstructionSet], dict[str, Any]]:
        """Make what needs no brain (mean picture, oracle of clusters) or no generator (nearest)."""
        from afterimage.evaluation.audit import cluster_oracle, mean_training_image

        small = resize_images(training, min(self.height, SMALL_PX), min(self.width, SMALL_PX))
        n = len(self.ids)
        mean = _uint8(mean_training_image(small))
        sets = [
            self.make_set(
                [mean] * n, label="meanTrainingImage", decoder="", method="", role="baseline"
            )
        ]
        for path in self.inputs.predictions:
            decoder = entity(path, "desc")
            ids, blocks = read_blocks(path, "brain", names=["training_scores"])
            nearest = blocks["training_scores"].argmax(axis=1)[_rows_of(ids, self.ids)]
            several = len(self.inputs.predictions) > 1
            sets.append(
                self.make_set(
                    [_uint8(small[index]) for index in nearest],
                    label=camel_case(*([decoder] if several else []), "nearestTrainingImage"),
                    decoder=decoder, method="", role="baseline",
                    selection="training image with the highest decoder score",
                )
            )  # fmt: skip
        encoder = self.config.encoders[0]
        k = min(self.config.n_clusters, max(2, len(train_ids) // 4))
        oracle = cluster_oracle(
            train_blocks[encoder], self.truth_blocks[encoder], k,
            random_state=self.config.random_state or 0,
        )  # fmt: skip
        centres = [_uint8(small[members].mean(axis=0)) for members in oracle.members]
        sets.append(
            self.make_set(
                [centres[cluster] for cluster in oracle.assigned],
                label="clusterOracle", decoder="", method="", role="audit",
                selection="mean training image of the true cluster",
            )
        )  # fmt: skip
        summary = {
            "k": k,
            "encoder": encoder,
            "expected_twoway": oracle.expected_twoway,
            "expected_twoway_sizes": oracle.expected_twoway_sizes,
            "measured_twoway": oracle.measured_twoway,
        }
        self.clusters = oracle.assigned
        return sets, summary

    def score(
        self, sets: Iterable[ReconstructionSet], subject: str, resampling: Resampling
    ) -> Any:
        """Score all sets against the test pictures."""
        from afterimage.evaluation.scores import reconstruction_rows

        return reconstruction_rows(
            self.truth, self.truth_blocks, sets, subject=subject, size=self.size,
            clusters=self.clusters, resampling=resampling,
        )  # fmt: skip


def _prediction_rows(
    inputs: Inputs,
    subject: str,
    test_ids: np.ndarray,
    test_blocks: dict[str, np.ndarray],
    train_blocks: dict[str, np.ndarray],
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """Score decoded features over the full gallery of test pictures, with no generator between."""
    from afterimage.evaluation.scores import prediction_rows

    rows: list[dict[str, Any]] = []
    for model, predictions in zip(inputs.models, inputs.predictions, strict=True):
        decoder = entity(predictions, "desc")
        ids, predicted = read_blocks(predictions, "brain")
        predicted.pop("training_scores")
        order = _rows_of(ids, test_ids)
        arrays, card = load_weights(model, mapped=True)
        method = card["settings"]["kind"]
        if not getattr(DECODERS.get(method), "streams", False):
            arrays = load_weights(model)[0]
        settings = DECODERS.settings(method)(**card["settings"])
        fitted = DECODERS.get(method).from_state(settings, arrays)
        window = card["window_s"]
        responses, stimuli = read_responses(inputs.trials, "test", *window)
        average, names, _ = average_repeats(responses, stimuli)
        scores = fitted.scores(average[_rows_of(names, test_ids)], test_blocks)
        rows += prediction_rows(
            {name: values[order] for name, values in predicted.items()},
            test_blocks,
            subject=subject,
            label=decoder,
            decoder=decoder,
            training_means={name: values.mean(axis=0) for name, values in train_blocks.items()},
            score_matrix=scores,
            repeats=f"averaged{_transductive(predictions)}",
            resampling=resampling,
        ).rows
    return rows


def _transductive(predictions: Path) -> str:
    """Words for the protocol where predictions were rescaled with statistics of the test set."""
    with open_dataset(predictions, "brain") as dataset:
        found = {str(block.attrs.get("rescaling", "")) for block in dataset.values()} - {""}
    return f"; predictions rescaled, {', '.join(sorted(found))}" if found else ""


def _near_duplicates(
    training: Sequence[np.ndarray],
    pictures: Sequence[np.ndarray],
    train_ids: np.ndarray,
    test_ids: np.ndarray,
    config: Config,
) -> dict[str, Any]:
    from afterimage.evaluation.duplicates import near_duplicates

    return near_duplicates(
        training, pictures, train_ids=list(train_ids), test_ids=list(test_ids),
        threshold=config.near_duplicate,
    )  # fmt: skip


def _lint(inputs: Inputs, folder: Path, files: dict[str, str]) -> list[dict[str, Any]]:
    """Check the split and the ledger of every fit against the trials themselves."""
    from afterimage.evaluation.audit import leak_linter

    fits = {"stimulus features": list(read_blocks(inputs.features, names=[])[0])}
    for path in inputs.models:
        card = load_weights(path, mapped=True)[1]
        fits[f"decoder {card['decoder']}"] = card["fitted_on"]
    if inputs.generator:
        card = json.loads((inputs.generator / "training.json").read_text(encoding="utf-8"))
        fits["generator"] = card["trained_on"]
    with open_dataset(inputs.trials) as trials:
        stimuli = trials["stimulus"].values.astype(str)
        splits = trials["split"].values.astype(str)
        repeats = trials["repeat"].values
    paths = {name: folder / file for name, file in files.items()}
    hashes = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else f"absent {name}"
        for name, path in paths.items()
    }
    return leak_linter(stimuli, splits, fits=fits, repeats=repeats, image_hashes=hashes)


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
        values = {row["metric"]: _values(row) for row in rows if row["label"] == label}
        write_json(folder / f"{name}_desc-{label}_metrics.json", values)
    columns = ["stimulus_id", "decoder", "method", "seed", "file", *metrics, "details"]
    for label in made:
        own = [row for row in manifest if row["label"] == label]
        table: list[dict[str, Any]] = [
            {**row, **scores.get((label, row["stimulus_id"]), {})} for row in own
        ]
        write_tsv(folder / "recon" / f"{name}_desc-{label}_recon.tsv", table, columns)


def _values(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("value", "ci_low", "ci_high", "chance", "chance_low", "chance_high", "ceiling")
    return {key: row[key] for key in (*keys, "noise_ceiling", "p", "n", "protocol")}


def _selection(candidates: Sequence[Path], decoder: str, method: str) -> str:
    for path in candidates:
        for row in read_tsv(path):
            if row["decoder"] == decoder and row["method"] == method:
                n = len(json.loads(row["details"]).get("scores", []))
                return f"best-of-{n} by predicted embedding" if n > 1 else "one sample"
    return "one sample"


def _rows_of(ids: np.ndarray, wanted: np.ndarray) -> list[int]:
    index = {str(name): row for row, name in enumerate(ids)}
    return [index[str(name)] for name in wanted]


def _shrink(image: np.ndarray) -> np.ndarray:
    """Reduce a picture so that its longer side is at most `SMALL_PX`."""
    height, width = image.shape[:2]
    scale = SMALL_PX / max(height, width)
    if scale >= 1:
        return image
    return _uint8(resize_images([image], round(height * scale), round(width * scale))[0])


def _uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
