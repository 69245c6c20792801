"""Names, tables, splits and configurations keep their promises for any input."""

from __future__ import annotations

import re
import string
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from afterimage.bids.names import camel_case, entity, stimulus_labels, unit_of
from afterimage.config.load import merge
from afterimage.config.template import flatten
from afterimage.io.arrays import block_shapes, block_writer, groups_of, open_npy, read_blocks
from afterimage.io.tables import read_tsv, write_tsv
from afterimage.io.trials import average_repeats, read_averages, read_responses, write_trials
from afterimage.io.weights import load_weights, save_weights
from afterimage.preprocess.responses import repeat_index, scan_responses, seeded_split

ids = st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=20, unique=True)
words = st.text(string.ascii_letters + string.digits + "_- ", min_size=1).filter(
    lambda text: any(letter.isalnum() for letter in text)
)
labels = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
names = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(ids)
def test_stimulus_labels_are_labels_and_differ(stimuli: list[str]) -> None:
    found = stimulus_labels(stimuli)
    assert list(found) == stimuli
    assert all(re.fullmatch("[a-zA-Z0-9]+", label) for label in found.values())
    # Files differ also where the file system does not tell capitals from small letters.
    assert len({label.lower() for label in found.values()}) == len(stimuli)


@given(ids, st.randoms(use_true_random=False))
def test_stimulus_labels_do_not_depend_on_order(stimuli: list[str], random: object) -> None:
    shuffled = list(stimuli)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert stimulus_labels(shuffled) == stimulus_labels(stimuli)


@given(st.lists(words, min_size=1, max_size=4))
def test_camel_case_is_a_label(parts: list[str]) -> None:
    label = camel_case(*parts)
    assert re.fullmatch("[a-zA-Z0-9]+", label)
    letters = "".join(letter for part in parts for letter in part if letter.isalnum())
    assert label.lower() == letters.lower()
    assert camel_case(label) == label


@given(labels, labels, labels)
def test_entities_come_back(subject: str, stimulus: str, description: str) -> None:
    name = f"sub-{subject}_stim-{stimulus}_desc-{description}_recon.png"
    path = Path("sub-x/recon") / name
    assert entity(path, "stim") == stimulus
    assert entity(path, "desc") == description
    assert unit_of(path) == f"sub-{subject}"


def clean(text: str) -> str:
    return re.sub(r"[\t\r\n\0]", " ", text).strip() or "n/a"


@given(st.data())
def test_tables_come_back(data: st.DataObject) -> None:
    columns = data.draw(st.lists(names, min_size=1, max_size=5, unique=True))
    row = st.fixed_dictionaries(dict.fromkeys(columns, cells))
    rows = data.draw(st.lists(row, max_size=6))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.tsv"
        write_tsv(path, rows, columns)
        found = read_tsv(path, required=columns)
        assert found == [{key: clean(value) for key, value in row.items()} for row in rows]
        write_tsv(path, found, columns)
        assert read_tsv(path) == found


@given(st.floats(width=32), st.integers(), st.none())
def test_numbers_come_back(number: float, whole: int, nothing: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.tsv"
        row = {"a": number, "b": np.float32(number), "c": whole, "d": nothing}
        write_tsv(path, [row], list(row))
        (found,) = read_tsv(path)
    assert found["c"] == str(whole)
    assert found["d"] == "n/a"
    for key in "ab":
        if np.isfinite(number):
            assert np.float32(found[key]) == np.float32(number)
        else:
            assert found[key] == "n/a"


@given(ids.filter(lambda found: len(found) > 1), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_seeded_split(stimuli: list[str], fraction: float, random_state: int) -> None:
    split = seeded_split(stimuli, fraction, random_state)
    assert set(split) == set(stimuli)
    test = {name for name, value in split.items() if value == "test"}
    train = {name for name, value in split.items() if value == "train"}
    assert train | test == set(stimuli)
    assert not train & test
    assert train
    assert test
    assert abs(len(test) - fraction * len(stimuli)) <= 1
    # Neither order nor repetition, which differ between subjects, changes it.
    assert seeded_split([*reversed(stimuli), stimuli[0]], fraction, random_state) == split


def test_seeded_split_depends_on_its_seed() -> None:
    stimuli = [f"picture{index}" for index in range(40)]
    assert len({str(seeded_split(stimuli, 0.2, seed)) for seed in range(5)}) == 5


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_repeats_are_counted(stimuli: list[str]) -> None:
    repeats = repeat_index(np.array(stimuli))
    assert len(set(zip(stimuli, repeats.tolist(), strict=True))) == len(stimuli)
    for name in set(stimuli):
        own = [r for s, r in zip(stimuli, repeats.tolist(), strict=True) if s == name]
        assert own == list(range(len(own)))


values = st.sampled_from([0.0, 1.0, -2.5, np.nan, np.inf])


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 6)), elements=values),
       st.integers(1, 9))  # fmt: skip
def test_scan_does_not_depend_on_chunks(responses: np.ndarray, size: int) -> None:
    scan = scan_responses(responses[i : i + size] for i in range(0, len(responses), size))
    finite = np.isfinite(responses)
    assert scan.never_finite.tolist() == (~finite.any(axis=0)).tolist()
    for unit, column in enumerate(responses.T):
        varied = len(set(column[np.isfinite(column)].tolist()))
        assert scan.constant[unit] == (varied == 1)
    bad = ~finite[:, scan.usable].all(axis=1)
    assert scan.bad_trials.tolist() == np.flatnonzero(bad).tolist()


