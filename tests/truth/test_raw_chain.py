"""The whole chain on simulated raw scans at a ceiling of .6: what was planted comes out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon

from afterimage.bids.index import index_dataset
from afterimage.decoding.ridge import RidgeDecoder, RidgeSettings
from afterimage.features.gabor import GaborEncoder, GaborSettings
from afterimage.features.pixels import PixelsEncoder, PixelsSettings
from afterimage.io.arrays import open_dataset
from afterimage.io.images import read_image
from afterimage.io.tables import read_tsv
from afterimage.io.trials import average_repeats
from afterimage.stages import clean_bold, fit_responses, reference_bold, simulate_bold

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


class Chain:
    """One simulated subject, cleaned once; responses by any estimator.

    Attributes
    ----------
    planted : array of shape (n_trials, n_units)
    units : list of dict
        Truth of each unit: place, ceiling, peak of its response.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder / "dataset", folder / "out"
        simulate_bold.run(
            simulate_bold.Inputs(),
            simulate_bold.Outputs(description=self.folder / "dataset_description.json"),
            simulate_bold.Config(n_subjects=1, ceiling=0.6, missing_run=False),
        )
        truth = self.folder / "derivatives" / "simulation" / "sub-01"
        self.planted = np.load(truth / "sub-01_responses.npy")
        self.units = read_tsv(truth / "sub-01_units.tsv")
        self.rows = index_dataset(self.folder)
        self.out.mkdir()
        (self.out / "dataset_description.json").write_text("{}")
        stem = self.out / "sub-01"
        self.reference = stem / "sub-01_desc-reference_boldref.nii.gz"
        self.mask = stem / "sub-01_desc-brain_mask.nii.gz"
        bold = tuple(self.folder / row["bold"] for row in self.rows)
        reference_bold.run(
            reference_bold.Inputs(bold=bold, masks=(), boldrefs=()),
            reference_bold.Outputs(reference=self.reference, mask=self.mask),
            reference_bold.Config(),
        )
        self.cleaned = [self._clean(row) for row in self.rows]

    def _clean(self, row: dict[str, str]) -> clean_bold.Outputs:
        name = Path(row["bold"]).name.replace("_bold.nii.gz", "")
        stem = self.out / "sub-01" / f"ses-{row['session']}" / "func" / name
        outputs = clean_bold.Outputs(
            series=Path(f"{stem}_desc-clean_series.nc"),
            confounds=Path(f"{stem}_desc-confounds_timeseries.tsv"),
            quality=Path(f"{stem}_desc-bold_quality.nc"),
        )
        inputs = clean_bold.Inputs(
            bold=self.folder / row["bold"],
            sidecars=tuple(self.folder / part for part in row["sidecar"].split(";")),
            reference=self.reference,
            mask=self.mask,
        )
        clean_bold.run(inputs, outputs, clean_bold.Config())
        return outputs

    def fit(self, kind: str) -> dict[str, np.ndarray]:
        """Return the responses of the planted units and what describes them."""
        stem = self.out / "sub-01" / "sub-01"
        outputs = fit_responses.Outputs(
            trials=Path(f"{stem}_trials.nc"),
            split=Path(f"{stem}_split.tsv"),
            quality=Path(f"{stem}_quality.json"),
            maps=Path(f"{stem}_desc-responses_quality.nc"),
        )
        inputs = fit_responses.Inputs(
            series=tuple(one.series for one in self.cleaned),
            confounds=tuple(one.confounds for one in self.cleaned),
            events=tuple(self.folder / row["events"] for row in self.rows),
            reference=self.reference,
            mask=self.mask,
            rois=tuple(self.folder / part for part in self.rows[0]["rois"].split(";")),
            dataset=self.folder / "dataset_description.json",
            stimuli_table=self.folder / "stimuli" / "stimuli.tsv",
        )
        config = fit_responses.Config(estimator={"kind": kind}, write_betas=False)
        fit_responses.run(inputs, outputs, config)
        with open_dataset(outputs.trials) as trials:
            places = np.stack([trials[axis].values for axis in "ijk"], axis=1).tolist()
            index = {tuple(place): number for number, place in enumerate(places)}
            units = [index[tuple(int(unit[axis]) for axis in "ijk")] for unit in self.units]
            found = {
                "responses": trials["responses"].values[:, units],
                "ceiling": trials["ceiling"].values[units],
                "stimulus": trials["stimulus"].values.astype(str),
                "split": trials["split"].values.astype(str),
                "all": trials["responses"].values,
            }
            if "hrf_peak_s" in trials:
                found["peak_s"] = trials["hrf_peak_s"].values[units]
        return found


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def fits(chain: Chain) -> dict[str, dict[str, np.ndarray]]:
    return {kind: chain.fit(kind) for kind in ("lsa", "lss", "ridge_glm")}


