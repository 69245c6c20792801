"""The section about decoders that go from person to person: words, table, figure, and when it is there."""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.evaluation.decoder_comparison import compare_over_people
from afterimage.evaluation.metrics import protocol
from afterimage.evaluation.subject_protocols import COLUMNS
from afterimage.io.tables import write_tsv
from afterimage.reports import comparison
from afterimage.reports.assemble import assemble_group
from afterimage.reports.figures.group import caption_panels, subject_panels
from afterimage.reports.figures.style import LIGHT
from afterimage.reports.figures.subjects import ladder_panels
from afterimage.reports.model import GroupReport
from afterimage.stages import report_group

example = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "report_example.py")))
VALUES = {
    ("within_subject", None): 0.5, ("cross_subject", None): 0.12, ("few_shot", 16): 0.15,
    ("few_shot", 256): 0.55, ("pooled_subjects", None): 0.6,
}  # fmt: skip


def make_rows(n: int = 4, label: str = "ridge", modality: str = "eeg") -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(n):
        for (analysis, k), value in VALUES.items():
            for repeats, factor in (("single", 0.5), ("averaged", 1.0)):
                for metric, low in (("retrieval_top1", 0.005), ("twoway", 0.5)):
                    found = low + (1 - low) * factor * value + 0.02 * rng.normal()
                    rows.append(
                        dict.fromkeys(COLUMNS)
                        | {
                            "modality": modality, "subject": f"{number + 1:02d}", "label": label,
                            "analysis": analysis, "k": k, "repeats": repeats, "metric": metric,
                            "value": found, "chance": low, "chance_low": low - 0.004,
                            "chance_high": low + 0.01, "p": 0.001 if number else 0.2,
                            "n": 200, "protocol": "as told",
                        }
                    )  # fmt: skip
    return rows


@pytest.fixture
def report() -> Any:
    rows = [*make_rows(), *make_rows(label="contrastive")]
    notes = ["EEG: 4 people on 63 common units", "sub-09 is left out: <other> times"]
    return dataclasses.replace(example.make_group(), compared=rows, compared_notes=notes)


def test_table_has_every_protocol_with_the_mean_and_range_of_people(report: Any) -> None:
    table = comparison.table(report.compared)
    assert len(table.rows) == 2 * 2 * len(VALUES)
    fitted = [row[1].text for row in table.rows[:5]]
    assert fitted == [
        "own data only", "other people only", "other people, adapted to 16 own trials",
        "other people, adapted to 256 own trials", "everybody together",
    ]  # fmt: skip
    within = comparison.scores_of(make_rows(), "within_subject", None, "averaged", "twoway")
    assert within is not None
    found = next(cell for cell, c in zip(table.rows[0], table.columns, strict=True)
                 if c.title.startswith("Two-way"))  # fmt: skip
    assert found.sort == pytest.approx(float(within.value.mean()))
    assert found.note == f"{100 * within.value.min():.1f} to {100 * within.value.max():.1f} %"
    assert table.rows[0][-1].text == "3 of 4"


def test_sentence_says_what_carries_over(report: Any) -> None:
    told = comparison.sentence(report.compared)
    assert told.startswith("EEG, ridge: fitted on other people only, ")
    assert "above it in 3 of 4 people" in told
    assert told.count("own data only") == 1


def test_figure_names_its_numbers_and_is_the_same_twice(report: Any) -> None:
    panels = ladder_panels(report)
    assert [panel.title for panel in panels] == [
        f"EEG, {label}, {repeats} test trials"
        for label in ("ridge", "contrastive")
        for repeats in ("averaged", "single")
    ]
    for part in ("0 own trials", "256 own trials", "own only", "all together"):
        assert part in panels[0].alt
    drawn = panels[0].draw(LIGHT)
    assert drawn == panels[0].draw(LIGHT)
    many = dataclasses.replace(report, compared=make_rows(80))
    assert ladder_panels(many)[0].draw(LIGHT).startswith(b"<?xml")


def test_section_stands_where_something_is_known(report: Any) -> None:
    page = assemble_group(report)
    assert "From one person to another" in page
    assert "sub-09 is left out: &lt;other&gt; times" in page
    assert "Evgeniou" in page
    assert "From one person to another" not in assemble_group(example.make_group())
    alone = dataclasses.replace(example.make_group(), compared_notes=["voxels are their own"])
    assert "Subjects were not compared." in assemble_group(alone)


