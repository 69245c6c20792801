"""Reports of subjects with EEG or MEG: quality, evoked responses, decoding over time, alarms."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from afterimage.io.arrays import write_dataset
from afterimage.io.tables import write_tsv
from afterimage.reports import meeg_tables, text, verdict
from afterimage.reports.assemble import assemble_subject
from afterimage.reports.figures import evoked, meeg, sensors, time_resolved
from afterimage.reports.model import SubjectReport
from afterimage.reports.recordings import ConditionScore, Recordings, Sensors
from afterimage.reports.time_words import alarm_warning, recording_warnings
from afterimage.stages.report_meeg import read_recordings
from afterimage.stages.report_time import read_conditions, read_timing

TESTS = Path(__file__).resolve().parents[1]
example = SimpleNamespace(**runpy.run_path(str(TESTS / "report_example.py")))
made = SimpleNamespace(**runpy.run_path(str(TESTS / "meeg_example.py")))
NO_SCORES: dict[str, Any] = {"gallery": None, "metrics": (), "audit": None, "fits": ()}
HOSTILE = "<script>alert('x')</script>\"'&"


def plain(html: str) -> str:
    """Text of a page without its tags, pictures and script."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)).replace("&#39;", "'")


def alts(html: str) -> list[str]:
    """Alternative texts of all pictures."""
    return re.findall(r'<img[^>]*alt="([^"]*)"', html)


@pytest.fixture(scope="module")
def eeg() -> SubjectReport:
    """Make an EEG subject with pictures and quiet alarms."""
    return example.make_subject(recordings=made.make_recordings(), timing=made.make_timing())


@pytest.fixture(scope="module")
def eeg_html(eeg: SubjectReport) -> str:
    return assemble_subject(eeg)


@pytest.fixture(scope="module")
def ringing() -> SubjectReport:
    """Make a subject without pictures whose alarms ring."""
    return example.make_subject(
        recordings=made.make_recordings("eeg", 2), conditions=made.make_conditions(True),
        timing=made.make_timing(0.3), without_pictures=True, **NO_SCORES,
    )  # fmt: skip


def test_sections_and_figures_of_a_recording(eeg_html: str) -> None:
    sections = re.findall(r'<section[^>]*id="(\w+)"', eeg_html)
    assert sections[:4] == ["summary", "data_quality", "responses", "decoding"]
    found = alts(eeg_html)
    for words in (
        "Map of the EEG sensors; bad in at least one run: F1", "Power spectrum of 64 EEG channels",
        "Share of each run that is bad", "Topographies of the components taken out of run-01",
        "Eigenvalues of the noise covariance", "Evoked response to faces in 64 EEG channels",
        "Maps of the mean evoked response of the EEG", "Noise ceiling of single trials over time",
        "3034 trials used; dropped: 41 in a bad stretch",
        "Two-way identification of decoders trained at one time",
        "over the number of trials averaged", "in sliding and growing windows of time",
    ):  # fmt: skip
        assert any(words in alt for alt in found), words
    told = plain(eeg_html)
    assert "EEG: 4 runs, 40 min 00 s in all: 64 EEG channels (shown in µV)" in told
    assert "1 run was left out." in told and "no event lies within the recording" in told
    assert "peaks at 158 ms (131 to 172 ms)" in told
    assert "alarm rings" not in told
    assert not re.search(r'(?:src|srcset)="(?!data:image/)', eeg_html)
    assert len(eeg_html.encode()) < 10_000_000


def test_other_subjects_have_none_of_it() -> None:
    html = assemble_subject(example.make_subject())
    assert 'id="data_quality"' not in html
    assert not re.search(r'id="figure-(meeg|evoked|time|condition)', html)


def test_every_figure_says_what_good_and_bad_look_like() -> None:
    described = {
        figure["id"]: figure
        for section in text.read_spec("subject.yml")
        for figure in section.get("figures", ())
    }
    ours = [name for name in described if name.startswith(("meeg", "evoked", "time", "condition"))]
    assert len(ours) == 14
    for name in ours:
        if name != "meeg_more_spectra":
            assert described[name]["good"] and described[name]["bad"], name


def test_a_ringing_alarm_is_said_first_and_above_the_decoding(ringing: SubjectReport) -> None:
    assert verdict.judge(ringing).warnings[0].startswith("The pre-stimulus alarm rings")
    assert verdict.judge(ringing).state == "partly"
    html = assemble_subject(ringing)
    assert plain(html).count("The pre-stimulus alarm rings") == 2
    decoding = html[html.index('<section id="decoding"') :]
    assert decoding.index("pre-stimulus alarm rings") < decoding.index("<figure")
    assert any("above chance before the onset" in alt for alt in alts(html))


