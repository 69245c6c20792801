"""The pictures that the evaluation compares: reconstructions, controls, baselines and ceilings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.names import camel_case, entity, unit_of
from afterimage.features.registry import ENCODERS
from afterimage.io.arrays import block_shapes, groups_of, open_dataset, read_blocks
from afterimage.io.images import resize_images
from afterimage.io.tables import Row, read_json, read_tsv

if TYPE_CHECKING:
    from afterimage.evaluation.scores import ReconstructionSet

#: Native pictures larger than this are scored at this size, that of the literature.
LARGEST_PX = 425
#: Training pictures are held at no more than this, so that ten thousand fit in memory.
SMALL_PX = 128
ROLES = {
    "brain": "reconstruction", "shuffled": "audit", "mean": "audit", "noise": "audit",
    "truth": "ceiling",
}  # fmt: skip


class Judge:
    """The test pictures of one subject, at one size, and the encoders that compare with them."""

    def __init__(
        self,
        inputs: Any,
        config: Any,
        pictures: Sequence[np.ndarray],
        test_ids: np.ndarray,
        test_blocks: dict[str, np.ndarray],
        device: str,
    ) -> None:
        self.subject = unit_of(inputs.trials).removeprefix("sub-")
        self.device = device
        self.cards = {
            card["decoder"]: card for card in (load_card(path) for path in inputs.models)
        }
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
        ceiling: str = "", selection: str = "one sample", how: tuple[str, ...] = (),
    ) -> ReconstructionSet:  # fmt: skip
        """Put one set of reconstructions at the size of the test pictures, and embed it."""
        from afterimage.evaluation.scores import ReconstructionSet

        return ReconstructionSet(
            label=label, decoder=decoder, method=method, role=role,
            images=uint8(resize_images(list(images), self.height, self.width)),
            embeddings=self.embed(images), ceiling=ceiling, selection=selection, how=how,
            originals=images,
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
                shapes = block_shapes(path, source)
                # The mean and the noise belong to no image: they stand for all of them in turn.
                rows = [number % len(ids) for number in range(len(self.ids))]
                if source not in ("mean", "noise"):
                    rows = rows_of(ids, self.ids)
                # netCDF lists variables by name; people expect the order of the configuration.
                for method in sorted(shapes, key=order.index):
                    values = read_blocks(path, source, names=[method])[1][method]
                    stack = values.reshape(-1, *shapes[method])
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
                        selection=selection_of(manifest, decoder, method),
                        how=how_of(manifest, decoder, method, self.cards),
                    )

    def baselines(
        self,
        train_ids: np.ndarray,
        train_blocks: dict[str, np.ndarray],
        training: Sequence[np.ndarray],
    ) -> tuple[list[ReconstructionSet], dict[str, Any]]:
        """Make what needs no brain (mean picture, oracle of clusters) or no generator (nearest)."""
        from afterimage.evaluation.audit import cluster_oracle, mean_training_image

        size = min(self.height, SMALL_PX), min(self.width, SMALL_PX)

        def small(indices: Iterable[int]) -> np.ndarray:
            return resize_images([training[index] for index in indices], *size)

        n = len(self.ids)
        mean = uint8(mean_training_image(small((index,))[0] for index in range(len(training))))
        sets = [
            self.make_set(
                [mean] * n, label="meanTrainingImage", decoder="", method="", role="baseline"
            )
        ]
        for path in self.inputs.predictions:
            decoder = entity(path, "desc")
            ids, blocks = read_blocks(path, "brain", names=["training_scores"])
            nearest = blocks["training_scores"].argmax(axis=1)[rows_of(ids, self.ids)]
            several = len(self.inputs.predictions) > 1
            sets.append(
                self.make_set(
                    [uint8(small((index,))[0]) for index in nearest],
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
        centres = [uint8(small(members).mean(axis=0)) for members in oracle.members]
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


def selection_of(manifest: Sequence[Row], decoder: str, method: str) -> str:
    """Say how one of several reconstructions of an image was chosen."""
    for row in manifest:
        if row["decoder"] == decoder and row["method"] == method:
            n = len(json.loads(row["details"]).get("scores", []))
            return f"best-of-{n} by predicted embedding" if n > 1 else "one sample"
    return "one sample"


def how_of(
    manifest: Sequence[Row], decoder: str, method: str, cards: Mapping[str, dict[str, Any]]
) -> tuple[str, ...]:
    """Say what a protocol must of a method: blend, seeds, and whether it saw the whole test set."""
    own = [row for row in manifest if row["decoder"] == decoder and row["method"] == method]
    seeds = {row.get("seed", "n/a") for row in own} - {"n/a", ""}
    blends = {json.loads(row["details"]).get("blend") for row in own} - {None, 0}
    seeded = "a seed an image" if len(seeds) > 1 else f"seed {min(seeds)}" if seeds else "no seed"
    return (
        f"blend {' or '.join(map(str, sorted(blends)))} of the low-level image" if blends
        else "no blend",
        seeded,
        "transductive" if is_transductive(cards.get(decoder, {})) else "not transductive",
    )  # fmt: skip


def is_transductive(card: Mapping[str, Any]) -> bool:
    """Whether a decoder says that it uses statistics of the whole test set."""
    settings = card.get("settings", {})
    return bool(card.get("transductive")) or any(
        value == "transductive" or ("transductive" in key and value is True)
        for key, value in settings.items()
    )


def load_card(path: Path) -> dict[str, Any]:
    """Read the card beside the weights of a decoder, without the weights."""
    card: dict[str, Any] = read_json(path.with_suffix(".json"))
    return card


def rows_of(ids: np.ndarray, wanted: np.ndarray) -> list[int]:
    """Return the row of each name that is wanted."""
    index = {str(name): row for row, name in enumerate(ids)}
    return [index[str(name)] for name in wanted]


def shrink(image: np.ndarray) -> np.ndarray:
    """Reduce a picture so that its longer side is at most `SMALL_PX`."""
    height, width = image.shape[:2]
    scale = SMALL_PX / max(height, width)
    if scale >= 1:
        return image
    return uint8(resize_images([image], round(height * scale), round(width * scale))[0])


def uint8(image: np.ndarray) -> np.ndarray:
    """Return intensities 0..1 as 8 bits."""
    return np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
