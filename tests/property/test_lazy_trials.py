"""Trials cut from series are the same as stored trials, whatever is asked for."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.io.trials import open_reader, open_trials

example = runpy.run_path(str(Path(__file__).resolve().parents[1] / "lazy_example.py"))
write_both = example["write_both"]


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_lazy_is_stored(data: st.DataObject) -> None:
    n_units = data.draw(st.integers(1, 6))
    n_times = data.draw(st.integers(1, 30))
    n_trials = data.draw(st.integers(1, 30))
    runs = st.lists(st.integers(n_times, 4 * n_times), min_size=1, max_size=3)
    columns = data.draw(st.permutations(range(n_units + 1)))[:n_units]
    with tempfile.TemporaryDirectory() as name:
        stored, lazy, _ = write_both(
            Path(name), n_units=n_units, n_samples=tuple(data.draw(runs)), n_trials=n_trials,
            n_times=n_times, columns=np.array(columns), whiten=data.draw(st.booleans()),
            seed=data.draw(st.integers(0, 99)),
        )  # fmt: skip
        rows = np.array(data.draw(st.lists(st.integers(0, n_trials - 1))), dtype=int)
        limits = sorted(data.draw(st.tuples(st.integers(-15, 35), st.integers(-15, 35))))
        found = []
        for path in (lazy, stored):
            with open_reader(path) as reader:
                window = reader.window(limits[0] / 100, limits[1] / 100)
                found.append(reader.read(rows, times=window))
        np.testing.assert_allclose(*found, atol=2e-4)
        index = {
            "trial": data.draw(st.one_of(st.integers(0, n_trials - 1), st.just(rows))),
            "unit": data.draw(
                st.one_of(st.integers(0, n_units - 1), st.just(slice(None, None, 2)))
            ),
            "time": data.draw(st.one_of(st.integers(0, n_times - 1), st.just(slice(1, None)))),
        }
        with open_trials(lazy) as one, open_trials(stored) as other:
            np.testing.assert_allclose(
                one["responses"].isel(index), other["responses"].isel(index), atol=2e-4
            )
