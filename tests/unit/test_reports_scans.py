"""Reports of subjects that come from scans: quality, onsets, maps; and datasets without pictures."""

from __future__ import annotations

import base64
import io
import re
import runpy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from afterimage.reports import text, verdict
from afterimage.reports.assemble import assemble_group, assemble_subject
from afterimage.reports.figures import estimates, mosaic, scans
from afterimage.reports.figures.style import LIGHT
from afterimage.reports.model import GroupSubject, SubjectReport
from afterimage.reports.provenance import StageError
from afterimage.reports.scan_words import onset_warning
from afterimage.reports.scans import ResponseQuality, SkippedRun

TESTS = Path(__file__).resolve().parents[1]
example = SimpleNamespace(**runpy.run_path(str(TESTS / "report_example.py")))
made = SimpleNamespace(**runpy.run_path(str(TESTS / "scan_example.py")))
HOSTILE = "<script>alert('x')</script>\"'&"
NO_SCORES = {"gallery": None, "metrics": (), "audit": None, "fits": ()}


class Page(HTMLParser):
    """Sections, pictures and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.images: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "section":
            self.sections.append(values["id"] or "")
        if tag == "img":
            self.images.append(values["alt"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def few() -> SubjectReport:
    """Make a subject with four runs, pictures and scores."""
    return example.make_subject(scans=made.make_scans())


@pytest.fixture(scope="module")
def few_html(few: SubjectReport) -> str:
    return assemble_subject(few)


@pytest.fixture(scope="module")
def late() -> SubjectReport:
    """Make a subject without pictures whose onsets are seven seconds late."""
    quality = made.make_scans(2, late_s=7.0)
    return example.make_subject(scans=quality, without_pictures=True, **NO_SCORES)


def test_data_quality_stands_before_responses(few_html: str) -> None:
    page = Page(few_html)
    assert page.sections[:3] == ["summary", "data_quality", "responses"]
    for words in (
        "Carpet plot of run-02", "Translation of the head", "temporal signal-to-noise ratio",
        "brain mask (", "Design matrix, 180 volumes by 52 columns: 40 trials, 6 motion, 5 drift",
        "peak of the response", "largest r a perfect model", "r between halves", "R²",
    ):  # fmt: skip
        assert any(words in alt for alt in page.images), words
    assert "1 run was left out." in page.text
    assert "96 of 180 volumes" in page.text
    assert "The onsets look" not in page.text
    assert not re.search(r'(?:src|srcset)="(?!data:image/)', few_html)


def test_prepared_responses_have_no_such_section() -> None:
    page = Page(assemble_subject(example.make_subject()))
    assert "data_quality" not in page.sections
    assert not any("onset" in alt for alt in page.images)


def test_every_caption_says_what_good_and_bad_look_like() -> None:
    for section in text.read_spec("subject.yml"):
        for figure in section.get("figures", ()):
            if figure["id"] not in ("scan_more_carpets", "meeg_more_spectra"):
                assert figure["good"] and figure["bad"], figure["id"]


def test_late_onsets_are_said_first_and_above_the_responses(late: SubjectReport) -> None:
    judged = verdict.judge(late)
    assert judged.warnings[0].startswith("The onsets look 7 s late")
    html = assemble_subject(late)
    words = Page(html).text
    assert words.count("The onsets look 7 s late") == 2
    responses = html[html.index('<section id="responses"') :]
    assert responses.index("The onsets look 7 s late") < responses.index("<figure")
    assert any("best when moved by −7 s" in alt for alt in Page(html).images)


def test_late_onsets_spoil_a_good_verdict() -> None:
    report = example.make_subject(scans=made.make_scans(2, late_s=7.0))
    assert verdict.judge(example.make_subject(scans=made.make_scans(2))).state == "yes"
    assert verdict.judge(report).state == "partly"


@pytest.mark.parametrize(
    ("best", "words"),
    [
        (None, ""),
        (0.0, ""),
        (2.0, ""),
        (-2.5, "look 2.5 s late"),
        (4.0, "look 4 s early"),
        (-10.0, "look at least 10 s late"),
    ],
)
def test_onset_warning(best: float | None, words: str) -> None:
    warning = onset_warning(
        ResponseQuality(best_onset_shift_s=best, onset_shift_s=np.arange(-10.0, 11.0))
    )
    assert words in warning
    assert bool(warning) == bool(words)


def test_without_pictures_the_page_says_so_and_drops_what_cannot_be(late: SubjectReport) -> None:
    page = Page(assemble_subject(late))
    assert page.sections == [
        "summary", "data_quality", "responses", "methods", "provenance", "errors",
    ]  # fmt: skip
    assert "This dataset has no pictures, so nothing was reconstructed." in page.text
    assert "training stimuli" in page.text and "training images" not in page.text
    assert "reconstructions of the seen images" not in page.text


def test_left_out_runs_do_not_make_the_subject_fail(late: SubjectReport) -> None:
    error = StageError("clean_bold", "InputError: truncated", partial=True)
    assert "no pictures" in verdict.judge(replace(late, errors=[error])).sentence
    whole = StageError("fit_responses", "InputError: no trial")
    assert "fit_responses failed" in verdict.judge(replace(late, errors=[whole])).sentence


def test_many_runs_stay_small_and_are_all_in_the_table() -> None:
    report = example.make_subject(scans=made.make_scans(80), **NO_SCORES)
    html = assemble_subject(report)
    page = Page(html)
    assert len(html.encode()) < 10_000_000
    carpets = [alt for alt in page.images if alt.startswith("Carpet plot")]
    assert len(carpets) == scans.N_OPEN + scans.N_MORE
    assert "56 more runs are in the table above" in page.text
    assert all(f"run-{number:02d}" in page.text for number in range(1, 81))
    assert "details" in page.tags


def test_restless_runs_are_shown_first() -> None:
    quality = made.make_scans(12)
    first, more, n_left_out = scans.carpet_order(quality.runs)
    assert 1 in first and len(first) == 6 and len(more) == 6 and n_left_out == 0
    least = min(quality.runs[i].mean_fd_mm for i in first)
    assert least >= max(quality.runs[i].mean_fd_mm for i in more)


def test_what_is_missing_is_left_out() -> None:
    bare = made.make_scans(
        1, mean=None, tsnr=None, brain_mask=None, units_mask=None, responses=None, skipped=()
    )
    still = [
        replace(
            run,
            carpet=None,
            motion=np.full_like(run.motion, np.nan),
            dvars=np.full_like(run.dvars, np.nan),
        )
        for run in bare.runs
    ]
    page = Page(assemble_subject(example.make_subject(scans=replace(bare, runs=still))))
    assert any(alt.startswith("Carpet plot") for alt in page.images)
    assert not any(alt.startswith(("Map", "Translation", "Mean image")) for alt in page.images)
    only = made.make_scans(0, responses=None, tsnr=None, mean=None)
    assert "1 run was left out" in Page(assemble_subject(example.make_subject(scans=only))).text


def test_hostile_run_names_are_escaped() -> None:
    quality = made.make_scans(1, skipped=[SkippedRun(HOSTILE, HOSTILE)])
    runs = [replace(run, name=HOSTILE, notes=[HOSTILE]) for run in quality.runs]
    responses = replace(quality.responses, notes=[HOSTILE], estimator=HOSTILE)
    quality = replace(quality, runs=runs, responses=responses)
    html = assemble_subject(example.make_subject(scans=quality))
    assert html.count("<script>") == 1
    assert "<script>alert" not in html


def test_methods_text_follows_the_scans(few: SubjectReport) -> None:
    def prose(report: SubjectReport) -> str:
        written = text.methods_text(
            text.subject_tags(report), text.subject_facts(report), report.stages
        )
        return "".join(piece.text for paragraph in written.paragraphs for piece in paragraph)

    told = prose(few)
    assert "4 functional runs (720 volumes)" in told
    assert "(Prince et al., 2022)" in told and "(Friston et al., 1995)" in told
    assert "Slices were shifted in time" in told and "fMRIPrep" not in told
    n_censored = sum(run.n_censored for run in few.scans.runs)
    assert f"({n_censored} in all)" in told
    other = replace(
        few.scans, source="fmriprep", responses=replace(few.scans.responses, estimator="lss")
    )
    told = prose(replace(few, scans=other))
    assert "(Esteban et al., 2019)" in told and "(Mumford et al., 2012)" in told
    assert "Friston et al., 1995" not in told and "Prince" not in told


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make a block on the right, in front and above, stored with axes up, left and front."""
    world = np.zeros((9, 11, 7))
    world[6:8, 8:10, 4:6] = 1.0
    brain = np.zeros_like(world, dtype=bool)
    brain[1:8, 1:10, 1:6] = True
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 2] = 2.0
    affine[0, 1], affine[0, 3] = -2.0, 2.0 * (world.shape[0] - 1)
    affine[3, 3] = 1.0
    return np.transpose(world[::-1], (2, 0, 1)), np.transpose(brain[::-1], (2, 0, 1)), affine


