"""The index finds what was written, for any mixture of sessions, tasks and missing runs."""

from __future__ import annotations

import string
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.bids.entities import natural_key, parse_name, run_key, run_prefix
from afterimage.bids.events import drop_late, read_events
from afterimage.bids.files import BidsFile, applicable
from afterimage.bids.index import index_dataset, read_units, write_units

labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=6)


@dataclass(frozen=True)
class Run:
    """One run of a made-up dataset."""

    subject: str
    session: str | None
    task: str
    number: int | None
    events: str  # where the events lie: beside, subject, root, nowhere
    preprocessed: bool

    @property
    def folder(self) -> str:
        session = f"ses-{self.session}/" if self.session else ""
        return f"sub-{self.subject}/{session}func"

    @property
    def stem(self) -> str:
        session = f"_ses-{self.session}" if self.session else ""
        number = f"_run-{self.number}" if self.number is not None else ""
        return f"sub-{self.subject}{session}_task-{self.task}{number}"


@st.composite
def datasets(draw: st.DrawFn) -> list[Run]:
    """Draw a dataset: subjects with or without sessions, several tasks, runs missing at random."""
    unique = {"unique_by": str.lower, "min_size": 1}
    subjects = draw(st.lists(labels, max_size=3, **unique))
    sessions = draw(st.lists(labels, max_size=3, **unique))
    tasks = draw(st.lists(st.sampled_from(["view", "floc", "words2"]), max_size=3, **unique))
    numbered = {task: draw(st.booleans()) for task in tasks}
    runs = []
    for subject in subjects:
        preprocessed = draw(st.booleans())
        for session in sessions if draw(st.booleans()) else [None]:
            for task in tasks:
                for number in range(1, 13, 4) if numbered[task] else [None]:
                    if draw(st.integers(0, 3)) == 0:
                        continue
                    where = draw(st.sampled_from(["beside", "beside", "subject", "nowhere"]))
                    runs.append(Run(subject, session, task, number, where, preprocessed))
    return runs


def write(root: Path, runs: list[Run]) -> None:
    root.mkdir()
    fmriprep = root / "derivatives" / "fmriprep"
    fmriprep.mkdir(parents=True)
    made_by = '{"Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}]}'
    (fmriprep / "dataset_description.json").write_text(made_by)
    (root / "sub-0empty").mkdir()
    for task in {run.task for run in runs}:  # says what columns mean, not that there are events
        (root / f"task-{task}_events.json").write_text("{}")
    for run in runs:
        places = {"beside": run.folder, "subject": f"sub-{run.subject}"}
        (root / run.folder).mkdir(parents=True, exist_ok=True)
        (root / run.folder / f"{run.stem}_bold.nii.gz").touch()
        (root / run.folder / f"{run.stem}_sbref.nii.gz").touch()
        if run.events in places:
            path = root / places[run.events] / f"{run.stem}_events.tsv"
            path.write_text("onset\tduration\tstim_file\n")
        if run.preprocessed:
            (fmriprep / run.folder).mkdir(parents=True, exist_ok=True)
            start = fmriprep / run.folder / run.stem
            for rest in ("desc-preproc_bold", "desc-brain_mask", "boldref"):
                Path(f"{start}_space-T1w_{rest}.nii.gz").touch()
            Path(f"{start}_desc-confounds_timeseries.tsv").touch()


@settings(max_examples=60, deadline=None)
@given(datasets())
def test_every_run_has_its_row_and_no_other(runs: list[Run]) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "study"
        write(root, runs)
        if not runs:
            return
        rows = [row for row in index_dataset(root) if row["subject"] != "0empty"]
        write_units(Path(name) / "units.tsv", rows)
        assert read_units(Path(name) / "units.tsv") == rows
        found = {run_prefix(row["bold"]): row for row in rows}
        assert len(found) == len(rows)
        assert found.keys() == {run.stem for run in runs}
        told = {run.task for run in runs if run.events != "nowhere"}
        for run in runs:
            row = found[run.stem]
            assert (row["session"], row["run"]) == (
                run.session or "n/a", "n/a" if run.number is None else str(run.number)
            )  # fmt: skip
            assert row["source"] == ("fmriprep" if run.preprocessed else "raw")
            assert (root / row["bold"]).is_file()
            assert ("space-T1w" in row["mask"]) == run.preprocessed
            if run.events == "nowhere":
                # A rest has no events; a task that has them elsewhere has lost a file.
                assert row["problem"].startswith("InputError: a run has no events") == (
                    run.task in told
                )
                assert row["problem"] == "n/a" or run.task in told
                assert row["events"] == "n/a"
                assert row["stimuli"] == "no"
            else:
                assert row["problem"] == "n/a"
                assert row["events"].endswith(f"{run.stem}_events.tsv")
                assert (root / row["events"]).is_file()
                assert row["stimuli"] == "yes"
        order = [
            [natural_key(row[k]) for k in ("subject", "session", "task", "run")] for row in rows
        ]
        assert order == sorted(order)


