"""Within-subject, cross-subject, few-shot and pooled scores of one decoder, comparable in one table.

How much a decoder gains from other people and from the subject's own data, as cross-subject protocols
of THINGS-EEG2 ask (Song et al. 2024, arXiv:2308.13234).

What differs: the test images of a subject are never fitted on, in any subject (published
cross-subject scores choose the epoch on the same 200 test images seen by other people); few-shot takes
its trials image by image from the new subject's training images, and a larger number holds the
smaller; single test trials are scored beside averaged ones; the rows of all protocols share images,
gallery, resamples and chance, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from afterimage.errors import AfterimageError, InputError
from afterimage.evaluation.gallery import metrics_of, pair_scores, plain, score_curve
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.scores import Resampling

#: Columns of the table of subjects.
COLUMNS = (
    *("modality", "subject", "label", "analysis", "k", "repeats", "metric", "value", "ci_low"),
    *("ci_high", "chance", "chance_low", "chance_high", "p", "n", "protocol"),
)
#: Values of the column ``analysis``, in the order of the table.
ANALYSES = ("within_subject", "cross_subject", "few_shot", "pooled_subjects")
#: Test trials decoded at once.
N_TRIALS_BATCH = 512


class Responses(Protocol):
    """Trials that are read when indexed by trial numbers: float32 (n, n_units, n_times)."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any) -> NDArray[np.floating]: ...


@dataclass(frozen=True)
class SubjectTrials:
    """Training and test trials of one subject.

    Attributes
    ----------
    train : Responses, shape (n_trials, n_units, n_times)
        An array, or anything that reads trials when it is indexed.
    stimuli : ndarray of str, shape (n_trials,)
    groups : ndarray of str, shape (n_trials,)
        What no fold may cut: the concept of each stimulus, or the stimulus itself.
    test : Responses, shape (n_test_trials, n_units, n_times)
    test_stimuli : ndarray of str, shape (n_test_trials,)
    """

    train: Responses
    stimuli: NDArray[np.str_]
    groups: NDArray[np.str_]
    test: Responses
    test_stimuli: NDArray[np.str_]


class Learner(Protocol):
    """A kind of decoder that can be fitted on several subjects and adapted to a new one.

    ``label`` names it in the table. Models are opaque to the protocols.
    """

    label: str

    def fit(self, names: Sequence[str]) -> Any:
        """Fit on all training trials of these subjects."""

    def adapt(self, model: Any, name: str, rows: NDArray[np.int64]) -> Any:
        """Return a model of a subject that `model` does not know, from some training trials."""

    def similarities(
        self, model: Any, responses: NDArray[np.floating], name: str
    ) -> NDArray[np.floating]:
        """Compare decoded trials of a subject with the gallery: (n, n_gallery)."""


#: Told of a fit or a score that failed: what it was, and the error.
OnError = Callable[[str, AfterimageError], None]