def columnwise(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def test_ridge_is_closer_to_the_truth_than_lss_and_lss_than_lsa(chain, fits) -> None:
    r = {kind: columnwise(found["responses"], chain.planted) for kind, found in fits.items()}
    print({kind: round(float(np.median(values)), 3) for kind, values in r.items()})
    assert wilcoxon(r["ridge_glm"], r["lss"], alternative="greater").pvalue < 1e-6
    assert wilcoxon(r["lss"], r["lsa"], alternative="greater").pvalue < 1e-6


def test_response_times_are_found(chain, fits) -> None:
    planted = np.array([float(unit["hrf_peak_s"]) for unit in chain.units])
    share = (np.abs(fits["ridge_glm"]["peak_s"] - planted) <= 0.5).mean()
    print("peak within 0.5 s:", share)
    assert share >= 0.8


def test_ceilings_are_right(chain, fits) -> None:
    """The true ceiling of responses is their correlation with the planted ones, realised."""
    for kind in ("lss", "ridge_glm"):
        true = columnwise(fits[kind]["responses"], chain.planted)
        error = fits[kind]["ceiling"] - true
        print(kind, "median |error|", np.median(np.abs(error)), "bias", error.mean())
        assert np.median(np.abs(error)) < 0.05
        assert abs(error.mean()) < 0.05


def test_motion_is_recovered(chain) -> None:
    names = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
    errors = []
    for row, outputs in zip(chain.rows, chain.cleaned, strict=True):
        stem = Path(row["bold"].replace("_bold.nii.gz", "_motion.tsv"))
        truth = read_tsv(chain.folder / "derivatives" / "simulation" / stem)
        found = read_tsv(outputs.confounds)
        t, f = (np.array([[float(x[n]) for n in names] for x in rows]) for rows in (truth, found))
        errors.append(f - t)
    error = np.concatenate(errors)
    error -= np.median(error, axis=0)  # the reference image is one pose of many
    millimetres = np.sqrt((error[:, :3] ** 2).mean(axis=0))
    degrees = np.degrees(np.sqrt((error[:, 3:] ** 2).mean(axis=0)))
    print("rms", millimetres, "mm", degrees, "degrees; largest", np.abs(error).max(axis=0))
    assert millimetres.max() < 0.1
    assert degrees.max() < 0.1


def test_decoding_from_raw_is_nearly_that_from_the_truth(chain, fits) -> None:
    files = {
        row["stimulus_id"]: row["file"] for row in read_tsv(chain.folder / "stimuli/stimuli.tsv")
    }
    found = fits["ridge_glm"]
    names = np.unique(found["stimulus"])
    images = [read_image(chain.folder / "stimuli" / files[name]) for name in names]
    features = {
        "pixels": PixelsEncoder(PixelsSettings()).encode(images).reshape(len(names), -1),
        "gabor": GaborEncoder(GaborSettings()).encode(images).reshape(len(names), -1),
    }
    row_of = {name: number for number, name in enumerate(names)}
    train = found["split"] == "train"
    shown = found["stimulus"]
    scores = {}
    for source, responses in (("raw", found["all"]), ("planted", chain.planted)):
        rows = [row_of[name] for name in shown[train]]
        blocks = {name: values[rows] for name, values in features.items()}
        model = RidgeDecoder(RidgeSettings()).fit(responses[train], blocks, shown[train])
        averages, ids, _ = average_repeats(responses[~train], shown[~train])
        predicted = model.predict(averages)
        test = [row_of[name] for name in ids]
        scores[source] = {
            name: float(np.nanmean(columnwise(predicted[name], values[test])))
            for name, values in features.items()
        }
    print(scores)
    for name in features:
        assert scores["raw"][name] >= 0.9 * scores["planted"][name]
