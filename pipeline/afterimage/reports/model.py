"""What a stage fills in for a report.

A stage reads files and fills a `SubjectReport` or `GroupReport`; `assemble` turns it into HTML.
Every field without a default is needed; every other one may be left out, and the page says so.
What is said of scans is in `scans`, of EEG and MEG in `recordings`, of the run itself in
`provenance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from afterimage.evaluation.published import Match
from afterimage.reports.connectivity import Connectivity
from afterimage.reports.dynamic import Dynamic
from afterimage.reports.factors import Factored
from afterimage.reports.pretraining import PretrainedModel
from afterimage.reports.provenance import ConfigChange, Exclusion, StageError, StageRun
from afterimage.reports.recordings import ConditionScore, Recordings, TimeResolved
from afterimage.reports.scans import ScanQuality
from afterimage.reports.tokenizers import TokenizerCard, TokenModel

Row = Mapping[str, Any]
"""One row of ``metrics.tsv`` with its columns as keys: subject label decoder method role metric
value ci_low ci_high chance chance_low chance_high ceiling p n protocol. Numbers may be numbers,
numeric strings, NaN, None, "" or "n/a" (the last four mean: not known)."""


@dataclass(frozen=True, eq=False)
class Responses:
    """Single-trial responses, for the section of that name.

    Parameters
    ----------
    responses : array of shape (n_trials, n_units) or (n_trials, n_units, n_times), float32
        The units and trials used (after exclusions).
    stimulus : sequence of str, shape (n_trials,)
        Stimulus id of each trial; equal ids are repeats.
    split : sequence of str, shape (n_trials,), optional
        ``"train"``, ``"val"`` or ``"test"``.
    roi : sequence of str, shape (n_units,), optional
        Region of each unit; an empty string where it has none.
    ceiling : array of shape (n_units,), optional
        Noise ceiling of each unit, 0 to 1; NaN where not known.
    unit_kind : str
        What a unit is, in the singular: ``"voxel"``, ``"neuron"``, ``"EEG channel"``.
    n_dropped_units : int
        Units dropped before decoding; the reasons belong in `SubjectReport.exclusions`.
    times_s : array of shape (n_times,), optional
        Seconds from onset, where the responses have a time axis.
    n_shown : sequence of int, shape (n_stimuli,), optional
        How often each stimulus was shown, where the trials here are a choice of more.
    """

    responses: np.ndarray
    stimulus: Sequence[str]
    split: Sequence[str] | None = None
    roi: Sequence[str] | None = None
    ceiling: np.ndarray | None = None
    unit_kind: str = "unit"
    n_dropped_units: int = 0
    times_s: np.ndarray | None = None
    n_shown: Sequence[int] | None = None


@dataclass(frozen=True, eq=False)
class BlockFit:
    """How well one decoder predicted one feature block inside the training data.

    Parameters
    ----------
    decoder, block : str
        Names, for example ``"ridge"`` and ``"clip"``.
    r : array of shape (n_targets,), optional
        Cross-validated Pearson r of each target, training trials only.
    alpha : array of shape (n_targets,) or (1,), optional
        Penalty chosen for each target, or for all of them.
    alpha_grid : array of shape (n_alphas,), optional
        Penalties that were tried; lets the page say how many choices fell on the edge of the grid.
    """

    decoder: str
    block: str
    r: np.ndarray | None = None
    alpha: np.ndarray | None = None
    alpha_grid: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures of one split, one column a label; the page shows a fixed choice of rows.

    Parameters
    ----------
    stimulus : sequence of str, shape (n_images,)
        Stimulus ids, the row order of every column.
    columns : mapping of label to images
        Each an array of shape (n_images, height, width, 3), uint8, or a sequence of n_images such
        arrays of different sizes. Shown in the order given. Labels as in ``metrics.tsv``
        (``ridgeLinearPixels``, ``ridgeLowLevel``, ``ridgeRetrieval``, ``ridgeLatentDiffusion``,
        ``ceilingLatentDiffusion``).
    seen : images, optional
        What was shown; left out in an unscored run, and the page then says so.
    score : array of shape (n_images,), optional
        Per-image score that defines the 5th, 50th and 95th percentile rows.
    score_metric, score_label : str
        Which metric of which label `score` is; written beside the rows.
    n_random, random_state : int
        How many rows are drawn at random beside the percentile rows, and the seed.
    captions : mapping of title to sequence of str, shape (n_images,)
        What is written under the pictures of a stimulus.
    """

    stimulus: Sequence[str]
    columns: Mapping[str, np.ndarray | Sequence[np.ndarray]]
    seen: np.ndarray | Sequence[np.ndarray] | None = None
    score: np.ndarray | None = None
    score_metric: str = ""
    score_label: str = ""
    n_random: int = 8
    captions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    random_state: int = 0


