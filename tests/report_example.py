"""A made-up but realistic subject for the report tests: pictures, responses, scores, audit."""

from __future__ import annotations

from typing import Any

import numpy as np

from afterimage.reports.model import (
    Audit,
    BlockFit,
    Gallery,
    GroupReport,
    GroupSubject,
    NearDuplicate,
    Responses,
    SubjectReport,
)
from afterimage.reports.provenance import ConfigChange, Exclusion, StageError, StageRun

METHODS = {
    "LinearPixels": "linear_pixels",
    "LowLevel": "low_level",
    "Retrieval": "retrieval",
    "LatentDiffusion": "latent_diffusion",
}
# metric: chance, half width of its interval, ceiling, then linear, low-level, retrieval, diffusion
SCORES = {
    "pixcorr": (0.0, 0.04, 0.93, 0.61, 0.66, 0.42, 0.63),
    "mse": (0.115, 0.006, 0.011, 0.049, 0.043, 0.081, 0.047),
    "ssim": (0.21, 0.02, 0.88, 0.36, 0.45, 0.39, 0.52),
    "twoway_pixels": (0.5, 0.03, 0.998, 0.95, 0.96, 0.84, 0.95),
    "twoway_clip": (0.5, 0.03, 0.995, 0.71, 0.82, 0.93, 0.962),
    "retrieval_top1": (0.0083, 0.012, 0.93, 0.21, 0.28, 0.33, 0.51),
}
AUDIT = {
    "shuffledBrainLatentDiffusion": 0.01,
    "meanBrainLatentDiffusion": 0.06,
    "meanTrainingImage": 0.08,
    "nearestTrainingImage": 0.55,
}


def draw_pictures(n: int, size: int, random_state: int) -> np.ndarray:
    """Draw coloured discs and bars on shaded grounds; array of shape (n, size, size, 3), uint8."""
    rng = np.random.default_rng(random_state)
    y, x = np.mgrid[0:size, 0:size] / size
    pictures = np.empty((n, size, size, 3), dtype=np.uint8)
    for i in range(n):
        ground, colour = rng.uniform(40, 215, 3), rng.uniform(0, 255, 3)
        centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.12, 0.32)
        if i % 2:
            inside = np.hypot(x - centre[0], y - centre[1]) < radius
        else:
            inside = (abs(x - centre[0]) < radius) & (abs(y - centre[1]) < radius / 2)
        shade = (0.75 + 0.4 * y)[:, :, None]
        picture = np.where(inside[:, :, None], colour, ground * shade)
        pictures[i] = np.clip(picture, 0, 255)
    return pictures


def blurred(pictures: np.ndarray, passes: int, noise: float, random_state: int) -> np.ndarray:
    """Blur pictures and add noise, as a poor reconstruction would."""
    rng = np.random.default_rng(random_state)
    out = pictures.astype(np.float32)
    for _ in range(passes):
        for axis in (1, 2):
            out = (np.roll(out, 2, axis) + out + np.roll(out, -2, axis)) / 3
    return np.clip(out + rng.normal(0, noise, out.shape), 0, 255).astype(np.uint8)


def metric_rows(subject: str = "01", shift: float = 0.0, n: int = 120) -> list[dict[str, Any]]:
    """Rows of ``metrics.tsv`` for one subject; `shift` moves all real scores towards chance."""
    rows: list[dict[str, Any]] = []

    def add(label: str, decoder: str, method: str, role: str, name: str, value: float) -> None:
        chance, half, ceiling, *_ = SCORES[name]
        real = role in ("reconstruction", "prediction")
        width = 0.035 * abs(ceiling - chance) if role != "ceiling" else 0.004
        rows.append(
            {
                "subject": subject, "label": label, "decoder": decoder, "method": method,
                "role": role, "metric": name, "value": value,
                "ci_low": value - width, "ci_high": value + width, "chance": chance,
                "chance_low": chance - half, "chance_high": chance + half,
                "ceiling": ceiling if real else None, "p": 0.001 if real else "n/a", "n": n,
                "protocol": "one image a stimulus; 1000 permuted pairs; seed 0",
            }
        )  # fmt: skip

    for name, (chance, _, ceiling, *values) in SCORES.items():
        for (camel, method), value in zip(METHODS.items(), values, strict=True):
            moved = value + shift * (chance - value)
            add(f"ridge{camel}", "ridge", method, "reconstruction", name, moved)
        for label, share in AUDIT.items():
            role = "baseline" if label.endswith("Image") else "audit"
            method = "latent_diffusion" if role == "audit" else ""
            add(label, "", method, role, name, chance + share * (ceiling - chance))
        add("ceilingLatentDiffusion", "ceiling", "latent_diffusion", "ceiling", name, ceiling)
    add("clusterOracle", "", "", "audit", "twoway_clip", 0.9375)
    add("ridge", "ridge", "", "prediction", "twoway_clip", 0.951)
    add("ridge", "ridge", "", "prediction", "twoway_pixels", 0.973)
    return rows


