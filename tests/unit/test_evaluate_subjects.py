"""The stage: who is compared on what, who is left out and why, and what stands in the files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.decoding.contrastive import ContrastiveSettings
from afterimage.errors import ConfigError
from afterimage.evaluation.subject_protocols import COLUMNS
from afterimage.io.arrays import block_writer
from afterimage.io.tables import read_json, read_tsv, write_tsv
from afterimage.io.trials import write_trials
from afterimage.stages.evaluate_subjects import Config, Inputs, Outputs, run
from afterimage.stages.subject_trials import Epochs, Joined

N_TRAIN, N_TEST, N_REPEATS = 60, 12, 2
IMAGES = np.array([f"image{number:02d}" for number in range(N_TRAIN + N_TEST)])
TIMES_S = np.arange(-10, 30) / 50.0
NAMES = np.array(["Fz", "Cz", "Pz", "Oz", "O1", "O2", "P7", "P8"])
QUICK = Config(n_bootstraps=100, n_permutations=100, k_values=(10, 30), random_state=3)


class Study:
    """Subjects on disk who share the patterns of what they see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(0)
        self.features = self.rng.standard_normal((len(IMAGES), 6)).astype(np.float32)
        self.patterns = self.rng.standard_normal((6, len(NAMES)))
        self.inputs = Inputs((), (), (), ())
        self.outputs = Outputs(folder / "group" / "subjects.tsv", folder / "group/subjects.json")

    def add(
        self, label: str, *, units: np.ndarray | None = None, times_s: np.ndarray = TIMES_S,
        kind: str = "eeg", test: slice = slice(N_TRAIN, None), broken: bool = False,
    ) -> None:  # fmt: skip
        """Write a subject; ``units`` are places in `NAMES`, in its own order."""
        units = np.arange(len(NAMES)) if units is None else units
        held_out = np.arange(len(IMAGES))[test]
        shown = np.setdiff1d(np.arange(len(IMAGES)), held_out)
        rows = np.concatenate([shown, np.repeat(held_out, N_REPEATS)])
        course = np.exp(-(((times_s - 0.15) / 0.05) ** 2))
        signal = (self.features[rows] @ self.patterns)[:, units, None] * course
        noise = self.rng.standard_normal(signal.shape)
        responses = (5.0 * np.arange(len(units))[None, :, None] + signal + noise).astype("f4")
        if broken:
            responses[3, 0, 20] = np.nan
        trials = {
            "stimulus": IMAGES[rows],
            "subject": np.full(len(rows), label),
            "split": np.where(np.isin(rows, shown), "train", "test"),
            "repeat": np.zeros(len(rows), np.int64),
        }
        coordinates = {"kind": np.full(len(units), kind), "roi": np.full(len(units), "n/a")}
        if kind == "eeg":
            coordinates["name"] = NAMES[units]
        folder = self.folder / f"sub-{label}"
        paths = [folder / f"sub-{label}_{name}" for name in ("trials.nc", "train.nc", "test.nc")]
        split = folder / f"sub-{label}_split.tsv"
        write_trials(paths[0], [responses], trials, coordinates, times_s, {"subject": label})
        for path, names in ((paths[1], shown), (paths[2], held_out)):
            with block_writer(path) as writer:
                writer.group("", IMAGES[names])
                writer.write("", "clip", [self.features[names]], (6,), {"encoder": "{}"})
        table = [{"stimulus_id": name, "split": "train"} for name in IMAGES]
        write_tsv(split, table, ["stimulus_id", "split"])
        known = self.inputs
        self.inputs = replace(
            known,
            trials=(*known.trials, paths[0]),
            features=(*known.features, paths[1]),
            test_features=(*known.test_features, paths[2]),
            split=(*known.split, split),
        )

    def run(self, config: Config = QUICK) -> tuple[list[dict[str, str]], dict[str, Any]]:
        run(self.inputs, self.outputs, config)
        return read_tsv(self.outputs.table), read_json(self.outputs.details)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def value(
    rows: list[dict[str, str]], subject: str, analysis: str, metric: str = "twoway"
) -> float:
    (row,) = [
        row for row in rows
        if (row["subject"], row["analysis"], row["metric"], row["repeats"])
        == (subject, analysis, metric, "averaged") and row["k"] in ("n/a", "30")
    ]  # fmt: skip
    return float(row["value"])


def test_montages_that_differ_are_compared_on_what_they_share(study: Study) -> None:
    study.add("01")
    study.add("02", units=np.array([7, 6, 5, 4, 3, 2, 1, 0]))  # another order
    study.add("03", units=np.array([1, 2, 3, 4, 5, 6, 7]))
    rows, details = study.run()
    assert tuple(rows[0]) == COLUMNS
    (found,) = details["comparisons"]
    assert found["units"] == NAMES[1:].tolist()
    assert found["units_dropped"] == {"01": ["Fz"], "02": ["Fz"]}
    assert found["n_units"] == 7
    assert found["subjects"]["03"] == {
        "n_training_trials": 60, "n_test_trials": 24, "n_test_images": 12
    }  # fmt: skip
    assert any("1 units that not all subjects have" in note for note in found["notes"])
    for label in ("01", "02", "03"):
        for analysis in ("within_subject", "cross_subject", "few_shot", "pooled_subjects"):
            assert value(rows, label, analysis) > 0.85, (label, analysis)
    # Bins of 40 ms of samples 20 ms apart, from the onset.
    np.testing.assert_allclose(found["bin_centres_s"][:2], [0.01, 0.05])


