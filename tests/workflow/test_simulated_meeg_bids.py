"""The simulated EEG and MEG on disk: valid BIDS that MNE-BIDS reads, beside BOLD or alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterimage.errors import InputError
from afterimage.io.tables import read_tsv
from afterimage.simulate.meeg import simulate_run
from afterimage.simulate.stimuli import draw_stimuli
from afterimage.stages import simulate_bold, simulate_meeg
from afterimage.stages.simulate_meeg import Config, Inputs, Outputs, _draw_subject, run

CONFIG = Config(
    n_training_images=40, n_test_images=6, n_test_repeats=2, trials_per_run=20, n_early_units=60,
    n_selective_units=40, random_state=5,
)  # fmt: skip
BOLD = simulate_bold.Config(
    n_training_images=40, n_test_images=6, n_test_repeats=2, trials_per_run=12, n_early_units=60,
    n_selective_units=40, shape_voxels=(18, 20, 14), random_state=5,
)  # fmt: skip


def simulate(folder: Path, config: Config = CONFIG) -> Path:
    run(Inputs(), Outputs(folder / "derivatives" / "simulation" / "meeg.json"), config)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two subjects in the scanner, one with EEG, one with MEG."""
    folder = tmp_path_factory.mktemp("study")
    simulate_bold.run(
        simulate_bold.Inputs(), simulate_bold.Outputs(folder / "dataset_description.json"), BOLD
    )
    return simulate(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file; FIF files hold the time they were written, which is left out."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".fif")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def errors(dataset: Path) -> tuple[list[dict[str, str]], set[str]]:
    """Return the errors the BIDS validator finds, and the codes of its warnings."""
    validator = Path(sys.executable).parent / "bids-validator-deno"
    if not validator.is_file():
        pytest.skip("bids-validator-deno is not installed")
    command = [str(validator), str(dataset), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    issues: list[dict[str, str]] = json.loads(done.stdout)["issues"]["issues"]
    codes = {issue["code"] for issue in issues if issue["severity"] != "error"}
    return [issue for issue in issues if issue["severity"] == "error"], codes


def read_raw(study: Path, label: str, number: int):
    """Read one run with MNE-BIDS."""
    import mne_bids

    datatype = "eeg" if (study / label / "eeg").is_dir() else "meg"
    path = mne_bids.BIDSPath(
        subject=label[4:], task="pictures", run=f"{number:02d}", datatype=datatype, root=study
    )
    return mne_bids.read_raw_bids(path, verbose="error")


def test_the_bids_validator_finds_no_error(study: Path) -> None:
    found, warnings = errors(study)
    assert not found
    # Keys that only a real amplifier could fill in.
    assert warnings <= {"SIDECAR_KEY_RECOMMENDED", "JSON_KEY_RECOMMENDED"}


def test_four_subjects_of_three_modalities_see_the_same_pictures(study: Path) -> None:
    known = {row["file"]: row for row in read_tsv(study / "stimuli" / "stimuli.tsv")}
    participants = read_tsv(study / "participants.tsv")
    labels = [f"sub-{number:02d}" for number in (1, 2, 3, 4)]
    assert [row["participant_id"] for row in participants] == labels
    datatypes = []
    for label, row in zip(labels, participants, strict=True):
        events = sorted((study / label).rglob("*_events.tsv"))
        assert len(events) == int(row["n_runs"])
        datatypes.append(events[0].parent.name)
        rows = [row for path in events for row in read_tsv(path)]
        assert all(known[row["stim_file"]]["category"] == row["trial_type"] for row in rows)
        shown = [row["stim_file"] for row in rows if known[row["stim_file"]]["split"] == "test"]
        assert sorted(set(shown)) == [f"picture{index:04d}.png" for index in range(40, 46)]
        for path in events:  # training and test pictures have runs of their own
            splits = {known[row["stim_file"]]["split"] for row in read_tsv(path)}
            assert len(splits) == 1
    assert datatypes == ["func", "func", "eeg", "meg"]


@pytest.mark.parametrize("label", ["sub-03", "sub-04"])
def test_files_hold_what_was_simulated(study: Path, label: str) -> None:
    import mne

    images, attributes, _ = draw_stimuli(46, CONFIG.random_state)
    modality = CONFIG.subjects[label]
    drawn = _draw_subject(CONFIG, label, modality, images, attributes)
    for number, recorded in enumerate(drawn.runs):
        raw = read_raw(study, label, recorded.run)
        assert raw.ch_names == drawn.info["ch_names"]
        assert raw.get_channel_types() == drawn.info.get_channel_types()
        assert raw.info["bads"] == []
        assert raw.info["line_freq"] == 50
        assert raw.info["sfreq"] == 250
        expected = simulate_run(drawn, number)
        found = raw.get_data()
        steps = np.array([{"eeg": 1e-7, "eog": 1e-7, "mag": 1e-14, "grad": 5e-13}[kind]
                          for kind in raw.get_channel_types()])[:, None]  # fmt: skip
        loud = np.abs(expected) > 32767 * steps
        assert loud.mean() < 1e-3
        assert (np.abs(found - expected) <= 0.51 * steps)[~loud].all()
        np.testing.assert_allclose(raw.annotations.onset, recorded.first_samples / 250, atol=1e-5)
        place = np.array([channel["loc"][:3] for channel in raw.info["chs"][:-1]])
        planned = np.array([channel["loc"][:3] for channel in drawn.info["chs"][:-1]])
        np.testing.assert_allclose(place, planned, atol=2e-4)
        if modality == "meg":
            np.testing.assert_allclose(
                raw.info["dev_head_t"]["trans"], drawn.anatomy.dev_head, atol=1e-6
            )
            sphere, centre_m, _ = mne.bem.fit_sphere_to_headshape(
                raw.info, dig_kinds="extra", units="m", verbose="error"
            )
            assert sphere == pytest.approx(drawn.anatomy.radius_m, abs=1e-3)
            np.testing.assert_allclose(centre_m, [0, 0, 0.04], atol=1e-3)


@pytest.mark.parametrize("label", ["sub-03", "sub-04"])
def test_truth_tells_trials_units_channels_and_blinks(study: Path, label: str) -> None:
    folder = study / "derivatives" / "simulation" / label
    truth = json.loads((folder / f"{label}_meeg.json").read_text())
    trials = read_tsv(folder / f"{label}_trials.tsv")
    units = read_tsv(folder / f"{label}_units.tsv")
    dipoles = read_tsv(folder / f"{label}_dipoles.tsv")
    planted = np.load(folder / f"{label}_responses.npy")
    field = np.load(folder / f"{label}_leadfield.npy")
    evoked = np.load(folder / f"{label}_evoked.npy")
    assert planted.shape == (len(trials), len(units)) == (len(trials), 100)
    assert field.shape == (len(truth["channels"]), len(dipoles))
    assert evoked.shape == (len(truth["channels"]), len(truth["evoked_times_s"]))
    told = []
    for path in sorted((study / label).rglob("*_events.tsv")):
        run_number = path.name.split("run-")[1][:2]
        told += [(row["stim_file"][:-4], run_number, row["onset"]) for row in read_tsv(path)]
    assert [(row["stimulus_id"], row["run"], row["onset"]) for row in trials] == told
    # What the tables say is enough to make the evoked response again.
    latency, width, weight = (
        np.array([float(row[key]) for row in units]) for key in ("latency_s", "width_s", "weight")
    )
    times_s = np.array(truth["evoked_times_s"])
    kernels = np.exp(-0.5 * ((times_s[:, None] - latency) / width) ** 2)
    courses = np.zeros((len(dipoles), len(times_s)))
    np.add.at(courses, [int(row["dipole"]) for row in units], weight[:, None] * kernels.T)
    again = CONFIG.mean_response * field @ courses
    np.testing.assert_allclose(again, evoked, atol=1e-4 * np.abs(evoked).max())

    assert sorted(truth["bad_channels"].values()) == ["flat", "noisy", "noisy"]
    raw = read_raw(study, label, 1)
    flat = [name for name, fault in truth["bad_channels"].items() if fault == "flat"]
    assert raw.get_data(flat).std() < 1e-15
    blinks = [row for row in read_tsv(folder / f"{label}_blinks.tsv") if row["run"] == "01"]
    eye = raw.get_data("EOG001")[0]
    for row in blinks:
        inside = eye[
            int((float(row["onset"]) + 0.1) * 250) : int((float(row["onset"]) + 0.2) * 250)
        ]
        assert inside.max() > 1.5e-4


def test_alone_it_is_a_whole_dataset_and_the_same_twice(study: Path, tmp_path: Path) -> None:
    alone = simulate(tmp_path / "one")
    assert not errors(alone)[0]
    first = contents(alone)
    for name, data in contents(study).items():
        # The pictures and the recordings are those of the study with BOLD.
        if name.startswith(("sub-03", "sub-04", "stimuli")):
            assert first[name] == data
    (alone / "derivatives" / "simulation" / "meeg.json").unlink()  # as if interrupted
    assert contents(simulate(alone)) == first
    raws = [read_raw(folder, "sub-04", 1).get_data() for folder in (study, alone)]
    np.testing.assert_array_equal(*raws)
    smaller = Config(**CONFIG.model_dump() | {"modality": "eeg", "n_training_images": 30})
    again = contents(simulate(alone, smaller))
    assert not [name for name in again if "sub-04" in name]
    assert len([name for name in again if name.endswith(".png")]) == 36


def test_it_neither_overwrites_a_subject_nor_mixes_pictures(study: Path) -> None:
    before = contents(study / "sub-01")
    with pytest.raises(InputError, match="already"):
        simulate(study, Config(**CONFIG.model_dump() | {"first_subject": 2}))
    with pytest.raises(InputError, match="other pictures"):
        simulate(study, Config(**CONFIG.model_dump() | {"random_state": 6}))
    assert contents(study / "sub-01") == before
    assert simulate(study).is_dir()
    assert len(read_tsv(study / "participants.tsv")) == 4


def test_a_simulation_goes_on(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while a recording is written and begun again, it adds what is missing."""
    from afterimage.simulate import meeg

    folder = tmp_path / "study"
    simulate_bold.run(
        simulate_bold.Inputs(), simulate_bold.Outputs(folder / "dataset_description.json"), BOLD
    )
    write, made = simulate_meeg.write_brainvision, []

    def stopped(place: Path, stem: str, info: Any, data: Any, triggers: Any) -> None:
        if made:
            (place / f"{stem}.eeg").write_bytes(b"half")
            raise KeyboardInterrupt
        made.append(stem)
        write(place, stem, info, data, triggers)

    with monkeypatch.context() as patch:
        patch.setattr(simulate_meeg, "write_brainvision", stopped)
        with pytest.raises(KeyboardInterrupt):
            simulate(folder)
    simulate_run, again = meeg.simulate_run, []
    monkeypatch.setattr(
        meeg, "simulate_run", lambda *given: again.append(given) or simulate_run(*given)
    )
    simulate(folder)
    assert contents(folder) == contents(study)
    n_runs = len([*study.glob("sub-*/eeg/*.vhdr"), *study.glob("sub-*/meg/*.fif")])
    assert len(again) == n_runs - 1