def make_responses(n_units: int = 600) -> Responses:
    """Responses to 400 stimuli seen once and 60 seen four times, units unequally noisy."""
    rng = np.random.default_rng(5)
    stimulus = [f"train{i:03d}" for i in range(400)] + [f"test{i % 60:02d}" for i in range(240)]
    split = ["train"] * 400 + ["test"] * 240
    _, index = np.unique(stimulus, return_inverse=True)
    signal = rng.normal(size=(460, n_units))[index] * rng.beta(1.2, 2.5, n_units)
    offset = rng.normal(0, 0.4, n_units)
    values = signal + offset + rng.normal(0, 0.6, signal.shape)
    values += 0.04 * np.sin(np.arange(640) / 60)[:, None]
    regions = np.array(["V1", "V2", "V3", "hV4", "FFA", "PPA", ""])
    return Responses(
        values.astype(np.float32),
        stimulus,
        split,
        roi=list(regions[np.arange(n_units) * len(regions) // n_units]),
        ceiling=rng.beta(2.5, 3, n_units),
        unit_kind="voxel",
        n_dropped_units=14,
    )


def make_gallery(n: int = 120, size: int = 64) -> Gallery:
    """Test pictures and four kinds of reconstruction, with a pixel correlation for each image."""
    seen = draw_pictures(n, size, 1)
    columns = {
        "ridgeLinearPixels": blurred(seen, 6, 22, 2),
        "ridgeLowLevel": blurred(seen, 4, 6, 3),
        "ridgeRetrieval": np.roll(seen, 7, axis=0),
        "ridgeLatentDiffusion": blurred(seen, 1, 3, 4),
        "ceilingLatentDiffusion": blurred(seen, 0, 2, 5),
    }
    score = np.random.default_rng(6).beta(5, 3, n)
    return Gallery(
        [f"test{i:04d}" for i in range(n)],
        columns,
        seen,
        score,
        "pixcorr",
        "ridgeLatentDiffusion",
    )


def make_audit() -> Audit:
    """All linter checks pass; two near duplicates."""
    pictures = draw_pictures(4, 64, 9)
    near = blurred(pictures, 0, 5, 10)
    shown = make_gallery(40)
    return Audit(
        leak_linter=(
            {"check": "no stimulus in two splits", "ok": True, "detail": "400 training, 60 test"},
            {"check": "repeats of a stimulus stay together", "ok": True, "detail": "460 stimuli"},
            {"check": "fits saw training trials only", "ok": True, "detail": "4 decoders"},
            {"check": "samples chosen by the brain", "ok": True, "detail": "no seen image read"},
        ),
        near_duplicates=[
            NearDuplicate(f"test{i:02d}", f"train{i:03d}", 0.97 - 0.01 * i, pictures[i], near[i])
            for i in range(2)
        ],
        near_duplicate_rule="pixel correlation of 32 x 32 images above 0.95",
        cluster_oracle={"k": 8, "expected_twoway": 0.9375, "encoder": "clip"},
        gallery=Gallery(
            shown.stimulus,
            {
                "ridgeLatentDiffusion": shown.columns["ridgeLatentDiffusion"],
                "shuffledBrainLatentDiffusion": np.roll(
                    shown.columns["ridgeLatentDiffusion"], 3, 0
                ),
                "meanBrainLatentDiffusion": [np.full((64, 64, 3), 128, np.uint8)] * 40,
            },
            shown.seen,
            n_random=4,
        ),
    )


def make_stages() -> list[StageRun]:
    """Stages of a run that went well."""
    names = ("responses", "features", "decode", "reconstruct", "evaluate")
    cites = ((), ("radford2021",), ("duprelatour2022",), ("rombach2022",), ("wang2004",))
    return [
        StageRun(
            name,
            1,
            "done",
            runtime_s=3.2 * (i + 1) ** 2,
            peak_memory_mb=400.0 + 300 * i,
            config_hash=f"{i}f3a9c2e77b1d04{i}",
            inputs_hash=f"9{i}d1e0b6aa83c5f{i}",
            command=f"python -m afterimage stage {name} --params '{{\"n\": {i}}}'",
            log_path=f"logs/sub-01/{name}.log",
            cites=cites[i],
        )
        for i, name in enumerate(names)
    ]


def make_subject(**changes: Any) -> SubjectReport:
    """One finished subject; keyword arguments replace fields."""
    rng = np.random.default_rng(7)
    grid = np.logspace(0, 6, 7)
    alphas = {
        name: grid[rng.binomial(6, 0.55, 300)] for name in ("clip", "vae", "pixels", "gabor")
    }
    parts: dict[str, Any] = {
        "subject": "01",
        "dataset": "Simulated visual brain",
        "created": "2026-11-21 08:00 UTC",
        "run_id": "20261121T080000",
        "versions": {"afterimage": "0.1.0", "numpy": "2.4.6", "torch": "2.13.0", "python": "3.11"},
        "command": "afterimage study out participant --participant-label 01",
        "config_changes": [ConfigChange("reconstruct.strength", "0.75", "0.6")],
        "config_hash": "8c1f2a90d3",
        "exclusions": [
            Exclusion("voxels", "constant over all trials", 9),
            Exclusion("voxels", "never finite", 5),
        ],
        "responses": make_responses(),
        "fits": [
            BlockFit("ridge", block, rng.beta(a, 4, 300) - 0.1, alphas[block], grid)
            for block, a in (("clip", 4.0), ("vae", 3.0), ("pixels", 3.5), ("gabor", 2.5))
        ],
        "gallery": make_gallery(),
        "metrics": metric_rows(),
        "audit": make_audit(),
        "stages": make_stages(),
        "facts": {
            "n_folds": 5, "guidance_scale": 4, "strength": 0.6, "n_seeds": 4,
            "n_bootstrap": 2000, "n_permutations": 1000,
        },
    }  # fmt: skip
    return SubjectReport(**{**parts, **changes})


def make_failed() -> SubjectReport:
    """Make a subject whose decoder failed, with an output that is out of date."""
    stages = [
        StageRun("responses", 1, runtime_s=3.0, stale="older than its configuration"),
        StageRun("decode", 1, "failed", log_path="logs/sub-02/decode.log"),
        StageRun("reconstruct", 1, "skipped"),
    ]
    message = (
        "InputError: only 7 training trials\n  where:    sub-02, sub-02_trials.tsv\n"
        "  found:    7\n  expected: at least 10\n  fix:      check the column `split`"
    )
    error = StageError(
        "decode", message, "logs/sub-02/decode.log", "08:00:01 INFO decode sub-02\n" * 6
    )
    return make_subject(
        subject="02", stages=stages, errors=[error], fits=(), gallery=None, metrics=(), audit=None
    )


def make_group(n_subjects: int = 5) -> GroupReport:
    """Make a group of which the last subject failed."""
    names = [f"{i + 1:02d}" for i in range(n_subjects)]
    subjects = [
        GroupSubject(name, f"sub-{name}.html", "done", "", "", 600, 400, 60, 412.0)
        for name in names[:-1]
    ]
    message = "InputError: only 7 training trials\n  fix: check the column `split`"
    subjects.append(GroupSubject(names[-1], f"sub-{names[-1]}.html", "failed", "decode", message))
    metrics = [
        row
        for i, name in enumerate(names[:-1])
        for row in metric_rows(name, 0.06 * i if i < 6 else 0.1)
    ]
    checks = ("no stimulus in two splits", "repeats of a stimulus stay together")
    linter = [
        {"subject": name, "check": check, "ok": True, "detail": ""}
        for name in names[:-1]
        for check in checks
    ]
    return GroupReport(
        subjects,
        metrics,
        linter,
        stages=make_stages(),
        dataset="Simulated visual brain",
        created="2026-11-21 08:00 UTC",
        versions={"afterimage": "0.1.0"},
        command="afterimage study out participant",
    )