@dataclass(frozen=True, eq=False)
class NearDuplicate:
    """A test picture that is nearly a training picture.

    Parameters
    ----------
    test_stimulus, train_stimulus : str
        Stimulus ids.
    similarity : float
        Similarity in the space `Audit.near_duplicate_rule` names (there: ``correlation``).
    transform : str
        How the training picture was turned to match: ``"mirrored"``, or empty.
    test_image, train_image : array of shape (height, width, 3), uint8, optional
        Both pictures.
    """

    test_stimulus: str
    train_stimulus: str
    similarity: float
    test_image: np.ndarray | None = None
    train_image: np.ndarray | None = None
    transform: str = ""


@dataclass(frozen=True, eq=False)
class Audit:
    """What ``evaluation/sub-XX_audit.json`` holds, and pictures.

    Parameters
    ----------
    leak_linter : sequence of mappings
        ``{"check": str, "ok": bool, "detail": str}``.
    near_duplicates : sequence of NearDuplicate
        All pairs found; the page shows the 12 most similar and counts the rest.
    near_duplicate_rule : str
        How a pair is found, for example ``"pixel correlation of 32 x 32 grey images > 0.95"``.
    cluster_oracle : mapping, optional
        ``{"k": int, "expected_twoway": float, ...}``; other keys are listed as they are.
    gallery : Gallery, optional
        Shuffled-brain, mean-brain and noise-only pictures beside the real ones.
    split : mapping
        How test pictures were chosen: ``held_out``, ``n_groups``, ``n_test_groups``.
    without_duplicates : mapping
        label -> metric -> value over the test pictures that are no near duplicates.
    """

    leak_linter: Sequence[Mapping[str, Any]] = ()
    near_duplicates: Sequence[NearDuplicate] = ()
    near_duplicate_rule: str = ""
    cluster_oracle: Mapping[str, Any] | None = None
    gallery: Gallery | None = None
    split: Mapping[str, Any] = field(default_factory=dict)
    without_duplicates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Published:
    """Scores of published protocols, and scores from papers.

    Parameters
    ----------
    rows : sequence of Row
        Rows of ``metrics.tsv`` of other protocols than our own.
    networks : mapping
        ``protocols`` of the audit file: by protocol which network was used for each metric.
    matches : sequence of afterimage.evaluation.published.Match
        Scores from papers with ours, or why not.
    dataset : str
        Name of the dataset that was imported, or empty.
    """

    rows: Sequence[Row] = ()
    networks: Mapping[str, Any] = field(default_factory=dict)
    matches: Sequence[Match] = ()
    dataset: str = ""


@dataclass(frozen=True, eq=False)
class SubjectReport:
    """Everything `assemble_subject` needs.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    dataset : str
        Name of the dataset.
    created : str
        When the report was made, as text (the stage gives it, so equal inputs give equal bytes).
    run_id : str
        Name of the folder under ``logs/``.
    versions : mapping of str to str
        Package and version; the key ``"afterimage"`` is named in the methods text.
    command : str
        The command the user typed.
    config_changes : sequence of ConfigChange
        Empty means: all defaults.
    config_hash : str
        Hash of the effective configuration.
    runtime_s : float, optional
        Wall time; default the sum over `stages`.
    exclusions : sequence of Exclusion
        Units, trials and files left out, and why.
    scans : ScanQuality, optional
        Quality of the scans that the responses come from; None for prepared responses.
    recordings : Recordings, optional
        Quality of the EEG or MEG recordings that the responses come from.
    timing : TimeResolved, optional
        Decoding over time and over repetitions.
    learning : sequence of Row
        Scores over the amount of training data.
    ablation : sequence of Row
        Scores without single networks of the cortex, and with them alone.
    conditions : sequence of ConditionScore
        Decoding of conditions rather than pictures.
    condition_notes : sequence of str
        What could not be told apart, and why.
    responses : Responses, optional
    connectivity : sequence of Connectivity
        One a set of regions or sensors.
    dynamic : sequence of Dynamic
        Connectivity over time, where it was asked for; one a set of regions.
    fits : sequence of BlockFit
        One a decoder and feature block.
    gallery : Gallery, optional
        Test pictures.
    regions : mapping of str to sequence of array
        Pictures of what single regions of units stand for, where they were asked for.
    metrics : sequence of Row
        All rows of ``metrics.tsv``; empty in an unscored run.
    unscored : str
        Empty, or why there are no scores, for example ``"the test images are absent"``.
    without_pictures : bool
        The dataset has no pictures, only names of stimuli or categories: nothing could be
        reconstructed, and the page has no section about it.
    published : Published
        What is said of published protocols and scores.
    comparison : sequence of Row
        As in ``evaluation/sub-XX_comparison.tsv``: decoders against each other.
    audit_href : str
        Relative link to the page of the audit; empty where there is none.
    headline_label, headline_metric : str
        Row the verdict speaks of; default: the last method of the pipeline that ran, in the first
        of twoway_clip, any twoway, pixcorr. Never chosen by its score.
    audit : Audit, optional
    stages : sequence of StageRun
        In the order they run.
    errors : sequence of StageError
    facts : mapping
        Numbers for the methods text: n_folds n_bootstrap n_permutations n_seeds guidance_scale
        strength n_steps ... (``spec/methods.yml`` lists them); a sentence without its facts is
        left out.
    group_href : str
        Relative link to the group report.
    """

    subject: str
    dataset: str = ""
    created: str = ""
    run_id: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    config_changes: Sequence[ConfigChange] = ()
    config_hash: str = ""
    runtime_s: float | None = None
    exclusions: Sequence[Exclusion] = ()
    scans: ScanQuality | None = None
    recordings: Recordings | None = None
    timing: TimeResolved | None = None
    learning: Sequence[Row] = ()
    ablation: Sequence[Row] = ()
    conditions: Sequence[ConditionScore] = ()
    condition_notes: Sequence[str] = ()
    responses: Responses | None = None
    connectivity: Sequence[Connectivity] = ()
    dynamic: Sequence[Dynamic] = ()
    fits: Sequence[BlockFit] = ()
    gallery: Gallery | None = None
    regions: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    metrics: Sequence[Row] = ()
    unscored: str = ""
    without_pictures: bool = False
    headline_label: str = ""
    headline_metric: str = ""
    audit: Audit | None = None
    published: Published = field(default_factory=Published)
    comparison: Sequence[Row] = ()
    audit_href: str = ""
    stages: Sequence[StageRun] = ()
    errors: Sequence[StageError] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    group_href: str = "group.html"


