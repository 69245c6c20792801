"""Reports: complete, self-contained, escaped, small, honest about what is shown and missing."""

from __future__ import annotations

import base64
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
from afterimage.reports.figures.responses import reliability_panels, repeat_reliability
from afterimage.reports.figures.style import DARK, LIGHT, recolour
from afterimage.reports.gallery import pick_rows, thumbnail, view
from afterimage.reports.labels import label_title, metric
from afterimage.reports.layout import local_link
from afterimage.reports.model import Gallery, Responses
from afterimage.reports.provenance import Exclusion, StageError

example = SimpleNamespace(
    **runpy.run_path(str(Path(__file__).resolve().parents[1] / "report_example.py"))
)
HOSTILE = "<script>alert('x')</script>\"'&"


class Page(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def subject_html() -> str:
    return assemble_subject(example.make_subject())


@pytest.fixture(scope="module")
def group_html() -> str:
    return assemble_group(example.make_group())


def test_subject_has_all_sections_in_order(subject_html: str) -> None:
    ids = [attrs["id"] for attrs in Page(subject_html).all("section")]
    assert ids == [
        "summary", "responses", "decoding", "gallery", "scores", "published", "audit", "methods",
        "provenance", "errors",
    ]  # fmt: skip


def test_contents_link_to_every_section(subject_html: str) -> None:
    page = Page(subject_html)
    links = {attrs["href"] for attrs in page.all("a")}
    assert {f"#{attrs['id']}" for attrs in page.all("section")} <= links


@pytest.mark.parametrize("which", ["subject_html", "group_html"])
def test_nothing_is_loaded_from_outside(which: str, request: pytest.FixtureRequest) -> None:
    html = request.getfixturevalue(which)
    page = Page(html)
    loaded = [
        attrs[name]
        for _, attrs in page.tags
        for name in ("src", "srcset", "poster", "data")
        if name in attrs
    ]
    assert loaded
    assert all(address.startswith("data:image/") for address in loaded)
    assert not page.all("link") and not page.all("iframe")
    assert not re.search(r"url\(\s*['\"]?\s*(https?:)?//", html)
    assert "@import" not in html
    outside = [a["href"] for a in page.all("a") if "//" in a["href"]]
    assert outside and all(link.startswith("https://doi.org/10.") for link in outside)
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_same_input_gives_same_bytes(subject_html: str) -> None:
    assert assemble_subject(example.make_subject()) == subject_html


def test_every_picture_has_alternative_text(subject_html: str) -> None:
    images = Page(subject_html).all("img")
    assert len(images) > 80
    assert all(len(image["alt"]) > 8 for image in images)


def test_hostile_names_are_escaped() -> None:
    gallery = example.make_gallery(12)
    rows = example.metric_rows()
    rows[0] |= {"label": HOSTILE, "protocol": HOSTILE, "metric": HOSTILE, "method": HOSTILE}
    report = example.make_subject(
        subject=HOSTILE,
        dataset=HOSTILE,
        command=HOSTILE,
        versions={HOSTILE: HOSTILE},
        group_href="javascript:alert(1)",
        metrics=rows,
        gallery=replace(gallery, stimulus=[HOSTILE] * 12, columns={HOSTILE: gallery.seen}),
        exclusions=[Exclusion(HOSTILE, HOSTILE, 3)],
        errors=[StageError(HOSTILE, HOSTILE, "javascript:alert(1)", HOSTILE)],
    )
    html = assemble_subject(report)
    page = Page(html)
    assert len(page.all("script")) == 1
    assert "<script>alert" not in html
    assert not any("javascript:" in a.get("href", "") for a in page.all("a"))
    assert any("<script>alert" in image["alt"] for image in page.all("img"))
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("sub-01.html", "sub-01.html"),
        ("logs/a b.log", "logs/a%20b.log"),
        ("javascript:alert(1)", "#"),
        ("//host/x", "#"),
        ("https://host/x", "#"),
    ],
)
def test_local_link(path: str, link: str) -> None:
    assert local_link(path) == link