def test_slices_are_turned_to_right_front_and_up() -> None:
    stored, brain, affine = planted()
    slices = mosaic.choose_slices(brain, affine)
    assert slices.axis == 2 and slices.aspect == 1
    np.testing.assert_allclose(slices.place_mm, [2, 4, 6, 8, 10])
    picture = slices.mosaic(stored, 0.0)
    height, width = picture.shape[0] // slices.n_rows, picture.shape[1] // slices.n_columns
    lit = [picture[:height, i * width : (i + 1) * width].any() for i in range(5)]
    assert lit == [False, False, False, True, True]
    y, x = np.nonzero(picture[:height, 3 * width : 4 * width])
    assert x.min() > width / 2  # to the right
    assert y.max() < slices.headroom + (height - slices.headroom) / 2  # to the front: above


@pytest.mark.parametrize(("thin_axis", "axis"), [(0, 0), (1, 1), (2, 2)])
def test_a_thin_slab_is_sliced_in_its_own_plane(thin_axis: int, axis: int) -> None:
    shape = [20, 24, 18]
    shape[thin_axis] = 1
    slices = mosaic.choose_slices(np.ones(shape, dtype=bool), np.eye(4))
    assert slices.axis == axis and len(slices.numbers) == 1
    picture = slices.mosaic(np.ones(shape), 0.0)
    assert picture.sum() == np.prod(shape)
    assert slices.filled().sum() == picture.size / slices.n_columns