@pytest.mark.parametrize(
    ("modality", "enabled", "told"),
    [
        ("fmri", True, "are each person&#39;s own"),
        ("eeg", False, "Switched off"),
        ("eeg", True, "--participant-label"),
    ],
)
def test_the_page_says_why_nobody_was_compared(
    tmp_path: Path, modality: str, enabled: bool, told: str
) -> None:
    rows = [{"subject": one, "modality": modality, "stimuli": "yes"} for one in ("01", "02")]
    write_tsv(tmp_path / "code" / "units.tsv", rows, ["subject", "modality", "stimuli"])
    config = report_group.Config(sections={"evaluate_subjects": {"enabled": enabled}})
    assert told in report_group.build(tmp_path, config)


def test_the_stage_reads_what_the_comparison_wrote(tmp_path: Path) -> None:
    units = [{"subject": "01", "modality": "eeg", "stimuli": "yes"}]
    write_tsv(tmp_path / "code" / "units.tsv", units, ["subject", "modality", "stimuli"])
    write_tsv(tmp_path / "group" / "subjects.tsv", make_rows(), COLUMNS)
    found = {"modality": "eeg", "subjects": {"01": {}, "02": {}}, "n_units": 63, "block": "clip",
             "n_gallery": 200, "notes": ["one note"]}  # fmt: skip
    details = {"notes": ["sub-03 is not compared"], "comparisons": [found]}
    (tmp_path / "group" / "subjects.json").write_text(json.dumps(details))
    page = report_group.build(tmp_path, report_group.Config())
    for text in ("sub-03 is not compared", "one note", "2 people on 63 common units"):
        assert text in page
    assert "adapted to 256 own trials" in page


def test_captions_have_panels_and_predictions_alone_have_none() -> None:
    shared = {"decoder": "ridge", "protocol": "afterimage-1; captions"}
    rows = [
        {"subject": s, "label": label, "role": role, "metric": name, "value": value, **shared}
        for s, value in (("01", "0.9"), ("02", "0.8"))
        for label, role, name in (
            ("ridgeGitCaption", "caption", "named_colour"),
            ("ridgeShuffledBrainGitCaption", "caption_audit", "named_colour"),
            ("ridge", "reconstruction", "pixcorr"),
            ("ridge", "prediction", "twoway_clip"),
        )
    ]
    report = GroupReport(subjects=[], metrics=rows)
    (panel,) = caption_panels(report)
    assert panel.title == "Colour named right"
    assert panel.alt.count("85.0 %") == 2
    assert [one.title for one in subject_panels(report)] == ["Pixel correlation"]


def told(n: int = 200, features: str = "clip", family: str = "afterimage-1") -> str:
    """Return the protocol of a row of the table of subjects."""
    return protocol(
        size="decoded features", n=n, direction="brain_to_image", gallery=n, repeats="averaged",
        selection="no selection", extra=(f"features {features}", f"{4 * n} training trials"),
        family=family,
    )  # fmt: skip


def test_people_tested_in_other_ways_are_never_averaged_with_the_rest() -> None:
    rows = make_rows(6)
    kinds = {"05": told(150), "06": told(features="pixels")}
    for row in rows:
        row["protocol"] = kinds.get(row["subject"], told())
        row["n"] = 150 if row["subject"] == "05" else 200
    table = comparison.table(rows)
    assert len(table.rows) == 3 * 2 * len(VALUES)
    people = {row[0].note: row[3].text for row in table.rows}
    assert list(people.values()) == ["4", "1", "1"]
    first, fewer, other = people
    assert "n=200" in first and "features clip" in first and "repeats" not in first
    assert "n=150; brain_to_image; gallery=150" not in fewer and "n=150" in fewer
    assert "features pixels" in other
    # each mean is that of its own people, by hand
    for name, who in zip(people, (("01", "02", "03", "04"), ("05",), ("06",)), strict=True):
        wanted = np.mean([
            row["value"] for row in rows
            if row["subject"] in who and (row["analysis"], row["repeats"], row["metric"])
            == ("within_subject", "averaged", "retrieval_top1")
        ])  # fmt: skip
        line = next(row for row in table.rows if row[0].note == name)
        assert line[4].sort == pytest.approx(wanted)
    assert comparison.sentence(rows).count("fitted on other people only, ") == 3
    panels = ladder_panels(GroupReport(subjects=[], metrics=[], compared=rows))
    assert len(panels) == 3 * 2 and len({panel.title for panel in panels}) == 6