def score_subjects(
    subjects: Mapping[str, SubjectTrials],
    learner: Learner,
    gallery_names: Sequence[str],
    k_values: Sequence[int],
    *,
    features: str = "",
    resampling: Resampling | None = None,
    on_error: OnError | None = None,
) -> Iterator[dict[str, Any]]:
    """Fit and score one decoder by every protocol.

    ``within_subject`` fits on a subject's own training trials; ``cross_subject`` on those of all
    others; ``few_shot`` adapts that fit to ``k`` training trials of the subject;
    ``pooled_subjects`` is one fit on everybody. Each scores the subject's test trials.

    Parameters
    ----------
    subjects : mapping of str to SubjectTrials
        Two or more, with the same units and times.
    learner : Learner
        Made from the same subjects.
    gallery_names : sequence of str, length n_gallery
        The images to choose from, in the learner's order; those nobody saw are distractors.
    k_values : sequence of int
        Numbers of trials for few-shot; those a subject does not have are left out.
    features : str
        Block in which images are told apart, for the protocol.
    resampling : Resampling, optional
    on_error : callable, optional; told what failed, and the rest goes on; else it is raised

    Yields
    ------
    dict
        Rows with the keys `COLUMNS`, without ``modality``.
    """
    check_agree(subjects)
    check_split(subjects)
    drawing = resampling or Resampling()
    scorer = _Scorer(subjects, learner, [str(name) for name in gallery_names], drawing, features)
    everybody = list(subjects)

    def attempt(what: str, make: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return make(*arguments)
        except AfterimageError as error:
            if on_error is None:
                raise
            on_error(f"{learner.label}, {what}", error)
            return None

    for name in everybody:
        model = attempt(f"sub-{name} alone", learner.fit, [name])
        n = len(subjects[name].stimuli)
        if model is not None:
            yield from scorer.rows(name, model, "within_subject", "fitted on this subject", n)
    for name in everybody:
        others = [other for other in everybody if other != name]
        model = attempt(f"all but sub-{name}", learner.fit, others)
        if model is None:
            continue
        told = f"fitted on {len(others)} other subject{'s' if len(others) > 1 else ''}"
        n = sum(len(subjects[other].stimuli) for other in others)
        yield from scorer.rows(
            name, model, "cross_subject", f"{told}, no labelled trial of this one", n
        )
        order = images_first(subjects[name].stimuli, drawing.random_state)
        for k in sorted({k for k in k_values if k < len(order)}):
            rows = np.sort(order[:k])
            adapted = attempt(f"sub-{name} by {k} trials", learner.adapt, model, name, rows)
            if adapted is not None:
                words = f"{told}, adapted to {k} trials of this one"
                yield from scorer.rows(name, adapted, "few_shot", words, n + k, k)
    model = attempt("all subjects", learner.fit, everybody)
    if model is not None:
        n = sum(len(one.stimuli) for one in subjects.values())
        told = f"fitted on all {len(everybody)} subjects, this one among them"
        for name in everybody:
            yield from scorer.rows(name, model, "pooled_subjects", told, n)


def check_agree(subjects: Mapping[str, SubjectTrials]) -> None:
    """Refuse fewer than two subjects, or subjects with other units or times."""
    shapes = {name: tuple(one.train.shape[1:]) for name, one in subjects.items()}
    if len(subjects) < 2 or len(set(shapes.values())) > 1:
        raise InputError(
            "subjects cannot be decoded across", where="cross-subject evaluation",
            found=", ".join(f"sub-{name} {shape}" for name, shape in shapes.items()),
            expected="two or more subjects with the same units and times",
            fix="keep the units that all subjects have, in one order",
        )  # fmt: skip


def check_split(subjects: Mapping[str, SubjectTrials]) -> None:
    """Refuse training trials whose image is a test image of any subject."""
    held_out = {image for one in subjects.values() for image in one.test_stimuli.tolist()}
    fitted = {image for one in subjects.values() for image in one.stimuli.tolist()}
    leaked = sorted(held_out & fitted)
    if leaked:
        raise InputError(
            "test images of one subject are training images of another",
            where="cross-subject evaluation",
            found=f"{len(leaked)}: {', '.join(leaked[:5])}",
            expected="one split by image for all subjects",
        )


def images_first(stimuli: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """Order trials at random, the first of every image before the second of any."""
    order = np.random.default_rng(seed).permutation(len(stimuli))
    seen: dict[str, int] = {}
    turn = []
    for row in order.tolist():
        name = str(stimuli[row])
        turn.append(seen.get(name, 0))
        seen[name] = turn[-1] + 1
    return order[np.argsort(turn, kind="stable")]


@dataclass(frozen=True)
class _Scorer:
    """What all scores of one decoder share."""

    subjects: Mapping[str, SubjectTrials]
    learner: Learner
    gallery_names: list[str]
    drawing: Resampling
    features: str

    def rows(
        self, name: str, model: Any, analysis: str, told: str, n_trials: int, k: int | None = None
    ) -> list[dict[str, Any]]:
        """Rows of single and of averaged test trials of one subject."""
        shown = set(self.subjects[name].test_stimuli.tolist())
        columns = [place for place, one in enumerate(self.gallery_names) if one in shown]
        found = self._pair_scores(name, model, columns)
        rows = []
        for repeats, scores in found.items():
            text = protocol(
                size="decoded features", n=len(columns),
                repeats="averaged" if repeats == "averaged" else "scored one by one",
                selection="no selection", direction="brain_to_image",
                gallery=len(self.gallery_names),
                extra=(*((f"features {self.features}",) if self.features else ()),
                       "each subject centred and scaled without labels", told,
                       f"{n_trials} training trials"),
            )  # fmt: skip
            for metric in metrics_of(len(self.gallery_names)):
                curve = score_curve(metric, [scores[metric]], columns, self.drawing)
                rows.append(
                    {
                        "subject": name, "label": self.learner.label, "analysis": analysis,
                        "k": k, "repeats": repeats, "metric": metric,
                        "value": plain(curve.value[0]), "ci_low": plain(curve.low[0]),
                        "ci_high": plain(curve.high[0]), "chance": plain(curve.chance[0]),
                        "chance_low": plain(curve.chance_low[0]),
                        "chance_high": plain(curve.chance_high[0]), "p": plain(curve.p[0]),
                        "n": len(columns), "protocol": text,
                    }
                )  # fmt: skip
        return rows

    def _pair_scores(
        self, name: str, model: Any, columns: Sequence[int]
    ) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Score every pair of a shown image and a gallery image, (n_images, n_gallery).

        Single trials are scored one by one and then averaged over the repeats of an image, so that
        images, which alone are independent, are what intervals and permutations draw.
        """
        own = self.subjects[name]
        place = {self.gallery_names[column]: row for row, column in enumerate(columns)}
        image = np.array([place[str(one)] for one in own.test_stimuli])
        counts = np.bincount(image, minlength=len(columns))
        sums = np.zeros((len(columns), *own.test.shape[1:]))
        single = {
            metric: np.zeros((len(columns), len(self.gallery_names)), np.float32)
            for metric in metrics_of(len(self.gallery_names))
        }
        for start in range(0, len(image), N_TRIALS_BATCH):
            part = np.arange(start, min(start + N_TRIALS_BATCH, len(image)))
            responses = own.test[part]
            np.add.at(sums, image[part], responses)
            for metric, values in self._compare(model, responses, name).items():
                np.add.at(single[metric], image[part], values)
        share = counts[:, None].astype(np.float32)
        average = (sums / counts.reshape(-1, *[1] * (sums.ndim - 1))).astype(np.float32)
        return {
            "single": {metric: values / share for metric, values in single.items()},
            "averaged": self._compare(model, average, name),
        }

    def _compare(
        self, model: Any, responses: NDArray[np.floating], name: str
    ) -> dict[str, NDArray[np.float32]]:
        similarities = self.learner.similarities(model, responses, name)
        return pair_scores(np.round(similarities, 10))