def test_who_cannot_be_compared_is_left_out_with_a_note(study: Study) -> None:
    study.add("01")
    study.add("02")
    study.add("scan", kind="voxel")
    study.add("slow", times_s=np.arange(-5, 15) / 25.0)
    study.add("few", units=np.array([0, 1]))
    study.add("broken", broken=True)
    rows, details = study.run()
    assert {row["subject"] for row in rows} == {"01", "02"}
    (found,) = details["comparisons"]
    told = "\n".join([*details["notes"], *found["notes"]])
    assert "sub-scan is not compared: units of kind voxel are the subject's own" in told
    assert "sub-slow is left out: other times" in told
    assert "sub-few is left out: only 2 of the 8 units" in told
    assert "sub-broken is left out" in told
    assert "not finite" in told


def test_scans_alone_are_no_error(study: Study) -> None:
    study.add("01", kind="voxel")
    study.add("02", kind="voxel")
    rows, details = study.run()
    assert rows == []
    assert details["comparisons"] == []
    assert len(details["notes"]) == 2


def test_a_test_picture_of_one_is_never_fitted_in_another(study: Study) -> None:
    study.add("01")
    study.add("02", test=slice(N_TRAIN - 6, N_TRAIN + 6))
    rows, details = study.run()
    (found,) = details["comparisons"]
    assert found["subjects"]["01"]["n_training_trials"] == 54
    assert found["subjects"]["02"]["n_training_trials"] == 54
    assert found["n_gallery"] == 18
    assert sum("6 training trials of pictures" in note for note in found["notes"]) == 2
    assert {row["n"] for row in rows} == {"12"}


@pytest.mark.slow
def test_a_network_stands_in_the_same_table(study: Study) -> None:
    for label in ("01", "02", "03"):
        study.add(label)
    settings = ContrastiveSettings(
        n_steps=60, n_blocks=0, n_hidden=16, n_virtual=8, dropout=0.0, dropout_radius=0.0,
        adaptation_steps=20, learning_rate=5e-3, batch_size=32,
    )  # fmt: skip
    config = QUICK.model_copy(update={"decoders": {"net": settings}, "k_values": (30,)})
    rows, details = study.run(config)
    labels = [row["label"] for row in rows]
    assert labels.count("net") == labels.count("ridge") == 3 * 4 * 2 * 3
    assert set(details["comparisons"][0]["seconds"]) == {"ridge", "net"}
    net = [row for row in rows if row["label"] == "net"]
    for analysis in ("within_subject", "cross_subject", "few_shot", "pooled_subjects"):
        found = np.mean([value(net, label, analysis) for label in ("01", "02", "03")])
        assert found > 0.65, analysis
    assert not (study.folder / "work").exists()
    again, _ = study.run(config)
    assert again == rows


def test_many_units_are_compared_by_their_components(study: Study) -> None:
    study.add("01")
    study.add("02")
    rows, _ = study.run(QUICK.model_copy(update={"max_units": 6}))
    assert min(value(rows, label, "cross_subject") for label in ("01", "02")) > 0.8


def test_settings_that_cannot_work_are_refused(study: Study) -> None:
    study.add("01")
    study.add("02")
    with pytest.raises(ConfigError, match="feature block"):
        study.run(QUICK.model_copy(update={"block": "dino"}))
    with pytest.raises(ConfigError, match="no time lies within"):
        study.run(QUICK.model_copy(update={"tmin_s": 5.0}))
    with pytest.raises(ValueError, match="no network"):
        Config(decoders={"second": {"kind": "ridge"}})
    with pytest.raises(ValueError, match="cannot be called ridge"):
        Config(decoders={"ridge": {"kind": "contrastive"}})


def test_trials_are_read_in_the_order_asked_for() -> None:
    class Reader:
        shape = (40, 4, 7)

        def read(self, rows: np.ndarray, units: Any, times: slice) -> np.ndarray:
            values = np.arange(40 * 4 * 7, dtype=np.float32).reshape(self.shape)
            return values[np.asarray(rows)][:, units, times]

    whole = Reader().read(np.arange(40), slice(None), slice(None))
    rows = np.array([5, 3, 30, 8, 9])
    one = Epochs(Reader(), rows, np.array([2, 0]), slice(1, 6), 2)
    assert one.shape == (5, 2, 3)
    expected = np.stack(
        [whole[rows][:, [2, 0], 1:3].mean(2), whole[rows][:, [2, 0], 3:5].mean(2),
         whole[rows][:, [2, 0], 5]], axis=2,
    )  # fmt: skip
    np.testing.assert_allclose(one[np.array([4, 0, 1])], expected[[4, 0, 1]])
    other = Epochs(Reader(), np.array([1, 2]), np.array([2, 0]), slice(1, 6), 2)
    joined = Joined([one, other])
    assert joined.shape == (7, 2, 3)
    found = joined[np.array([6, 0, 5, 2])]
    np.testing.assert_allclose(found, np.stack([other[1:2][0], one[:1][0], other[:1][0],
                                                one[2:3][0]]))  # fmt: skip