def test_size_with_a_thousand_large_test_images() -> None:
    rng = np.random.default_rng(0)
    pool = rng.integers(0, 256, (8, 256, 256, 3), dtype=np.uint8)
    images = [pool[i % 8] for i in range(1000)]
    gallery = Gallery(
        [f"s{i}" for i in range(1000)],
        dict.fromkeys(example.make_gallery(4).columns, images),
        images,
        rng.uniform(size=1000),
        "pixcorr",
        "ridgeLatentDiffusion",
    )
    html = assemble_subject(example.make_subject(gallery=gallery))
    assert len(html.encode()) < 10_000_000
    pictures = [a["src"] for a in Page(html).all("img")]
    assert max(len(source) for source in pictures) * 3 / 4 < 150_000


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_percentile_rows(lower_is_better: bool) -> None:
    score = np.random.default_rng(1).permutation(101).astype(float)
    rows = pick_rows(101, score, lower_is_better=lower_is_better, n_random=5, random_state=3)
    picked = {reason: score[index] for index, reason in rows[:3]}
    low, high = (95.0, 5.0) if lower_is_better else (5.0, 95.0)
    assert picked == {"5th percentile": low, "50th percentile": 50.0, "95th percentile": high}
    assert [reason for _, reason in rows[3:]] == ["random"] * 5
    assert len({index for index, _ in rows}) == 8


def test_random_rows_do_not_depend_on_the_score() -> None:
    rows = pick_rows(50, None, n_random=6, random_state=4)
    assert [reason for _, reason in rows] == ["random"] * 6
    assert rows == pick_rows(50, None, n_random=6, random_state=4)
    assert rows != pick_rows(50, None, n_random=6, random_state=5)


def test_rows_of_few_or_unscorable_images() -> None:
    assert pick_rows(0, None) == []
    assert [index for index, _ in pick_rows(2, np.array([np.nan, 1.0]))] == [1, 0]
    assert sorted(index for index, _ in pick_rows(3, np.full(3, np.nan))) == [0, 1, 2]


def test_gallery_order_and_note(subject_html: str) -> None:
    shown = view(example.make_gallery(), ["ridge"])
    assert shown is not None and shown.pixelated
    assert shown.columns == (
        "Seen", "Linear", "Low-level", "Retrieval", "Diffusion", "Generator ceiling, diffusion",
    )  # fmt: skip
    assert "11 of 120 stimuli" in subject_html and "No row was picked by eye" in subject_html


def test_small_thumbnails_keep_every_pixel() -> None:
    import io

    from PIL import Image as Picture

    image = example.draw_pictures(1, 48, 0)[0]
    data = base64.b64decode(thumbnail(image, "a picture").data_uri.partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Picture.open(io.BytesIO(data))), image)


def test_unscored_run_says_so() -> None:
    gallery = replace(example.make_gallery(), seen=None, score=None)
    report = example.make_subject(
        metrics=(), gallery=gallery, audit=None, unscored="the test images are absent"
    )
    html = assemble_subject(report)
    page = Page(html)
    assert "Not scored (the test images are absent)." in page.text
    assert "The seen images are not available" in page.text
    assert not any(image["alt"].startswith("Seen") for image in page.all("img"))
    assert "This run has no scores" in page.text
    assert "the reconstructions were not scored" in page.text


def test_failed_subject_has_a_page() -> None:
    page = Page(assemble_subject(example.make_failed()))
    assert "This subject has no result: the stage decode failed." in page.text
    assert "expected: at least 10" in page.text
    assert "STALE" in page.text and "older than its configuration" in page.text
    assert "No decoder was fitted." in page.text
    assert any(a["href"] == "logs/sub-02/decode.log" for a in page.all("a"))


def test_almost_empty_subject_has_a_page() -> None:
    report = replace(
        example.make_failed(), responses=None, stages=(), exclusions=(), versions={}, errors=()
    )
    page = Page(assemble_subject(report))
    assert len(page.all("section")) == 9
    assert "No responses were read" in page.text


def test_verdict_of_a_good_run() -> None:
    judged = verdict.judge(example.make_subject())
    assert judged.sentence == "The reconstructions are above chance and above every baseline."
    assert [f.state for f in judged.findings] == ["yes", "yes", "yes", "yes"]
    assert judged.findings[2].answer == "93 % of the way from chance"
    assert judged.basis.startswith("Judged on Diffusion, two-way identification, CLIP over 120")


def test_verdict_speaks_of_the_last_method_not_the_best() -> None:
    rows = [row for row in example.metric_rows() if row["metric"] == "pixcorr"]
    row = verdict.headline(example.make_subject(metrics=rows))
    assert row is not None and row["label"] == "ridgeLatentDiffusion"
    best = max((r for r in rows if r["role"] == "reconstruction"), key=lambda r: float(r["value"]))
    assert best["label"] == "ridgeLowLevel"