@settings(max_examples=25, deadline=None)
@given(datasets(), st.data())
def test_choosing_is_the_same_as_filtering(runs: list[Run], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "study"
        write(root, runs)
        if not runs:
            return
        task = data.draw(st.sampled_from(sorted({run.task for run in runs})))
        everything = index_dataset(root)
        chosen = [row for row in index_dataset(root, tasks=[task]) if row["task"] != "n/a"]
        assert chosen == [row for row in everything if row["task"] == task]
        sessions = sorted({run.session for run in runs if run.session})
        if sessions:
            chosen = [
                row for row in index_dataset(root, sessions=sessions) if row["task"] != "n/a"
            ]
            assert chosen == [row for row in everything if row["session"] != "n/a"]


entities = st.dictionaries(
    st.sampled_from(["ses", "task", "acq", "ce", "rec", "dir", "run", "echo", "part"]),
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=5),
)


@given(labels, entities, st.sampled_from(["bold", "events"]), st.sampled_from([".nii", ".tsv"]))
def test_names_come_back(subject: str, pairs: dict[str, str], suffix: str, extension: str) -> None:
    pairs = {"sub": subject, **pairs}
    stem = "_".join(f"{key}-{value}" for key, value in pairs.items())
    name = parse_name(f"{stem}_{suffix}{extension}")
    assert name is not None
    assert name.entities == pairs
    assert (name.suffix, name.extension) == (suffix, extension)
    derived = parse_name(f"{stem}_space-T1w_desc-preproc_{suffix}{extension}")
    assert derived is not None
    assert run_key(derived) == run_key(name)
    assert run_prefix(f"x/{stem}_space-T1w_desc-preproc_bold.nii.gz") == stem


@given(st.text(max_size=40))
def test_any_file_name_can_be_looked_at(text: str) -> None:
    name = parse_name(text)
    if name is not None:
        stem = "_".join([*(f"{k}-{v}" for k, v in name.entities.items()), name.suffix])
        assert stem + name.extension == text


@given(entities, st.lists(st.lists(entities, max_size=4), max_size=4))
def test_inheritance_is_by_subsets_and_levels(
    target: dict[str, str], levels: list[list[dict[str, str]]]
) -> None:
    def named(pairs: dict[str, str], suffix: str = "bold") -> BidsFile:
        text = "_".join([*(f"{key}-{value}" for key, value in pairs.items()), suffix])
        name = parse_name(f"{text}.json")
        assert name is not None
        return BidsFile(text, name)

    own = named(target).name
    found = applicable([[named(pairs) for pairs in level] for level in levels], own, "bold")
    wanted = [pairs for level in levels for pairs in level if named(pairs).name.key <= own.key]
    assert sorted(file.path for file in found) == sorted(named(pairs).path for pairs in wanted)
    assert not applicable([[named(target, "events")]], own, "bold")
    assert applicable([[named(target)], [named({})]], own, "bold")[-1].path == "bold"


onsets = st.lists(
    st.floats(-50, 500).map(lambda value: round(value, 3)), min_size=1, max_size=30, unique=True
).filter(lambda values: max(values) > 1)


@settings(deadline=None)
@given(onsets, st.floats(2, 600))
def test_trials_are_those_within_the_run_in_order(times: list[float], length_s: float) -> None:
    times = [
        time for time in times if min([abs(time - x) for x in times if x != time] or [1]) > 0.01
    ]
    inside = sorted(time for time in times if 0 <= time < length_s)
    if not inside:
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "events.tsv"
        rows = [f"{time!r}\tn/a\tpicture{time!r}" for time in times]
        path.write_text("\n".join(["onset\tduration\tstimulus_id", *rows]))
        events = drop_late(read_events(path, subject="01"), length_s)
    np.testing.assert_array_equal(events.onsets_s, inside)
    assert events.stimulus.tolist() == [f"picture{time!r}" for time in inside]
    assert (len(events.notes) > 1) == (inside != times)
