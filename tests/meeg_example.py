"""A made-up but realistic subject with EEG or MEG recordings, for the report tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from afterimage.reports.recordings import (
    Alarm,
    Component,
    ConditionScore,
    EvokedResponses,
    Generalisation,
    RecordingRun,
    Recordings,
    Sensors,
    TimeCurve,
    TimeResolved,
)
from afterimage.reports.scans import SkippedRun

FREQUENCY_HZ = np.arange(0, 100.5, 0.5)
TIMES_S = np.arange(-0.2, 0.8, 0.004)
#: Noise at 1 Hz (SI unit a root Hz) and size of a response (SI unit).
SIZES = {"eeg": (4e-6, 5e-6), "mag": (9e-14, 1.4e-13), "grad": (2.5e-12, 4e-12)}


def make_sensors(modality: str = "eeg") -> Sensors:
    """64 electrodes of a cap, or a helmet of 102 places with three coils each."""
    if modality == "eeg":
        import mne

        placed = mne.channels.make_standard_montage("biosemi64").get_positions()["ch_pos"]
        return Sensors(list(placed), ["eeg"] * len(placed), np.array(list(placed.values())))
    place = np.arange(102)
    up = 1 - place / 101 * 1.25
    around = place * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - up**2)
    rays = np.column_stack([flat * np.cos(around), flat * np.sin(around), up])
    positions = np.repeat(0.12 * rays + [0, 0, 0.04], 3, axis=0)
    names = [f"MEG{number:03d}{coil}" for number in place for coil in (1, 2, 3)]
    return Sensors(names, ["mag", "grad", "grad"] * 102, positions)


def blob(sensors: Sensors, x: float, y: float, z: float, width: float = 0.6) -> np.ndarray:
    """Weights of a source below a place on the unit sphere."""
    rays = sensors.positions - [0, 0, 0.04 if "mag" in sensors.kinds else 0.0]
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    target = np.array([x, y, z]) / np.linalg.norm([x, y, z])
    return np.exp(-((np.arccos(np.clip(rays @ target, -1, 1)) / width) ** 2))


def scale_of(sensors: Sensors, which: int) -> np.ndarray:
    """Size of noise (0) or of responses (1) at every channel."""
    return np.array([SIZES[kind][which] for kind in sensors.kinds])


def make_run(number: int, sensors: Sensors, bad: dict[str, str]) -> RecordingRun:
    """One run: 1/f noise, alpha, mains, and some bad channels; ten minutes."""
    rng = np.random.default_rng(40 + number)
    f = np.maximum(FREQUENCY_HZ, 0.25)
    shape = 1 / f**1.1 + 0.5 * np.exp(-((f - 10.2) ** 2) / 2) * 0.6 + 0.002
    level = scale_of(sensors, 0) ** 2 * rng.lognormal(0, 0.35, len(sensors.names))
    before = level[:, None] * shape * rng.lognormal(0, 0.08, (len(level), len(f)))
    line = np.exp(-((f - 50) ** 2) / 0.2) * scale_of(sensors, 0)[:, None] ** 2
    before += line * rng.uniform(0.2, 2, (len(level), 1))
    for name in bad:
        before[list(sensors.names).index(name)] *= (
            1e-4 if bad[name] == "flat" else 40 * (1 + f / 8)
        )
    passed = 1 / (1 + (0.1 / f) ** 4) / (1 + (f / 40) ** 12)
    after = level[:, None] * (shape * passed + 1e-6) * rng.lognormal(0, 0.05, before.shape)
    starts = np.sort(rng.uniform(5, 590, 4 + 3 * number))
    segments = np.column_stack([starts, starts + rng.gamma(2, 1.2, len(starts))])
    share = float(np.diff(segments, axis=1).sum() / 600)
    return RecordingRun(
        f"run-{number + 1:02d}", 600.0, 250.0, bad, dict.fromkeys(bad, "interpolated"), segments,
        share, {"amplitude": 0.8 * share, "muscle": 0.3 * share}, FREQUENCY_HZ,
        before.astype(np.float32), after.astype(np.float32), make_components(sensors, number),
        0.1, 40.0, 50.0, "average" if "eeg" in sensors.kinds else "",
        ("Resampled once, from 1000 to 250 Hz.",),
    )  # fmt: skip


def make_components(sensors: Sensors, number: int) -> list[Component]:
    """Blinks, eye movements, heartbeat and muscle, and brain components that stay."""
    blink = blob(sensors, 0, 1, 0.1)
    look = blob(sensors, 0.7, 0.8, 0, 0.4) - blob(sensors, -0.7, 0.8, 0, 0.4)
    heart = sensors.positions @ np.array([-3.0, -2.0, 4.0])
    muscle = blob(sensors, -1, 0.2, -0.1, 0.3)
    brain = blob(sensors, 0.1, -1, 0.3)
    return [
        Component("eye blink", 0.99, True, 0.22, blink),
        Component("eye movement" if number else "channel noise", 0.86, True, 0.04, look),
        Component("heart beat", 0.71, number == 0, 0.02, heart),
        Component("muscle artifact", 0.9, True, 0.03, muscle),
        *[Component("brain", 0.9, False, 0.05, brain)] * 11,
    ]


def make_evoked(sensors: Sensors, times_s: np.ndarray = TIMES_S) -> EvokedResponses:
    """Two conditions with an early and a late response, and a third without repeats."""
    rng = np.random.default_rng(5)
    early = blob(sensors, 0, -1, 0.25) - 0.5 * blob(sensors, 0, 0.8, 0.8)
    late = blob(sensors, 0.8, -0.6, 0) + 0.7 * blob(sensors, -0.8, -0.6, 0) - 0.3
    size = scale_of(sensors, 1)[:, None]

    def wave(at: float, width: float) -> np.ndarray:
        return np.exp(-((times_s - at) ** 2) / (2 * width**2))

    evoked = []
    for strength in (1.3, 0.6, 0.9):
        response = early[:, None] * (wave(0.105, 0.018) - 0.5 * wave(0.22, 0.04))
        response = response + strength * late[:, None] * wave(0.172, 0.022)
        noise = gaussian_filter1d(rng.normal(0, 0.12, response.shape), 2, axis=1)
        evoked.append(size * (response + noise))
    shape = 0.32 * (wave(0.11, 0.03) + 0.7 * wave(0.19, 0.06))
    ceiling = np.clip((0.2 + np.abs(early))[:, None] * shape, 0, 1)
    ceiling += np.abs(gaussian_filter1d(rng.normal(0, 0.02, ceiling.shape), 3, axis=1))
    n = len(sensors.names)
    values = np.geomspace(2000, 0.1, n) * rng.lognormal(0, 0.05, n)
    values[-2:] = 1e-5
    return EvokedResponses(
        times_s, ["faces", "houses", "tools"], None, np.array(evoked, dtype=np.float32),
        [1204, 1190, 640], ceiling.astype(np.float32),
        {"measured": values, "after whitening": rng.normal(1, 0.04, n)}, 0.043,
        {"in a bad stretch": 41, "outside the recording": 2}, 3034,
        ("The noise covariance was fitted on 2412 training trials.",),
    )  # fmt: skip


def make_recordings(modality: str = "eeg", n_runs: int = 4, **changes: Any) -> Recordings:
    """Make the recordings of one subject, with one run left out."""
    sensors = make_sensors(modality)
    names = list(sensors.names)
    why = ("flat", "no correlation with others, high-frequency noise", "deviating amplitude")
    chosen = [names[i % len(names)] for i in (3, 22, 47)]
    runs = []
    for number in range(n_runs):
        bad = {chosen[0]: why[0]}
        if number % 2:
            bad[chosen[1]] = why[1]
        if number == 2:
            bad[chosen[2]] = why[2]
        runs.append(make_run(number, sensors, bad))
    parts: dict[str, Any] = {
        "modality": modality,
        "sensors": sensors,
        "runs": runs,
        "skipped": [SkippedRun(f"run-{n_runs + 1:02d}", "no event lies within the recording")],
        "responses": make_evoked(sensors),
    }
    return Recordings(**{**parts, **changes})


def make_curve(name: str, kind: str, leak: float = 0.0) -> TimeCurve:
    """Make a score over time; with a leak it is above chance before the onset."""
    rng = np.random.default_rng(len(name) + len(kind))
    chance = {"twoway": 0.5, "retrieval_top1": 0.005, "retrieval_top5": 0.025}[name]
    top = {"twoway": 0.38, "retrieval_top1": 0.13, "retrieval_top5": 0.3}[name]
    start = np.arange(-0.2, 0.72, 0.02)
    if kind == "sliding":
        x, end = start + 0.05, start + 0.1
        shape = np.exp(-(((x - 0.16) / 0.07) ** 2)) + 0.35 * np.exp(-(((x - 0.33) / 0.12) ** 2))
    else:
        x = end = start[start > -0.15] + 0.1
        shape = 1.5 / (1 + np.exp(-(x - 0.17) / 0.035))
    value = chance + top * (shape + leak * (end <= 0.0)) + rng.normal(0, 0.02 * top, len(x))
    value = np.clip(value, 0, 1)
    half = 0.08 * top + 0.04 * np.sqrt(value * (1 - value))
    band = np.full(len(x), 0.045 * top + 0.02)
    return TimeCurve(
        name, x, value, np.clip(value - half, 0, 1), np.clip(value + half, 0, 1),
        np.full(len(x), chance), np.clip(chance - band, 0, 1), chance + band, kind, 0.1, -0.1,
        np.where(value > chance + 2 * band, 0.001, 0.6),
        peak_s=(0.158, 0.131, 0.172) if kind == "sliding" else None,
    )  # fmt: skip


def make_timing(leak: float = 0.0) -> TimeResolved:
    """Windows, repetitions and generalisation; with a leak the alarm rings."""
    rng = np.random.default_rng(8)
    names = ("twoway", "retrieval_top1", "retrieval_top5")
    curves = [make_curve(name, kind, leak) for name in names for kind in ("sliding", "growing")]
    k = np.array([1, 2, 5, 10, 20, 40, 80])
    for name, chance in zip(names, (0.5, 0.005, 0.025), strict=True):
        value = chance + (0.95 - chance) * (1 - np.exp(-k / 30.0))
        expected = chance + (0.98 - chance) * (1 - np.exp(-k / 24.0))
        band = np.full(len(k), 0.02)
        curves.append(
            TimeCurve(
                name, k, value, value - 0.04, value + 0.04, np.full(len(k), chance),
                chance - band, chance + band, "repetitions",
                expected=expected if name != "twoway" else np.full(len(k), np.nan),
                n=np.full(len(k), 200),
            )
        )  # fmt: skip
    t = np.arange(-0.15, 0.7, 0.02)
    away = t[:, None] - t
    up = 1 / (1 + np.exp(-(t - 0.09) / 0.02)) * np.exp(-np.clip(t - 0.15, 0, None) / 0.4)
    matrix = 0.5 + 0.4 * np.exp(-((away / 0.06) ** 2)) * np.sqrt(up[:, None] * up)
    matrix += 0.1 * up[:, None] * up * (t > 0.25) * (t[:, None] > 0.25)
    matrix += rng.normal(0, 0.012, matrix.shape)
    rings = leak > 0.1
    return TimeResolved(
        curves,
        [Generalisation(t, t, matrix, "twoway", 0.5, 0.58)],
        [
            Alarm("Two-way identification", rings, f"{58.1 if rings else 50.3} % (95 % interval "
                  f"{54.0 if rings else 47.1} to 62.2 %), chance 50.0 %", "twoway"),
            Alarm("Retrieval, top 1", False, "0.6 % (0.1 to 1.2 %), chance 0.5 %",
                  "retrieval_top1"),
        ],
        "clip", 200,
    )  # fmt: skip


def make_conditions(leak: bool = False) -> list[ConditionScore]:
    """Faces against houses, its alarm, and a label with and without the person leak."""
    faces, group = "face against house", "group of the person"
    return [
        ConditionScore(faces, "tangentSpace", "auc", 0.712, 0.671, 0.752, 0.5, 0.45, 0.55, 0.001,
                       586, "run", "0.0 to 0.6 s"),
        ConditionScore(faces, "windowLDA", "auc", 0.683, 0.640, 0.725, 0.5, 0.45, 0.55, 0.001, 586,
                       "run", "0.0 to 0.6 s"),
        ConditionScore(faces, "tangentSpace", "auc", 0.63 if leak else 0.492,
                       0.58 if leak else 0.445, 0.68 if leak else 0.54, 0.5, 0.45, 0.55,
                       0.002 if leak else 0.61, 586, "run", "−0.2 to 0.0 s", True),
        ConditionScore(group, "tangentSpace", "auc", 0.76, 0.66, 0.85, 0.5, 0.36, 0.64, 0.004, 122,
                       "person", "0.0 to 0.6 s"),
        ConditionScore(group, "tangentSpace", "auc", 0.94, 0.91, 0.96, 0.5, 0.44, 0.56, 0.001, 1220,
                       "person", "0.0 to 0.6 s", leaks=True),
    ]  # fmt: skip