def test_a_quiet_alarm_warns_of_nothing(ringing: SubjectReport) -> None:
    quiet = replace(ringing, conditions=made.make_conditions(), timing=made.make_timing())
    assert alarm_warning(quiet.timing, quiet.conditions) == ""
    judged = verdict.judge(quiet)
    assert judged.state == "yes" and not judged.warnings
    assert "the conditions can be told apart" in judged.sentence


@pytest.mark.parametrize(
    ("low", "before", "rings"), [(0.51, True, True), (0.5, True, False), (0.7, False, False)]
)
def test_an_alarm_rings_where_the_interval_is_above_chance(
    low: float, before: bool, rings: bool
) -> None:
    score = ConditionScore("a", "lda", "auc", 0.8, low, 0.9, 0.5, before_stimulus=before)
    assert score.rings is rings


def test_alarms_and_leaks_stand_beside_the_scores(ringing: SubjectReport) -> None:
    table = meeg_tables.condition_table(ringing.conditions)
    notes = [row[0].note for row in table.rows]
    assert notes.count("rings") == 1 and notes.count("random trials: a leak") == 1
    panels = time_resolved.condition_panels(ringing)
    assert [panel.title for panel in panels] == [
        "face against house · AUC",
        "group of the person · AUC",
    ]
    assert "random trials, people on both sides 0.940" in panels[1].alt


def test_without_pictures_conditions_are_the_decoding(ringing: SubjectReport) -> None:
    html = assemble_subject(ringing)
    sections = re.findall(r'<section[^>]*id="(\w+)"', html)
    assert "decoding" in sections and "gallery" not in sections and "scores" not in sections
    assert "What can be told from the brain?" in plain(html)


def test_meg_has_maps_of_magnetometers_and_of_pairs() -> None:
    report = example.make_subject(recordings=made.make_recordings("meg", 1), **NO_SCORES)
    titles = [panel.title for panel in evoked.topography_panels(report)]
    assert titles == ["At the peaks · magnetometers", "At the peaks · gradiometers"]
    flat = sensors.flat_sensors(report.recordings.sensors, "grad")  # type: ignore[union-attr]
    assert flat is not None and flat.paired and len(flat.places) == 102
    values = np.arange(306.0)
    np.testing.assert_allclose(flat.gather(values)[0], np.sqrt((1.0**2 + 2.0**2) / 2))