def test_averages_of_a_file_are_those_of_its_trials(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    responses = rng.normal(size=(600, 3, 2)).astype(np.float32)  # more than one batch
    stimuli, split = rng.choice(list("abcdef"), 600), rng.choice(["train", "test"], 600)
    path = tmp_path / "sub-01_trials.nc"
    trials = {"stimulus": stimuli, "split": split}
    units = {"kind": np.array(["eeg"] * 3)}
    write_trials(path, [responses], trials, units, np.array([0.0, 0.1]), {})
    for tmax_s in (None, 0.05):
        found = read_averages(path, "train", tmax_s=tmax_s)
        expected = average_repeats(*read_responses(path, "train", tmax_s=tmax_s))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_averages_do_not_depend_on_order(n_trials: int, n_units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    responses = rng.integers(-9, 9, (n_trials, n_units)).astype(np.float32)
    stimuli = rng.choice(["a", "b", "c"], n_trials)
    order = rng.permutation(n_trials)
    mean, found, counts = average_repeats(responses, stimuli)
    again, found_again, _ = average_repeats(responses[order], stimuli[order])
    np.testing.assert_array_equal(mean, again)
    np.testing.assert_array_equal(found, found_again)
    assert counts.sum() == n_trials
    for row, name in zip(mean, found, strict=True):
        np.testing.assert_allclose(row, responses[stimuli == name].mean(axis=0), rtol=1e-6)


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(trees, trees)
def test_merge_lays_one_over_the_other(base: dict, over: dict) -> None:
    merged = merge(base, over)
    flat = flatten(merged)
    assert merge(merged, over) == merged
    assert merge(base, {}) == base
    assert merge({}, over) == over
    for key, value in flatten(over).items():
        assert flat[key] == value


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_trials_come_back(data: st.DataObject) -> None:
    n_trials, n_units = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 5))
    n_times = data.draw(st.none() | st.integers(1, 4))
    shape = (n_trials, n_units) if n_times is None else (n_trials, n_units, n_times)
    finite = st.floats(-1e6, 1e6, width=32)
    responses = data.draw(arrays(np.float32, shape, elements=finite))
    text = st.text(string.printable.strip() + "äβ", min_size=1, max_size=8)
    stimuli = np.array(data.draw(st.lists(text, min_size=n_trials, max_size=n_trials)))
    parts = st.lists(st.sampled_from(["train", "test"]), min_size=n_trials, max_size=n_trials)
    split = np.array(data.draw(parts))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trials.nc"
        times = None if n_times is None else np.arange(n_times) / 10
        write_trials(
            path, iter(np.array_split(responses, 3)), {"stimulus": stimuli, "split": split},
            {"kind": np.full(n_units, "voxel")}, times, {"subject": "01"},
        )  # fmt: skip
        for name in ("train", "test"):
            found, found_stimuli = read_responses(path, name)
            rows = split == name
            np.testing.assert_array_equal(
                found, responses[rows].reshape(rows.sum(), n_units * (n_times or 1))
            )
            assert found_stimuli.tolist() == stimuli[rows].tolist()
        if n_times:
            found, _ = read_responses(path, "train", 0.0, 0.0)
            first = responses[split == "train"][:, :, 0]
            np.testing.assert_array_equal(found, first)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 6), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 4))
def test_blocks_come_back(n: int, shape: list[int], size: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, *shape)).astype(np.float32)
    stimuli = [f"picture {index}" for index in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "blocks.nc"
        with block_writer(path) as writer:
            for group in ("brain", "mean"):
                writer.group(group, stimuli)
                chunks = (values[i : i + size] for i in range(0, n, size))
                writer.write(group, "clip", chunks, tuple(shape), {"note": "x"})
        assert groups_of(path) == ["brain", "mean"]
        assert block_shapes(path, "mean") == {"clip": tuple(shape)}
        found, blocks = read_blocks(path, "brain")
        assert found.tolist() == stimuli
        np.testing.assert_array_equal(blocks["clip"], values.reshape(n, int(np.prod(shape))))
        assert [item.name for item in Path(folder).iterdir()] == ["blocks.nc"]


@settings(max_examples=12, deadline=None)
@given(st.dictionaries(names, arrays(np.float32, (2, 3)), min_size=1, max_size=4))
def test_weights_come_back(given_arrays: dict[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_weights(path, given_arrays, {"name": "ä"})
        found, card = load_weights(path)
    assert card == {"name": "ä"}
    assert set(found) == set(given_arrays)
    for name, array in given_arrays.items():
        np.testing.assert_array_equal(found[name], array)


@settings(max_examples=12, deadline=None)
@given(arrays(st.sampled_from([np.float16, np.float64, np.int16, np.uint8, np.bool_]),
              st.tuples(st.integers(1, 4), st.integers(1, 4))), st.booleans())  # fmt: skip
def test_numeric_arrays_are_read(array: np.ndarray, fortran: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "responses.npy"
        np.save(path, np.asfortranarray(array) if fortran else array)
        np.testing.assert_array_equal(np.array(open_npy(path)), array)
