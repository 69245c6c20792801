"""References, projections, interpolation, units, names and positions of channels."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pytest

from afterimage.errors import ConfigError, InputError
from afterimage.preprocess.meeg.channels import (
    agree_on_channels,
    check_units,
    describe_units,
    set_positions,
)
from afterimage.preprocess.meeg.reference import (
    apply_projections,
    interpolate_bads,
    separate_signal_space,
    set_reference,
)

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "recording_example.py")))


@pytest.fixture
def raw() -> mne.io.BaseRaw:
    return made.make_eeg(0, duration_s=20).raw


def test_average_of_good_channels(raw: mne.io.BaseRaw) -> None:
    raw.info["bads"] = ["Cz"]
    raw._data[raw.ch_names.index("Cz")] = 1.0
    assert set_reference(raw, "auto") == ("average", [])
    good = np.delete(raw.get_data(), raw.ch_names.index("Cz"), axis=0)
    np.testing.assert_allclose(good.mean(axis=0), 0, atol=1e-15)


def test_few_channels_keep_their_reference(raw: mne.io.BaseRaw) -> None:
    few = raw.copy().pick(raw.ch_names[:4])
    before = few.get_data()
    reference, notes = set_reference(few, "auto")
    assert reference == "as recorded"
    assert "4 channels" in notes[0]
    np.testing.assert_array_equal(few.get_data(), before)
    reference, notes = set_reference(few, "mastoids")
    assert "no good mastoid channels" in notes[0]
    few.rename_channels({"Fp1": "M1", "Fp2": "M2"})
    assert set_reference(few, "mastoids")[0] == "mastoids: M1, M2"
    np.testing.assert_allclose(few.get_data()[:2].sum(axis=0), 0, atol=1e-15)


def test_stored_projections_are_applied_but_no_average_reference(shared_data: Path) -> None:
    path = shared_data / "meg-layout" / "test-ave.fif.gz"
    evoked = mne.read_evokeds(path, condition=0, proj=False, verbose="error")
    info = evoked.info
    raw = mne.io.RawArray(evoked.data, info, verbose="error")
    stored = [str(p["desc"]) for p in raw.info["projs"]]
    assert any("Average EEG" in name for name in stored)
    (note,) = apply_projections(raw)
    assert "Average EEG" not in note
    magnetic = next(p for p in raw.info["projs"] if p["kind"] == 1)
    picks = [raw.ch_names.index(name) for name in magnetic["data"]["col_names"]]
    left = magnetic["data"]["data"] @ raw.get_data()[picks]
    assert np.abs(left).max() < 1e-3 * np.abs(raw.get_data()[picks]).max()
    assert apply_projections(raw) == []


def test_no_separation_without_calibration(shared_data: Path) -> None:
    path = shared_data / "meg-layout" / "test-ave.fif.gz"
    evoked = mne.read_evokeds(path, condition=0, proj=False, verbose="error")
    raw = mne.io.RawArray(evoked.data, evoked.info, verbose="error")
    same, notes = separate_signal_space(raw, None, None)
    assert same is raw
    assert notes == ["no SSS: there is no calibration of the machine"]
    units = describe_units(raw)
    assert sorted(set(units.kind.tolist())) == ["eeg", "grad", "mag"]
    helmet = units.positions[units.kind != "eeg"]
    assert 0.08 < np.linalg.norm(helmet - helmet.mean(axis=0), axis=1).mean() < 0.15


def test_bad_channels_are_interpolated_from_their_neighbours(raw: mne.io.BaseRaw) -> None:
    truth = raw.get_data(picks="Cz")[0]
    raw._data[raw.ch_names.index("Cz")] = 0
    raw.info["bads"] = ["Cz"]
    assert interpolate_bads(raw) == (["Cz"], [])
    assert raw.info["bads"] == []
    assert np.corrcoef(raw.get_data(picks="Cz")[0], truth)[0, 1] > 0.8


def test_what_cannot_be_interpolated_stays(raw: mne.io.BaseRaw) -> None:
    raw.info["bads"] = raw.ch_names[:12]
    assert interpolate_bads(raw) == ([], raw.ch_names[:12])
    few = raw.copy().pick(raw.ch_names[12:17], exclude=())
    few.info["bads"] = [few.ch_names[0]]
    assert interpolate_bads(few) == ([], [few.ch_names[0]])


def test_microvolts_are_corrected_where_the_table_says_so(raw: mne.io.BaseRaw) -> None:
    truth = raw.get_data()
    assert check_units(raw, {"µV"}, "sub-01") == []
    raw._data *= 1e6
    wrong = raw.copy()
    (note,) = check_units(raw, {"µV"}, "sub-01")
    assert "divided by a million" in note
    np.testing.assert_allclose(raw.get_data(), truth, rtol=1e-12)
    with pytest.raises(InputError, match="not in V") as caught:
        check_units(wrong, {"V"}, "sub-01, run 1")
    assert "microvolt read as volt" in caught.value.expected
    raw._data *= 1e-6
    with pytest.raises(InputError, match="not in V"):
        check_units(raw, set(), "sub-01")
    raw._data[:] = 3.0
    with pytest.raises(InputError, match="all channels are flat"):
        check_units(raw, set(), "sub-01")


def test_names_of_runs_agree(raw: mne.io.BaseRaw) -> None:
    common = list(raw.ch_names)
    spelled = raw.copy().rename_channels({"Fp1": "EEG FP1-REF", "Cz": "CZ."})
    (note,) = agree_on_channels(spelled, "eeg", common, "sub-01")
    assert "EEG FP1-REF is Fp1" in note
    assert spelled.ch_names == common
    shuffled = raw.copy().reorder_channels(common[::-1])
    assert agree_on_channels(shuffled, "eeg", common, "sub-01") == []
    np.testing.assert_array_equal(shuffled.get_data(), raw.get_data())
    (note,) = agree_on_channels(raw.copy(), "eeg", common[:-1], "sub-01")
    assert common[-1] in note
    with pytest.raises(InputError, match="missing or renamed") as caught:
        agree_on_channels(raw.copy().rename_channels({"Cz": "X7"}), "eeg", common, "sub-01")
    assert "no Cz; but X7" in caught.value.found
    with pytest.raises(InputError, match="channels of a run are missing"):
        agree_on_channels(raw.copy().drop_channels(["Cz"]), "eeg", common, "sub-01")
    with pytest.raises(InputError, match="no MEG channels"):
        agree_on_channels(raw.copy(), "meg", [], "sub-01")


def test_magnetic_sensors_have_orientations_and_electrodes_none(raw: mne.io.BaseRaw) -> None:
    assert not describe_units(raw).orientations.any()
    names = ["M1", "G1", "G2"]
    info = mne.create_info(names, 250.0, ["mag", "grad", "grad"])
    for channel, along in zip(info["chs"], np.eye(3)[[0, 0, 1]], strict=True):
        # x, y and z of a coil at (0, 0, 0.1) m; the second gradiometer is turned by 90 degrees.
        other = np.cross([0, 0, 1], along)
        channel["loc"][:] = np.concatenate([[0, 0, 0.1], along, other, [0, 0, 1]])
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    info["dev_head_t"] = mne.transforms.Transform("meg", "head", turn)
    units = describe_units(mne.io.RawArray(np.zeros((3, 10)), info, verbose="error"))
    expected = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]  # what it measures along, turned to the head
    np.testing.assert_allclose(units.orientations, expected, atol=1e-6)


def test_positions_come_from_a_template_only_where_unknown(raw: mne.io.BaseRaw) -> None:
    places = describe_units(raw).positions
    assert set_positions(raw, None, "sub-01") == []
    raw.set_montage(None)
    assert np.isnan(describe_units(raw).positions).all()
    (note,) = set_positions(raw, None, "sub-01")
    assert "template" in note
    np.testing.assert_allclose(describe_units(raw).positions, places, atol=1e-6)
    with pytest.raises(ConfigError, match="no montage of this name"):
        set_positions(raw, "my_cap", "sub-01")
    strange = raw.copy().rename_channels({name: f"E{n}" for n, name in enumerate(raw.ch_names)})
    strange.set_montage(None)
    (note,) = set_positions(strange, None, "sub-01")
    assert "the montage is not known" in note
    with pytest.raises(InputError, match="does not have these channels"):
        set_positions(strange, "standard_1005", "sub-01")