def test_verdict_for_errors_reads_lower_as_better() -> None:
    report = example.make_subject(headline_metric="mse", audit=None)
    judged = verdict.judge(report)
    assert [f.state for f in judged.findings[:2]] == ["yes", "yes"]
    rows = [dict(r) for r in example.metric_rows()]
    for row in rows:
        if row["metric"] == "mse" and row["role"] == "reconstruction":
            row |= {"value": 0.107, "ci_low": 0.103, "ci_high": 0.111}
    judged = verdict.judge(replace(report, metrics=rows))
    assert [f.state for f in judged.findings[:2]] == ["partly", "no"]
    assert judged.state != "yes"


def test_verdict_at_chance() -> None:
    rows = [dict(row) for row in example.metric_rows()]
    for row in rows:
        if row["metric"] == "twoway_clip" and row["role"] == "reconstruction":
            row |= {"value": 0.49, "ci_low": 0.46, "ci_high": 0.52}
    judged = verdict.judge(example.make_subject(metrics=rows))
    assert judged.state == "no"
    assert judged.sentence.startswith("The reconstructions are not above chance")


def test_leaks_come_before_the_verdict() -> None:
    audit = example.make_audit()
    broken = replace(audit, leak_linter=[{"check": "no stimulus in two splits", "ok": False}])
    rows = [dict(row) for row in example.metric_rows()]
    for row in rows:
        if row["label"].startswith("shuffledBrain") and row["metric"] == "twoway_clip":
            row |= {"value": 0.7, "ci_low": 0.66, "ci_high": 0.74}
    report = example.make_subject(audit=broken, metrics=rows)
    judged = verdict.judge(report)
    assert judged.state == "no"
    assert any("The leak linter failed: no stimulus" in w for w in judged.warnings)
    assert any(w.startswith("Shuffled brain, diffusion is above chance") for w in judged.warnings)
    assert "1 of 1 checks failed." in Page(assemble_subject(report)).text


def test_scores_table_has_every_number(subject_html: str) -> None:
    page = Page(subject_html)
    assert "0.630 0.597 to 0.663 0.000 −0.040 to 0.040 0.930 0.001 120" in page.text
    assert "lower is better" in page.text
    assert "Two-way identification, CLIP: better, 82.0 % → 96.2 %" in page.text
    assert "Mean squared error: worse, 0.0430 → 0.0470" in page.text


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("twoway_clip", "Two-way identification, CLIP"),
        ("twoway_within_cluster_clip", "Two-way identification within a cluster, CLIP"),
        ("retrieval_top1", "Retrieval, top 1 (brain → image)"),
        ("retrieval_top5_pixels", "Retrieval, top 5, pixels (brain → image)"),
        ("retrieval_top1_clip_image_to_brain", "Retrieval, top 1, CLIP (image → brain)"),
        ("something_new", "something_new"),
    ],
)
def test_metric_titles(name: str, title: str) -> None:
    assert metric(name).title == title


@pytest.mark.parametrize(
    ("label", "decoders", "title"),
    [
        ("ridgeLowLevel", ["ridge"], "Low-level"),
        ("ridgeLowLevel", ["ridge", "bayesian"], "Low-level (ridge)"),
        ("shuffledBrainLatentDiffusion", ["ridge"], "Shuffled brain, diffusion"),
        ("ridgeShuffledBrainLowLevel", ["ridge"], "Ridge shuffled brain low level"),
        ("nearestTrainingImage", ["ridge"], "Nearest training image"),
    ],
)
def test_label_titles(label: str, decoders: list[str], title: str) -> None:
    assert label_title(label, decoders) == title


def test_repeat_reliability() -> None:
    rng = np.random.default_rng(0)
    stimulus = [f"s{i % 200}" for i in range(400)]
    signal = rng.normal(size=200)
    responses = np.stack([np.tile(signal, 2), np.tile(signal, 2), np.zeros(400)], axis=1)
    responses[:, 0] += rng.normal(size=400)
    responses[:, 2] += rng.normal(size=400)
    reliability = repeat_reliability(responses, stimulus)
    np.testing.assert_allclose(reliability, [0.5, 1.0, 0.0], atol=0.15)
    assert repeat_reliability(responses, [str(i) for i in range(400)]).size == 0
    course = np.array([5.0, 1.0, -1.0])  # what is before the onset does not count
    over_time = responses[:, :, None] * course + rng.normal(size=(400, 3, 3)) * (course == 5.0)
    data = Responses(over_time, stimulus, times_s=np.array([-0.1, 0.0, 0.1]))
    panel = reliability_panels(example.make_subject(responses=data))[0]
    assert f"median {np.median(reliability):.2f}" in panel.alt