@dataclass(frozen=True)
class GroupSubject:
    """One subject of the group report.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    href : str
        Relative link to its report.
    status : str
        ``"done"``, ``"unscored"``, ``"responses only"`` (the dataset has no pictures),
        ``"connectivity only"`` (there are no trials) or ``"failed"``.
    stage, message : str
        Where and why it failed.
    n_units, n_train_trials, n_test_stimuli : int, optional
    runtime_s : float, optional
    modality : str
        As in the index, ``"fmri"`` or ``"eeg"``; empty where not known.
    warnings : sequence of str
        What to look at before its numbers are used.
    left_out : sequence of str
        Messages on input, such as a run, that was left out while the rest went on.
    """

    subject: str
    href: str = ""
    status: str = "done"
    stage: str = ""
    message: str = ""
    n_units: int | None = None
    n_train_trials: int | None = None
    n_test_stimuli: int | None = None
    runtime_s: float | None = None
    modality: str = ""
    warnings: Sequence[str] = ()
    left_out: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class GroupReport:
    """Everything `assemble_group` needs.

    Parameters
    ----------
    subjects : sequence of GroupSubject
        All of them, the failed ones too.
    metrics : sequence of Row
        The rows of all subjects, with ``subject`` filled in; of our own protocol only.
    published : Published
        The rows of other protocols, and scores from papers.
    comparison : sequence of Row
        As in ``group/comparison.tsv``: decoders against each other, over people.
    generated : sequence of Row
        As in ``group/generative.tsv``.
    generated_values : (array, array), optional
        Connections of real and of generated people, a random choice.
    leak_linter : sequence of mappings
        ``{"subject": str, "check": str, "ok": bool, "detail": str}``; subject ``""`` for a check
        made across subjects.
    conditions : sequence of ConditionScore
        Conditions told apart in people left out.
    condition_notes : sequence of str
        What could not be told apart, and why.
    compared : sequence of Row
        The rows of ``group/subjects.tsv``: within, across, few-shot and pooled.
    compared_notes : sequence of str
        Who could not be compared and what was left out; or why nobody was.
    stages : sequence of StageRun
        Only `name`, `version` and `cites` are used.
    dataset, created, run_id, versions, command, config_changes, config_hash
        As in `SubjectReport`.
    pretraining : sequence of PretrainedModel
        Masked models of the series of all people.
    tokenizers : sequence of TokenizerCard
    token_models : sequence of TokenModel
        Tokenizers of the EEG and MEG of all people.
    phenotypes : sequence of Row
        As in ``group/phenotypes.tsv``.
    headline_metric, facts
        As in `SubjectReport`.
    connectivity : sequence of Connectivity
        Averaged over people, with the scores of telling people apart; one a set of regions.
    factored : sequence of Factored
        Factors of connectivity over time and people, where they were asked for.
    """

    subjects: Sequence[GroupSubject]
    metrics: Sequence[Row] = ()
    leak_linter: Sequence[Mapping[str, Any]] = ()
    conditions: Sequence[ConditionScore] = ()
    condition_notes: Sequence[str] = ()
    compared: Sequence[Row] = ()
    compared_notes: Sequence[str] = ()
    stages: Sequence[StageRun] = ()
    dataset: str = ""
    created: str = ""
    run_id: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    config_changes: Sequence[ConfigChange] = ()
    config_hash: str = ""
    pretraining: Sequence[PretrainedModel] = ()
    tokenizers: Sequence[TokenizerCard] = ()
    token_models: Sequence[TokenModel] = ()
    phenotypes: Sequence[Row] = ()
    generated: Sequence[Row] = ()
    generated_values: tuple[np.ndarray, np.ndarray] | None = None
    headline_metric: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    connectivity: Sequence[Connectivity] = ()
    factored: Sequence[Factored] = ()
    published: Published = field(default_factory=Published)
    comparison: Sequence[Row] = ()
