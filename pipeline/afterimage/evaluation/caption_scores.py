"""The rows of captions in the table of scores: value, interval, chance, p and ceiling of each.

Captions as in MindEye2 (Scotti et al. 2024, arXiv:2403.11207) and UMBRAE (Xia et al. 2024,
arXiv:2404.07202).

What differs: two sets of references are never mixed nor divided by each other. Metrics that end in
``_dataset`` compare with what people wrote of the picture, those in ``_git`` with what GIT writes of
the true picture, and the protocol of every row says which. Chance comes from permuting which picture
belongs to which caption. The ceiling is the caption of the true picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afterimage.evaluation.captions import first_named, text_metrics
from afterimage.evaluation.metrics import COLUMNS, protocol
from afterimage.evaluation.statistics import bootstrap_interval, permutation_chance, permuted_pairs

#: Pairs of caption and picture that metrics of words look at, for one label: they are slow.
N_PAIRS = 600
SMALLEST_BLOCK = 8
WORDS = "words a-z 0-9 in lower case"
NOTES = {
    "meteor": "METEOR of equal words and stems, no synonyms",
    "rouge1": "F, no stemming",
    "rougel": "F, no stemming",
    "bleu1": "of single sentences",
    "bleu4": "of single sentences, smoothed",
    "cider": "CIDEr-D, frequencies of these references",
}

#: Captions to vectors of unit length, (n, n_features).
EmbedTexts = Callable[[Sequence[str]], NDArray[np.floating]]


@dataclass(frozen=True)
class References:
    """What captions are compared with.

    Attributes
    ----------
    name : str
        ``dataset`` or ``git``: the end of the names of its metrics.
    texts : sequence of tuple of str, length n
        The references of every test picture, at least one each.
    """

    name: str
    texts: Sequence[tuple[str, ...]]

    def told(self) -> str:
        """Return what the protocol says of them."""
        counts = sorted({len(texts) for texts in self.texts})
        number = "1" if counts == [1] else f"{counts[0]} to {counts[-1]}"
        what = {"git": "GIT of the true picture", "dataset": "captions of the dataset"}
        return f"references: {what[self.name]}, {number} a picture"


@dataclass(frozen=True)
class CaptionSet:
    """The captions of all test pictures by one decoder and source.

    Attributes
    ----------
    label, decoder, method, role : str
        As in the table of scores; roles begin with ``caption``.
    captions : sequence of str, length n
    ceiling : str
        Label of the captions of the true pictures; empty for those themselves.
    """

    label: str
    decoder: str
    method: str
    role: str
    captions: Sequence[str]
    ceiling: str = ""


@dataclass(frozen=True)
class Judge:
    """What captions are compared with, besides their words.

    Attributes
    ----------
    embed : mapping of str to callable
        ``sentence`` and ``cliptext``: captions to unit vectors; what is absent is not scored.
    images : ndarray, (n, n_features), optional
        Unit vectors of the true pictures in the space of ``cliptext``; gives ``clipimage``.
    attributes : mapping of str to sequence of str
        Columns of the table of stimuli, of the test pictures; give ``named_<column>``.
    values : mapping of str to collection of str
        All values of those columns over the dataset.
    """

    embed: Mapping[str, EmbedTexts] = field(default_factory=dict)
    images: NDArray[np.floating] | None = None
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)


def caption_rows(
    sets: Sequence[CaptionSet],
    references: Sequence[References],
    judge: Judge,
    *,
    subject: str,
    n_bootstraps: int = 1000,
    n_permutations: int = 1000,
    random_state: int = 0,
) -> tuple[list[dict[str, Any]], dict[str, dict[str, NDArray[np.float64]]]]:
    """Score sets of captions.

    Parameters
    ----------
    sets : sequence of CaptionSet
        The ceiling among them.
    references : sequence of References
    judge : Judge
    subject : str
    n_bootstraps, n_permutations, random_state : int

    Returns
    -------
    rows : list of dict
        Keys are `COLUMNS`.
    per_caption : dict
        label -> metric -> ndarray of float64, (n,).
    """
    rows: list[dict[str, Any]] = []
    per_caption: dict[str, dict[str, NDArray[np.float64]]] = {}
    n = len(sets[0].captions) if sets else 0
    blocks = _blocks(n, random_state)
    free, grouped = (
        permuted_pairs(n, n_permutations, random_state=random_state, groups=groups)
        for groups in (None, blocks)
    )
    measures = [_Words(truth, blocks) for truth in references]
    for one in sets:
        found = [m for words in measures for m in words.measure(one.captions)]
        found += [*_meanings(one.captions, references, judge)]
        for name, scores, told in found:
            values = np.diag(scores).astype(np.float64)
            partly = np.isnan(scores).any()  # pairs of different blocks were left out
            chance = permutation_chance(scores, grouped if partly else free)
            low, high = bootstrap_interval(
                values, n_bootstraps=n_bootstraps, random_state=random_state
            )
            row: dict[str, Any] = dict.fromkeys(COLUMNS)
            row |= {"subject": subject, "label": one.label, "decoder": one.decoder}
            row |= {"method": one.method, "role": one.role, "metric": name, "n": n}
            numbers = {"value": values.mean(), "ci_low": low, "ci_high": high}
            numbers |= {"chance": chance.mean, "chance_low": chance.low}
            numbers |= {"chance_high": chance.high, "p": chance.p}
            row |= {key: float(v) if np.isfinite(v) else None for key, v in numbers.items()}
            row["protocol"] = protocol(
                size="captions", n=n, repeats="averaged", selection="one caption", extra=told
            )
            rows.append(row)
            per_caption.setdefault(one.label, {})[name] = values
    values_of = {(row["label"], row["metric"]): row["value"] for row in rows}
    ceilings = {one.label: one.ceiling for one in sets}
    for row in rows:
        row["ceiling"] = values_of.get((ceilings[row["label"]], row["metric"]))
    return rows, per_caption


class _Words:
    """Metrics of words against one set of references; a pair met again is not scored again."""

    def __init__(self, references: References, blocks: NDArray[np.int64]) -> None:
        self._references, self._blocks = references, blocks
        self._metrics = text_metrics(references.texts)
        self._known: dict[tuple[str, str, tuple[str, ...]], float] = {}

    def measure(
        self, captions: Sequence[str]
    ) -> Iterator[tuple[str, NDArray[np.float64], tuple[str, ...]]]:
        """Score every caption against the references of all pictures of its block."""
        n, known = len(captions), self._known
        for metric, function in self._metrics.items():
            scores = np.full((n, n), np.nan)
            for i, j in np.argwhere(self._blocks[:, None] == self._blocks[None]):
                key = (metric, captions[i], self._references.texts[j])
                if key not in known:
                    known[key] = function(*key[1:])
                scores[i, j] = known[key]
            told = (self._references.told(), WORDS, NOTES[metric])
            yield f"{metric}_{self._references.name}", scores, told


def _meanings(
    captions: Sequence[str], references: Sequence[References], judge: Judge
) -> Iterator[tuple[str, NDArray[np.float64], tuple[str, ...]]]:
    """Score what captions mean: cosines of embeddings, and attributes that they name."""
    embedded = {name: embed(captions) for name, embed in judge.embed.items()}
    for truth in references:
        for name, vectors in embedded.items():
            flat = [text for texts in truth.texts for text in texts]
            owner = np.repeat(np.arange(len(truth.texts)), [len(texts) for texts in truth.texts])
            cosines = np.asarray(vectors @ judge.embed[name](flat).T, np.float64)
            # The best reference of each picture, as for the metrics of words.
            best = np.full((len(captions), len(truth.texts)), -np.inf)
            np.maximum.at(best.T, owner, cosines.T)
            yield f"{name}_{truth.name}", best, (truth.told(), "cosine")
    if judge.images is not None and "cliptext" in embedded:
        cosines = np.asarray(embedded["cliptext"] @ judge.images.T, np.float64)
        yield "clipimage", cosines, ("cosine of caption and true picture",)
    for column, truths in judge.attributes.items():
        named = np.array([first_named(text, judge.values[column]) for text in captions])
        right = (named[:, None] == np.asarray(truths)[None]).astype(np.float64)
        n_values = len(judge.values[column])
        yield f"named_{column}", right, (f"named first among {n_values} values",)


def _blocks(n: int, random_state: int) -> NDArray[np.int64]:
    """Put pictures at random into equal blocks, in which pairs are permuted."""
    per_block = max(SMALLEST_BLOCK, N_PAIRS // max(1, n))
    order = np.random.default_rng(random_state).permutation(n)
    blocks = np.zeros(n, np.int64)
    for number, members in enumerate(np.array_split(order, max(1, n // per_block))):
        blocks[members] = number
    return blocks