def test_large_volumes_are_thinned() -> None:
    shape = (220, 260, 90)
    slices = mosaic.choose_slices(np.ones(shape, dtype=bool), np.eye(4))
    assert slices.mosaic(np.ones(shape), 0.0).size < 1.3 * mosaic.MAX_PIXELS


def rasters(svg: bytes) -> list[np.ndarray]:
    """Decode the pictures inside an SVG; arrays of shape (height, width, 3 or 4)."""
    from PIL import Image as Picture

    found = re.findall(rb'xlink:href="data:image/webp;base64,([^"]+)"', svg)
    return [np.asarray(Picture.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_a_map_keeps_its_values() -> None:
    stored, brain, affine = planted()
    volume = np.where(brain, stored * 0.8, np.nan)
    slices = mosaic.choose_slices(brain, affine)
    picture = rasters(mosaic.draw_map(volume, slices, (0.0, 1.0), "r", None, LIGHT))[0]
    assert picture.shape[:2] == slices.mosaic(volume, 0.0).shape
    shown = picture[..., 3] > 0
    assert shown.sum() == brain.sum()  # nothing outside the brain is drawn
    bright = shown & (picture[..., 1] > 180)  # viridis at 0.8 is green, at 0 dark violet
    assert bright.sum() == int(stored.sum())


def test_the_carpet_shows_what_was_recorded() -> None:
    run = made.make_run(0)
    carpet = np.zeros((40, run.n_volumes), dtype=np.float32)
    carpet[:, 90] = 3.0
    svg = scans.draw_carpet(replace(run, carpet=carpet), 1.0, 2.0, LIGHT)
    (picture,) = rasters(svg)
    assert picture.shape[1] == run.n_volumes
    columns = picture[..., 0].mean(axis=0)
    assert columns.argmax() == 90 and columns[90] > 200 and abs(np.median(columns) - 128) < 12


def test_thinning_keeps_every_spike() -> None:
    values = np.random.default_rng(0).normal(0, 0.1, 20_000)
    values[12_345], values[7] = 9.0, np.nan
    index, kept = scans.thin(values)
    assert len(kept) <= scans.MAX_POINTS and np.isfinite(kept).all()
    assert kept.max() == 9.0 and index[kept.argmax()] == 12_345
    np.testing.assert_array_equal(values[index], kept)
    assert (np.diff(index) > 0).all()


def test_spans_and_bins() -> None:
    flags = np.array([1, 1, 0, 0, 1, 0, 1], dtype=bool)
    assert scans.spans(flags) == [(0, 1), (4, 4), (6, 6)]
    assert scans.spans(~flags[:0]) == []
    np.testing.assert_allclose(scans.bin_rows(np.arange(12.0)[:, None], 4)[:, 0], [1, 4, 7, 10])
    assert scans.bin_rows(np.ones((3, 2)), 4).shape == (3, 2)


def test_columns_of_the_design_are_grouped() -> None:
    names = ["face", "face", "trans_x", "rot_z", "trans_x_derivative1", "a_comp_cor_00"]
    names += ["cosine00", "cosine01", "censor_12", "constant"]
    assert estimates.column_groups(names) == [
        ("trials", 0, 1), ("motion", 2, 4), ("CompCor", 5, 5), ("drift", 6, 7),
        ("censored", 8, 8), ("constant", 9, 9),
    ]  # fmt: skip


def test_labels_are_moved_apart() -> None:
    places = estimates.spread_out(np.array([1.0, 1.1, 5.0, 9.9, 9.95]), 0.5, 9.8)
    assert (np.diff(places) >= 0.5 - 1e-9).all() and places.max() <= 9.8
    assert places[2] == 5.0


def test_expected_response_peaks_later_for_longer_stimuli() -> None:
    times = np.arange(0.0, 32.0, 0.1)
    brief, long = (estimates.expected_response(times, length) for length in (0.0, 12.0))
    assert 4.5 < times[brief.argmax()] < 5.6
    assert times[long.argmax()] > times[brief.argmax()] + 5
    assert brief.max() == pytest.approx(1, abs=0.01) and long.max() == pytest.approx(1, abs=0.01)


def test_group_of_subjects_without_pictures() -> None:
    warning = onset_warning(ResponseQuality(best_onset_shift_s=-7.0))
    subjects = [
        GroupSubject("01", "sub-01.html", "responses only", n_units=461, warnings=(warning,)),
        GroupSubject("02", "sub-02.html", "responses only", n_units=470),
    ]
    group = replace(example.make_group(2), subjects=subjects, metrics=(), leak_linter=())
    words = Page(assemble_group(group)).text
    assert "The dataset has no pictures, so nothing was reconstructed." in words
    assert "2 of 2 subjects have responses" in words
    assert "sub-01: The onsets look 7 s late" in words
