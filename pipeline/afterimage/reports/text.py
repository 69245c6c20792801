"""Methods text with citations, assembled from what ran, to be pasted into a paper."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from afterimage.reports.labels import method_of
from afterimage.reports.model import GroupReport, SubjectReport
from afterimage.reports.provenance import StageRun
from afterimage.reports.recordings import ConditionScore, Recordings
from afterimage.reports.scans import ScanQuality

_CITATION = re.compile(r"\[([^\]]*@[^\]]*)\]")


@dataclass(frozen=True)
class Reference:
    """One entry of ``spec/references.yml``."""

    key: str
    authors: tuple[str, ...]
    title: str
    venue: str
    year: int
    doi: str
    type: str
    url: str = ""

    @property
    def short(self) -> str:
        """Author and year: ``Mölder et al., 2021``."""
        names = [author.partition(",")[0] for author in self.authors]
        who = names[0] if len(names) == 1 else " & ".join(names)
        return f"{who if len(names) < 3 else names[0] + ' et al.'}, {self.year}"

    @property
    def full(self) -> str:
        """The whole reference without its DOI."""
        shown = self.authors if len(self.authors) <= 6 else (*self.authors[:5], "et al.")
        title = self.title.rstrip(".")
        return f"{'; '.join(shown)} ({self.year}). {title}. {self.venue}."

    @property
    def bibtex(self) -> str:
        """The entry as BibTeX."""
        venue = {"article": "journal", "inproceedings": "booktitle", "book": "publisher"}
        fields = {
            "author": " and ".join(self.authors),
            "title": f"{{{self.title}}}",
            venue.get(self.type, "howpublished"): self.venue,
            "year": str(self.year),
            **({"doi": self.doi} if self.doi else {"url": self.url}),
        }
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.type}{{{self.key},\n{body}\n}}"


@dataclass(frozen=True)
class Piece:
    """A stretch of the methods text; with `key` it is a citation that links to its reference."""

    text: str
    key: str = ""


@dataclass(frozen=True)
class MethodsText:
    """Paragraphs (each a run of pieces), the references they cite, and the BibTeX block."""

    paragraphs: tuple[tuple[Piece, ...], ...]
    references: tuple[Reference, ...]
    bibtex: str


@cache
def read_spec(name: str) -> Any:
    """Read one YAML file of ``reports/spec``."""
    import yaml

    text = (resources.files("afterimage.reports") / "spec" / name).read_text(encoding="utf-8")
    return yaml.safe_load(text)


@cache
def references() -> Mapping[str, Reference]:
    """All references by key."""
    return {
        key: Reference(
            key=key,
            authors=tuple(entry["authors"]),
            title=entry["title"],
            venue=entry["venue"],
            year=entry["year"],
            doi=entry.get("doi", ""),
            type=entry.get("type", "article"),
            url=entry.get("url", ""),
        )
        for key, entry in read_spec("references.yml").items()
    }


def subject_tags(report: SubjectReport) -> set[str]:
    """Collect what this report used, as tags that ``spec/methods.yml`` conditions on."""
    tags = {f"decoder:{fit.decoder}" for fit in report.fits}
    tags |= {f"block:{fit.block}" for fit in report.fits}
    tags |= _row_tags(report.metrics)
    labels = list(report.gallery.columns) if report.gallery else []
    tags |= {f"method:{method_of(label)}" for label in labels}
    if report.responses is not None:
        tags.add("responses")
        if report.responses.n_dropped_units:
            tags.add("dropped")
    if any(tag.startswith("decoder:") for tag in tags):
        tags.add("decoded")
    if report.audit is not None:
        tags.add("audit")
        if report.audit.split.get("held_out", "stimuli") != "stimuli":
            tags.add("held_out")
    if report.comparison:
        tags.add("decoders_compared")
    tags |= {f"protocol:{name}" for name in report.published.networks}
    tags |= _scan_tags(report.scans)
    tags |= _recording_tags(report)
    tags |= _connectivity_tags(report)
    if report.without_pictures:
        tags.add("without_pictures")
    if subject_facts(report).get("n_test_trials") == 0:
        tags.add("without_test")
    if not report.metrics and report.gallery is not None and report.gallery.seen is None:
        tags.add("unscored")
    return tags


def _scan_tags(scans: ScanQuality | None) -> set[str]:
    if scans is None or not scans.runs:
        return set()
    tags = {"scans", f"source:{scans.source}"}
    notes = " ".join(note for run in scans.runs for note in run.notes).lower()
    if any(run.n_censored for run in scans.runs):
        tags.add("censored")
    if not any(words in notes for words in ("slices are not known", "slice timing was not")):
        tags.add("slice_timing")
    if (quality := scans.responses) is not None:
        tags.add(f"estimator:{quality.estimator}")
        tags |= {f"map:{name}" for name in quality.maps}
    return tags


def _connectivity_tags(report: SubjectReport | GroupReport) -> set[str]:
    if not report.connectivity:
        return set()
    tags = {f"measure:{measure}" for part in report.connectivity for measure in part.matrices}
    tags |= {"graphs"} if any(part.graphs for part in report.connectivity) else set()
    tags |= {"voxel_graphs"} if any(part.voxels for part in report.connectivity) else set()
    if isinstance(report, SubjectReport):
        extracted = report.scans is not None and any(part.parcels for part in report.connectivity)
        kinds = {"extracted" if extracted else "prepared" if part.parcels else "sensors"
                 for part in report.connectivity}  # fmt: skip
        tags |= {f"series:{kind}" for kind in kinds}
        tags |= {"connectivity_only"} if report.responses is None else set()
        for part in report.dynamic:
            tags |= {"dynamic"} | ({"window_states"} if len(part.window_state) else set())
            tags |= {"hidden_states"} if len(part.hidden_state) else set()
            tags |= {"couplings"} if part.weights else set()
    return tags | {"connectivity"}


def _recording_tags(report: SubjectReport) -> set[str]:
    tags = set()
    if (recordings := report.recordings) is not None and recordings.runs:
        runs = recordings.runs
        notes = " ".join(note for run in runs for note in run.notes).lower()
        tags |= {"recordings", f"modality:{recordings.modality}"}
        tags |= {"ica"} if any(run.components for run in runs) else set()
        tags |= (
            {"iclabel"}
            if any(np.isfinite(c.probability) for r in runs for c in r.components)
            else set()
        )
        tags |= {"bad_channels"} if recordings.bad_counts else set()
        tags |= (
            {"interpolated"} if any("interpolated" in r.repaired.values() for r in runs) else set()
        )
        tags |= {"bad_segments"} if any(len(run.bad_segments) for run in runs) else set()
        tags |= {"average_reference"} if any("average" in run.reference for run in runs) else set()
        tags |= (
            {"sss"}
            if any(word in notes for word in ("signal space separation", "maxwell"))
            else set()
        )
        if (responses := recordings.responses) is not None:
            tags.add("epochs")
            tags |= {"whitened"} if responses.eigenvalues else set()
    if (timing := report.timing) is not None:
        tags |= {f"time:{curve.kind}" for curve in timing.curves} | {"timing"}
        tags |= {"time:generalisation"} if timing.matrices else set()
    tags |= _condition_tags(report.conditions)
    return tags | ({"alarm"} if report.timing and report.timing.alarms else set())


def _condition_tags(scores: Sequence[ConditionScore]) -> set[str]:
    tags = {f"classifier:{score.method.replace('_', '').lower()}" for score in scores}
    tags |= {"conditions"} if scores else set()
    return tags | ({"alarm"} if any(score.before_stimulus for score in scores) else set())


def _row_tags(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    tags = set()
    if any("transductive" in str(row.get("protocol")) for row in rows):
        tags.add("transductive")
    for row in rows:
        tags |= {f"role:{row.get('role')}", f"metric:{str(row.get('metric')).partition('_')[0]}"}
        if row.get("role") == "reconstruction":
            tags |= {f"method:{row.get('method')}", f"decoder:{row.get('decoder')}"}
    if rows:
        tags.add("scored")
    return tags


def subject_facts(report: SubjectReport) -> dict[str, Any]:
    """Collect the numbers of the methods text: those counted here, then those the stage gives."""
    facts: dict[str, Any] = {"version": report.versions.get("afterimage", "")}
    if (data := report.responses) is not None:
        facts |= {"n_trials": data.responses.shape[0], "n_units": data.responses.shape[1]}
        facts |= {"unit_kind": data.unit_kind, "n_dropped": data.n_dropped_units}
        if data.split is not None:
            split = np.asarray([str(name) for name in data.split])
            stimulus = np.asarray([str(name) for name in data.stimulus])
            for name in ("train", "test"):
                facts[f"n_{name}_trials"] = int((split == name).sum())
                facts[f"n_{name}_stimuli"] = len(np.unique(stimulus[split == name]))
    if report.audit is not None and report.audit.split:
        facts |= {"groups_" + key: value for key, value in report.audit.split.items()}
    if report.scans is not None and report.scans.runs:
        runs = report.scans.runs
        facts |= {"n_runs": len(runs), "n_volumes": sum(run.n_volumes for run in runs)}
        facts["n_censored"] = sum(run.n_censored for run in runs)
    if report.recordings is not None and report.recordings.runs:
        facts |= _recording_facts(report.recordings)
    if report.connectivity:
        facts["n_regions"] = " and ".join(str(len(part.names)) for part in report.connectivity)
        facts["n_recordings"] = len(report.connectivity[0].runs)
    if report.dynamic:
        first = report.dynamic[0]
        overlap = 100 * (1 - first.step / first.width)
        facts |= {"window_samples": first.width, "window_overlap": f"{overlap:.0f}"}
        facts["n_surrogates"] = len(first.null_variance)
    return facts | dict(report.facts)


def _recording_facts(recordings: Recordings) -> dict[str, Any]:
    """Count what the methods text says of recordings; the filters are those of the first run."""
    runs, first = recordings.runs, recordings.runs[0]
    facts: dict[str, Any] = {
        "n_runs": len(runs),
        "modality": recordings.modality.upper(),
        "n_bad_channels": f"{np.mean([len(run.bad_channels) for run in runs]):.1f}",
        "bad_percent": f"{100 * np.mean([run.bad_share for run in runs]):.1f}",
        "n_components_removed": f"{np.mean([run.n_removed for run in runs]):.1f}",
    }
    if recordings.sensors is not None:
        facts["n_channels"] = len(recordings.sensors.names)
    for key, value in (
        ("sampling_rate_hz", first.sampling_rate_hz), ("band_low_hz", first.highpass_hz),
        ("band_high_hz", first.lowpass_hz), ("line_freq_hz", first.line_freq_hz),
    ):  # fmt: skip
        if np.isfinite(value):
            facts[key] = f"{value:g}"
    if (responses := recordings.responses) is not None and len(responses.times_s):
        start, end = 1000 * responses.times_s[[0, -1]]
        facts |= {"epoch_start_ms": f"{start:.0f}".replace("-", "−"), "epoch_end_ms": f"{end:.0f}"}
    return facts


def methods_text(
    tags: Iterable[str], facts: Mapping[str, Any], stages: Sequence[StageRun]
) -> MethodsText:
    """Write the methods text.

    Parameters
    ----------
    tags : iterable of str
        What was used (`subject_tags`).
    facts : mapping
        Values of the ``{placeholders}``; a sentence that lacks one is left out.
    stages : sequence of StageRun
        References its stages cite and no sentence does are named in a last sentence.

    Returns
    -------
    text : MethodsText
        Sentences come from ``spec/methods.yml``; its ``[@key; @key]`` become author and year.
    """
    have, known = set(tags), references()
    cited: list[str] = []
    paragraphs = []
    for paragraph in read_spec("methods.yml"):
        pieces: list[Piece] = []
        for sentence in paragraph["sentences"]:
            if not set(sentence.get("when", ())) <= have or set(sentence.get("unless", ())) & have:
                continue
            written = _fill(sentence["text"], facts)
            if written is not None:
                pieces += [*_pieces(written, known, cited), Piece(" ")]
        if pieces:
            paragraphs.append((Piece(f"{paragraph['title']}. ", "*"), *pieces[:-1]))
    more = dict.fromkeys(key for run in stages for key in run.cites if key not in cited)
    more_known = [key for key in more if key in known]
    if more_known:
        text = f"Further methods follow [{'; '.join('@' + key for key in more_known)}]."
        paragraphs.append(tuple(_pieces(text, known, cited)))
    entries = tuple(sorted((known[key] for key in dict.fromkeys(cited)), key=lambda r: r.short))
    return MethodsText(tuple(paragraphs), entries, "\n\n".join(r.bibtex for r in entries))


def group_methods(report: GroupReport) -> MethodsText:
    """Write the methods text of the group report from the rows of all its subjects."""
    tags = _row_tags(report.metrics) | {"group"} | _condition_tags(report.conditions)
    if report.subjects and all(subject.status == "responses only" for subject in report.subjects):
        tags.add("without_pictures")
    if report.compared:
        tags |= {"compared", *(f"compared:{row.get('label')}" for row in report.compared)}
    tags |= _connectivity_tags(report)
    if any(part.scores for part in report.connectivity):
        tags.add("identified")
    if report.phenotypes:
        tags.add("phenotypes")
    if any(str(row.get("features")).startswith("voxels_") for row in report.phenotypes):
        tags.add("phenotypes_voxels")
    tags |= {"factored"} if report.factored else set()
    if report.generated:
        tags.add("generated")
    if any(s.status == "connectivity only" for s in report.subjects):
        others = {s.status for s in report.subjects} - {"connectivity only", "failed"}
        tags |= set() if others else {"connectivity_only"}
    n_done = sum(subject.status == "done" for subject in report.subjects)
    facts = {
        "version": report.versions.get("afterimage", ""),
        "n_subjects": len(report.subjects),
        "n_done": n_done,
    }
    return methods_text(tags, facts | dict(report.facts), report.stages)


def _fill(text: str, facts: Mapping[str, Any]) -> str | None:
    fields = [name for _, name, _, _ in string.Formatter().parse(text) if name]
    if any(facts.get(name) in (None, "") for name in fields):
        return None
    return text.format(**{name: facts[name] for name in fields}).strip()


def _pieces(text: str, known: Mapping[str, Reference], cited: list[str]) -> list[Piece]:
    pieces, end = [], 0
    for match in _CITATION.finditer(text):
        pieces.append(Piece(text[end : match.start()] + "("))
        keys = [key.strip().removeprefix("@") for key in match.group(1).split(";")]
        for position, key in enumerate(keys):
            if position:
                pieces.append(Piece("; "))
            pieces.append(Piece(known[key].short, key))
        cited += keys
        pieces.append(Piece(")"))
        end = match.end()
    return [*pieces, Piece(text[end:])]