def mixed_group() -> tuple[GroupReport, dict[str, list[str]]]:
    """Make eight people: two modalities, two protocols, one other number of test pictures (04)."""
    kinds = {
        "fmri": ["01", "02", "03", "04"], "fmri, best-of-8": ["05"],
        "eeg": ["06", "07"], "eeg, other protocol": ["08"],
    }  # fmt: skip
    base = {"size": "native size", "n": 60, "repeats": "averaged", "selection": "one sample"}
    changes: dict[str, dict[str, Any]] = {
        "fmri, best-of-8": {"selection": "best-of-8"},
        "eeg, other protocol": {"family": "mindeye2", "size": "resized to 425 x 425"},
    }  # fmt: skip
    group = example.make_group(9)
    of = {subject: kind for kind, names in kinds.items() for subject in names}
    subjects = [
        dataclasses.replace(one, modality=of.get(one.subject, "eeg")[:4].strip(","))
        for one in group.subjects
    ]
    rows = []
    for row in group.metrics:
        text = base | changes.get(of[row["subject"]], {})
        text |= {"n": 40} if row["subject"] == "04" else {}
        rows.append({**row, "n": text["n"], "protocol": protocol(**text)})
    subjects = [one for one in subjects if one.status == "done"]
    return dataclasses.replace(group, subjects=subjects, metrics=rows), kinds


def test_no_stroke_is_a_mean_over_two_modalities_or_protocols() -> None:
    report, kinds = mixed_group()
    values = {
        row["subject"]: float(row["value"]) for row in report.metrics
        if (row["label"], row["metric"]) == ("ridgeLatentDiffusion", "twoway_clip")
    }  # fmt: skip
    panels = [p for p in subject_panels(report) if p.title.startswith("Two-way identification, C")]
    # an axis for each modality and setting; a person chosen another way has a row on that axis
    assert len(panels) == 3
    for panel in panels:
        values_drawn = panel.draw.args[2]
        titles = panel.draw.args[0]
        rows = [v for t, v in zip(titles, values_drawn, strict=True) if t.startswith("Diffusion")]
        for drawn in rows:
            own = [k for k, names in kinds.items()
                   if sorted(values[s] for s in names) == pytest.approx(sorted(drawn))]  # fmt: skip
            assert len(own) == 1, (panel.title, drawn)
    drawn = [panel for panel in panels if "best-of-8" in panel.alt]
    assert len(drawn) == 1 and "fMRI" in drawn[0].title
    assert [panel.title.partition(" (")[2] for panel in panels] == [
        "fMRI)", "EEG, afterimage-1; native size)",
        "EEG, mindeye2; resized to 425 x 425)",
    ]  # fmt: skip
    page = assemble_group(report)
    for names in kinds.values():
        mean = 100 * np.mean([values[name] for name in names])
        assert f"{mean:.1f} %" in page
    for wrong in (["01", "02", "03", "04", "05"], ["06", "07", "08"]):
        one = f"{100 * np.mean([values[name] for name in wrong]):.1f} %"
        assert not any(one in panel.alt for panel in panels)


def test_decoders_are_compared_over_people_tested_alike() -> None:
    rows = [
        {
            "subject": subject, "role": "prediction", "metric": "retrieval_top1", "method": "",
            "decoder": decoder, "value": value, "modality": "eeg",
            "protocol": told(150 if subject == "03" else 200),
        }
        for subject in ("01", "02", "03")
        for decoder, value in (("ridge", 0.8), ("contrastive", 0.9 if subject == "03" else 0.7))
    ]  # fmt: skip
    (row,) = compare_over_people(rows)
    assert row["n"] == 2 and "n=200" in row["protocol"]
    assert row["difference"] == pytest.approx(0.1)