def test_dark_plots_use_the_dark_colours_only(subject_html: str) -> None:
    svg = f'<path style="fill: {LIGHT.accent}; stroke: {LIGHT.ink}"/>'.encode()
    assert recolour(svg, LIGHT, DARK).decode().count(DARK.accent) == 1
    dark = [a["srcset"] for a in Page(subject_html).all("source")]
    assert len(dark) == 24
    for uri in dark:
        drawn = base64.b64decode(uri.partition(",")[2]).decode()
        assert DARK.ink in drawn
        assert not any(colour in drawn for colour in (LIGHT.ink, LIGHT.accent, LIGHT.muted))


def test_methods_text_follows_what_ran() -> None:
    report = example.make_subject()
    written = text.methods_text(
        text.subject_tags(report), text.subject_facts(report), report.stages
    )
    prose = "".join(piece.text for paragraph in written.paragraphs for piece in paragraph)
    assert "into 400 training stimuli (400 trials) and 60 test stimuli (240 trials)" in prose
    assert "The guidance scale was 4 and the starting strength 0.6." in prose
    assert "(Meng et al., 2022)" in prose and "(Mölder et al., 2021)" in prose
    assert "{" not in prose and "@" not in prose
    keys = {reference.key for reference in written.references}
    assert {"meng2022", "shirakawa2025", "duprelatour2022"} <= keys
    assert written.bibtex.count("@") == len(keys)
    short = replace(report, gallery=None, metrics=(), audit=None, facts={}, stages=())
    less = text.methods_text(text.subject_tags(short), text.subject_facts(short), ())
    assert "meng2022" not in {reference.key for reference in less.references}


def test_every_sentence_and_stage_cites_known_references() -> None:
    sentences = [s["text"] for p in text.read_spec("methods.yml") for s in p["sentences"]]
    cited = {key for sentence in sentences for key in re.findall(r"@(\w+)", sentence)}
    known = text.references()
    assert cited <= set(known)
    # Some journals give no DOI.
    assert all(r.doi.startswith("10.") or r.url.startswith("https://") for r in known.values())
    assert len({reference.doi or reference.url for reference in known.values()}) == len(known)


def test_group_report(group_html: str) -> None:
    page = Page(group_html)
    assert "4 of 5 subjects scored, 1 failed." in page.text
    assert "only 7 training trials" in page.text
    assert {f"sub-{i:02d}.html" for i in range(1, 6)} <= {a["href"] for a in page.all("a")}
    assert [a["id"] for a in page.all("section")] == [
        "group_summary", "group_scores", "published", "group_linter", "methods", "group_errors",
    ]  # fmt: skip
    assert "no stimulus in two splits 4 passed" in page.text


def test_modalities_are_not_averaged_together() -> None:
    group = example.make_group(4)
    kinds = ("fmri", "fmri", "eeg", "eeg")
    subjects = [replace(s, modality=k) for s, k in zip(group.subjects, kinds, strict=True)]
    alike = Page(
        assemble_group(replace(group, subjects=[replace(s, modality="eeg") for s in subjects]))
    )
    apart = Page(assemble_group(replace(group, subjects=subjects)))
    assert "Modality" in apart.text and "Modality" not in alike.text
    rows = [
        r for r in group.metrics if r["role"] == "reconstruction" and r["metric"] == "twoway_clip"
    ]
    label = rows[0]["label"]
    values = {r["subject"]: float(r["value"]) for r in rows if r["label"] == label}
    for kind in ("fmri", "eeg"):
        own = [values[s.subject] for s in subjects if s.modality == kind and s.subject in values]
        name = {"fmri": "fMRI", "eeg": "EEG"}[kind]
        assert f"{name} {100 * np.mean(own):.1f} %" in apart.text
    assert "means of" in apart.text and "mean of" in alike.text


def test_group_of_a_thousand_subjects_stays_small_and_leaves_nobody_out() -> None:
    html = assemble_group(example.make_group(1000))
    assert len(html.encode()) < 10_000_000
    table = html.partition('id="group-table"')[2].partition("</table>")[0]
    assert table.count('<th scope="row"') <= 4000
    assert all(f">sub-{number:02d}</a>" in table for number in range(1, 1000))
    assert 'data-filter="subject-table"' in html


def test_group_without_scores() -> None:
    group = replace(example.make_group(2), metrics=(), leak_linter=())
    page = Page(assemble_group(group))
    assert "No subject has scores." in page.text and "The leak linter did not run." in page.text