def test_sensors_are_laid_flat_with_right_and_front() -> None:
    around = np.array([[0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0.6, 0.8]])
    flat = sensors.lay_flat(0.09 * around + [0.002, 0.01, 0.04])
    expected = [[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [0, np.arctan2(0.6, 0.8) / (np.pi / 2)]]
    np.testing.assert_allclose(flat, expected, atol=1e-6)


def test_a_map_is_highest_where_the_signal_is() -> None:
    cap = made.make_sensors()
    flat = sensors.flat_sensors(cap, "eeg")
    assert flat is not None
    place = list(cap.names).index("Oz")
    (picture,) = sensors.interpolate(
        flat, flat.gather(made.blob(cap, *cap.positions[place]))[None]
    )
    row, column = np.unravel_index(np.nanargmax(picture), picture.shape)
    axis = np.linspace(-flat.radius, flat.radius, sensors.N_PIXELS)
    assert np.hypot(*(flat.places[place] - [axis[column], axis[row]])) < 0.12
    assert axis[row] < -0.5  # at the back: below


def test_peaks_are_found_after_the_onset() -> None:
    cap = made.make_sensors()
    data = made.make_evoked(cap)
    peaks = evoked.find_peaks(data.times_s, evoked.field_power(data.evoked[0]))
    np.testing.assert_allclose(data.times_s[peaks][:2], [0.105, 0.172], atol=0.012)


def test_spectra_are_in_decibels_of_the_shown_unit() -> None:
    np.testing.assert_allclose(meeg.decibels(np.array([1e-12, 1e-10]), 1e6), [0, 20])
    assert np.isnan(meeg.decibels(np.array([0.0]), 1e6))[0]


def test_unknown_positions_cost_the_maps_only() -> None:
    recordings = made.make_recordings("eeg", 1)
    lost = replace(recordings.sensors, positions=np.full((64, 3), np.nan))
    html = assemble_subject(
        example.make_subject(recordings=replace(recordings, sensors=lost), **NO_SCORES)
    )
    assert "The position of 64 of them is not known" in plain(html)
    assert not any(alt.startswith(("Map", "Topographies")) for alt in alts(html))
    assert any(alt.startswith("Power spectrum") for alt in alts(html))


def test_many_bad_channels_and_segments_are_warned_of() -> None:
    recordings = made.make_recordings("eeg", 2)
    bad = dict.fromkeys(recordings.sensors.names[:20], "flat")
    runs = [
        replace(recordings.runs[0], bad_channels=bad),
        replace(recordings.runs[1], bad_share=0.4),
    ]
    warnings = recording_warnings(example.make_subject(recordings=replace(recordings, runs=runs)))
    assert "More than 15 % of the channels are bad in one run (run-01)." in warnings
    assert "More than 20 % of the recording is bad in one run (run-02)." in warnings


def test_many_runs_stay_small() -> None:
    recordings = made.make_recordings("eeg", 1)
    runs = [replace(recordings.runs[0], name=f"run-{i:02d}") for i in range(1, 61)]
    html = assemble_subject(
        example.make_subject(recordings=replace(recordings, runs=runs), **NO_SCORES)
    )
    assert len(html.encode()) < 10_000_000
    assert all(run.name in plain(html) for run in runs)
    n_spectra = sum(alt.startswith("Power spectrum") for alt in alts(html))
    assert n_spectra == meeg.N_OPEN + meeg.N_MORE
    assert f"{60 - n_spectra} more runs are in the table above" in plain(html)


def test_names_from_data_are_escaped() -> None:
    recordings = made.make_recordings("eeg", 1)
    run = replace(
        recordings.runs[0], name=HOSTILE, bad_channels={HOSTILE: HOSTILE}, notes=[HOSTILE],
        reference=HOSTILE,
    )  # fmt: skip
    report = example.make_subject(
        recordings=replace(recordings, runs=[run]),
        conditions=[ConditionScore(HOSTILE, HOSTILE, HOSTILE, 0.7)], **NO_SCORES,
    )  # fmt: skip
    assert "<script>alert" not in assemble_subject(report)


def test_methods_name_what_was_done(eeg: SubjectReport, ringing: SubjectReport) -> None:
    def prose(report: SubjectReport) -> str:
        written = text.methods_text(text.subject_tags(report), text.subject_facts(report), ())
        return "".join(piece.text for paragraph in written.paragraphs for piece in paragraph)

    told = prose(eeg)
    for words in (
        "4 runs of EEG with 64 channels", "MNE-BIDS (Appelhoff et al., 2019)", "0.1 to 40 Hz",
        "to 250 Hz", "(Ablin et al., 2018)", "(Pion-Tonachini et al., 2019)",
        "−200 to 796 ms", "(Guggenmos et al., 2018; Ledoit & Wolf, 2004)",
        "(King & Dehaene, 2014)", "serves as an alarm for leaks",
    ):  # fmt: skip
        assert words in told, words
    assert "tangent space" not in told
    told = prose(ringing)
    assert "(Barachant et al., 2012)" in told and "(Blankertz et al., 2011)" in told
    assert "common spatial patterns" not in told


def write_quality(path: Path, cap: Sensors, run: Any) -> None:
    """Write a run as the stage that cleans it does."""
    from afterimage.preprocess.meeg.quality import Found, Units, quality_dataset

    places = cap.positions.astype(np.float32)
    units = Units(np.array(cap.names), np.array(cap.kinds), places, np.zeros_like(places))
    found = Found(
        run.psd_before, run.psd_after, run.frequency_hz, np.ones(64), np.ones(64),
        dict(run.bad_channels), dict(run.repaired), {},
        [(start, end, "muscle") for start, end in run.bad_segments],
        {**run.bad_reasons, "any": run.bad_share},
    )  # fmt: skip
    about = {
        "source": "x", "problem": "", "duration_s": 600.0, "sampling_rate_hz": 250.0,
        "highpass_hz": 0.1, "lowpass_hz": 40.0, "line_freq_hz": 0.0, "reference": "average",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dataset(path, quality_dataset(units, found, run.notes, about))


def test_files_of_the_stages_are_read_back(tmp_path: Path) -> None:
    import xarray

    cap = made.make_sensors()
    run, data = made.make_run(1, cap, {"F1": "flat, no signal"}), made.make_evoked(cap)
    write_quality(tmp_path / "ses-1/eeg/sub-01_ses-1_run-01_desc-meeg_quality.nc", cap, run)
    write_dataset(
        tmp_path / "sub-01_desc-responses_quality.nc",
        xarray.Dataset(
            {
                "evoked": (("condition", "unit", "time"), 1e6 * data.evoked),
                "ceiling": (("unit", "time"), data.ceiling),
                "eigenvalues": (("fit", "component"), data.eigenvalues["measured"][None]),
            },
            {
                "condition": ["all", "faces", "houses"], "time": data.times_s,
                "name": ("unit", np.array(cap.names, dtype=object)),
                "kind": ("unit", np.array(cap.kinds, dtype=object)),
                **{axis: ("unit", cap.positions[:, i]) for i, axis in enumerate("xyz")},
            },
            {"evoked_units": "eeg: uV", "shrinkage": 0.1, "notes": "one note; another"},
        ),
    )  # fmt: skip
    rows = [
        {"recording": "sub-01_ses-1_run-01_eeg.vhdr", "problem": "n/a"},
        {"recording": "sub-01_ses-1_run-02_eeg.vhdr", "problem": "the file is truncated | 3 MB"},
    ]
    found = read_recordings(tmp_path, "sub-01", rows)
    assert isinstance(found, Recordings) and found.sensors and found.responses
    assert [r.name for r in found.runs] == ["run-01"] and found.modality == "eeg"
    assert [(s.name, s.reason) for s in found.skipped] == [
        ("run-02", "the file is truncated; 3 MB")
    ]
    assert found.runs[0].bad_channels == {"F1": "flat, no signal"}
    np.testing.assert_allclose(found.runs[0].bad_segments, run.bad_segments)
    assert np.isnan(found.runs[0].line_freq_hz)
    np.testing.assert_allclose(found.responses.evoked, data.evoked, rtol=1e-5)  # type: ignore[arg-type]
    assert found.responses.notes == ["One note.", "Another."]
    html = assemble_subject(example.make_subject(recordings=found, **NO_SCORES))
    assert any(alt.startswith("Evoked response to all") for alt in alts(html))
    assert read_recordings(tmp_path / "nothing", "sub-02", []) is None


def test_decoding_over_time_is_read_back(tmp_path: Path) -> None:
    import xarray

    assert read_timing(tmp_path / "sub-01_time.nc") is None
    curve = made.make_curve("twoway", "sliding", 0.3)
    parts = {
        "value": curve.value, "ci_low": curve.low, "ci_high": curve.high, "chance": curve.chance,
        "chance_low": curve.chance_low, "chance_high": curve.chance_high,
    }  # fmt: skip
    arrays: dict[str, Any] = {
        f"sliding_{name}": (("metric", "sliding"), values[None]) for name, values in parts.items()
    }
    arrays |= {
        "sliding_start_s": ("sliding", curve.x - 0.05),
        "sliding_end_s": ("sliding", curve.x + 0.05),
        "peak_latency_s": ("metric", [0.158]),
        **{
            f"prestimulus_{name}": ("metric", [value])
            for name, value in (
                ("value", 0.6), ("ci_low", 0.55), ("ci_high", 0.65), ("chance", 0.5), ("rings", 1),
            )
        },
    }  # fmt: skip
    dataset = xarray.Dataset(
        arrays, {"metric": np.array(["twoway"], dtype=object)}, {"block": "clip"}
    )
    write_dataset(tmp_path / "sub-01_time.nc", dataset)
    timing = read_timing(tmp_path / "sub-01_time.nc")
    assert timing is not None and [c.kind for c in timing.curves] == ["sliding"]
    np.testing.assert_allclose(timing.curves[0].x, curve.x, atol=1e-6)
    assert timing.curves[0].width_s == pytest.approx(0.1)
    assert timing.alarms[0].rings and "60.0 %" in timing.alarms[0].detail
    assert "Two-way identification: 60.0 %" in alarm_warning(timing, ())


def test_conditions_are_read_back(tmp_path: Path) -> None:
    columns = ("contrast", "classifier", "role", "tmin_s", "tmax_s", "metric", "value", "ci_low",
               "ci_high", "chance", "p", "n", "protocol")  # fmt: skip
    out = "leave one person out, 9 folds; interval over those left out"
    rows = [
        ("conditions", "xdawn", "decoding", 0, 0.6, "auc", 0.9, 0.8, 0.95, 0.5, 0.01, 90, out),
        ("conditions", "xdawn", "alarm", -0.2, 0, "auc", 0.6, 0.55, 0.7, 0.5, "n/a", 90,
         f"before the stimulus; {out}"),
        ("conditions", "xdawn", "leak", 0, 0.6, "auc", 0.97, 0.9, 1, 0.5, "n/a", 90,
         "trials drawn at random, 5 folds: the subject is on both sides, do not report"),
    ]  # fmt: skip
    path = tmp_path / "sub-01_conditions.tsv"
    write_tsv(path, [dict(zip(columns, row, strict=True)) for row in rows], columns)
    path.with_suffix(".json").write_text(
        '{"contrasts": [{"contrast": "conditions", "classes": ["first", "second"]}]}'
    )
    plain_score, alarm, leak = read_conditions(path)
    assert plain_score.contrast == "first against second" and plain_score.left_out == "person"
    assert not plain_score.before_stimulus and plain_score.n == 90
    assert alarm.rings and alarm.window == "−0.2 to 0 s"
    assert leak.leaks and leak.left_out == "person"
    assert read_conditions(tmp_path / "absent.tsv") == []
