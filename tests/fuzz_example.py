"""Every reader of files that afterimage did not write in this run, with small valid files for it.

A reader is a function of one path that reads all it can; it may only raise errors of ours.
"""

from __future__ import annotations

import functools
import gzip
import io
import json
import pickle
import runpy
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

made = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "bad_recordings_example.py")))


@dataclass(frozen=True)
class Reader:
    """One reader under test.

    Attributes
    ----------
    read : callable
        Takes the path of the file.
    seeds : callable
        Returns the valid files, bytes.
    name : str
        Name of the file, for readers that look at it.
    n_examples : int
        Of the long run; all readers together make 100,000.
    words : tuple of bytes
        What this format understands, for splices.
    beside : callable or None
        Takes the folder and writes what must stand beside the file.
    """

    read: Callable[[Path], Any]
    seeds: Callable[[], list[bytes]]
    name: str
    n_examples: int
    words: tuple[bytes, ...] = ()
    beside: Callable[[Path], Any] | None = None


def written(write: Callable[[Path], Any], name: str = "file") -> bytes:
    """Return what a writer writes to a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# ------------------------------------------------------------------- tables, JSON, YAML
TABLE = "stimulus_id\tfile\tsplit\na\ta.png\ttrain\nb\tü/b.png\ttest\nc\tn/a\tn/a\n".encode()
EVENTS = (
    b"onset\tduration\ttrial_type\tstim_file\n0.5\t1\tface\tstimuli/a.png\n"
    b"2.5\t1\tn/a\tb.png\n4\tn/a\trest\tn/a\n-1\t0\thouse\tc.png\n"
)
SERIES = b"left\tright\n" + b"".join(b"%d.5\t%d\n" % (n, n * n % 7) for n in range(40))
VOXELS = b"voxel_id,voxel_x,voxel_y,voxel_z,V1,LOC,nc_testset\n0,1,0,2,1,0,0.5\n1,2,1,1,0,1,0.25\n"
JSON = json.dumps(
    {"RepetitionTime": 2.0, "SliceTiming": [0, 0.5], "a": {"b": [None, True, "ü"]}}
).encode()
DESCRIPTION = json.dumps(
    {
        "Name": "x", "GeneratedBy": [{"Name": "fMRIPrep"}], "DatasetLinks": {"raw": "file:///x"},
        "SourceDatasets": [{"URL": "../../raw"}, {"URL": "https://example.org"}],
    }
).encode()  # fmt: skip
CONFIG = (
    b"random_state: 3\ntrain_decoder:\n  decoders:\n    ridge: {kind: ridge, n_folds: 3}\n"
    b"    other: null\nevaluate: {n_bootstraps: 100}\nreconstruct:\n  methods:\n    retrieval: "
    b"&a {kind: retrieval, embedding: gabor}\n    again: *a\n"
)


def read_table(path: Path) -> None:
    from afterimage.bids.stimuli import read_stimulus_table

    read_stimulus_table(path.parent)


def read_events(path: Path) -> None:
    from afterimage.bids.events import drop_late, read_events, stimulus_files

    found = read_events(path, subject="01", stimuli_dir=path.parent)
    assert np.isfinite(found.onsets_s).all()
    stimulus_files([drop_late(found, 1e6)])


def read_prepared_series(path: Path) -> None:
    from afterimage.stages import prepare_series

    values, names = prepare_series._read(path)
    prepare_series._units(None, values.shape, names, str(path))


def read_published_table(path: Path) -> None:
    from afterimage.datasets.things_tables import read_rows, unit_rows

    rows = read_rows(path, ("voxel_id",))
    if rows:
        unit_rows(rows, ("all",), path.parent, "01", [])


def read_object(path: Path) -> None:
    from afterimage.io.tables import read_json

    read_json(path)


def read_sidecar(path: Path) -> None:
    """Read a JSON file as the sidecar of an image, and ask it for times."""
    from afterimage.bids.sidecars import read_sidecars
    from afterimage.io.nifti import BoldFile, repetition_time_s
    from afterimage.preprocess.fmri.slice_timing import read_slice_timing

    sidecar = read_sidecars([path])
    bold = BoldFile(path, (4, 4, 2), 5, np.eye(4), 2.0, "sec", None)  # type: ignore[arg-type]
    repetition_time_s(bold, sidecar)
    read_slice_timing(sidecar, (4, 4, 2), 2.0, str(path))


def read_description(path: Path) -> None:
    from afterimage.bids import derivatives
    from afterimage.bids.description import describe_derivatives

    derivatives.is_fmriprep(str(path.parent))
    derivatives.is_xcp_d(str(path.parent))
    derivatives.linked_raw_dataset(str(path.parent))
    describe_derivatives(path.parent / "out", path.parent)


def read_config(path: Path) -> None:
    from afterimage.config.load import load_config

    load_config([path])


# ------------------------------------------------------------------------------- arrays
def read_npy(path: Path) -> None:
    from afterimage.io.arrays import open_npy

    np.asarray(open_npy(path)[:1]).sum()


def pickles() -> list[bytes]:
    value = {
        "data": np.arange(12.0).reshape(3, 4), "names": ["a", "b"], "rate": np.float32(3),
        "more": ({1, 2}, (None, True, b"x", 2**70), np.array(["a", "bb"])),
        "objects": np.array([{"a": 1}, None], dtype=object),
    }  # fmt: skip
    large = {"data": np.zeros(20_000, np.float64)}
    found = [pickle.dumps(value, protocol) for protocol in (0, 2, 4)]
    return [
        *found,
        pickle.dumps(large, 4),
        npy(np.arange(6.0)),
        npy(np.array(value, dtype=object)),
    ]


def read_pickled(path: Path) -> None:
    from afterimage.io.pickles import read_pickle

    read_pickle(path)


def tokens() -> list[bytes]:
    from afterimage.io.tokens import RecordedTokens, write_tokens

    one = RecordedTokens(
        np.zeros((2, 3, 1), np.int16), np.array(["a", "b"]), np.ones(3, bool), {"name": "x"}
    )
    return [written(lambda p: write_tokens(p, p.with_suffix(".json"), [one], {}), "file.npz")]


def read_tokens(path: Path) -> None:
    from afterimage.io.tokens import read_tokens

    read_tokens(path, path.with_suffix(".json"))


def weights() -> list[bytes]:
    from afterimage.io.weights import save_weights

    arrays = {"a": np.zeros((3, 4), np.float32), "b": np.arange(5, dtype=np.int64)}
    return [written(lambda p: save_weights(p, arrays, {}), "file.safetensors")]


def read_weights(path: Path) -> None:
    from afterimage.io.weights import load_weights
    from afterimage.reconstruction.pipeline_folder import read_header

    for read in (load_weights, functools.partial(load_weights, mapped=True)):
        try:
            arrays, _ = read(path)
        except Exception as error:
            if not hasattr(error, "fix"):
                raise
        else:
            sum(float(np.asarray(value, np.float64).sum()) for value in arrays.values())
    read_header(path)


# ----------------------------------------------------------------------------- pictures
def pictures(*kinds: str) -> list[bytes]:
    from PIL import Image

    values = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    found = []
    for kind in kinds:
        for mode in ("RGB", "L") + ("RGBA", "P") * (kind in ("PNG", "TIFF")):
            stream = io.BytesIO()
            Image.fromarray(values).convert(mode).save(stream, format=kind)
            found.append(stream.getvalue())
    return found


def read_picture(path: Path) -> None:
    from afterimage.io.images import read_image

    assert read_image(path).ndim == 3


# ------------------------------------------------------------------------------- images
def images(packed: bool) -> list[bytes]:
    import nibabel

    found = []
    for dtype, shape in (
        (np.int16, (4, 5, 3, 6)),
        (np.float32, (3, 3, 2, 4)),
        (np.uint8, (5, 4, 3)),
    ):
        values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
        image = nibabel.Nifti1Image(values, np.diag([2, 2, 2, 1.0]))
        image.header.set_xyzt_units("mm", "sec")
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"hello"))
        data = image.to_bytes()
        found.append(gzip.compress(data, 1) if packed else data)
    return found


def read_scan(path: Path) -> None:
    """Read a run of BOLD in blocks, or a mask."""
    from afterimage.errors import InputError
    from afterimage.io.nifti import open_bold, read_volume, repetition_time_s

    try:
        bold = open_bold(path)
    except InputError:
        read_volume(path)
        return
    try:
        repetition_time_s(bold, {})
    except InputError:
        repetition_time_s(bold, {"RepetitionTime": 2.0}, "sidecar")
    for _, block in bold.blocks():
        assert block.dtype == np.float32


# --------------------------------------------------------------------- series and trials
def series() -> list[bytes]:
    from afterimage.io.series import write_series

    units = {"kind": np.array(["eeg"] * 3), "name": np.array(["a", "b", "c"]), "x": np.zeros(3)}
    rest = {"start_time_s": 0.0, "source": "x", "problem": ""}
    voxels = rest | {"t_r_s": 2.0, "affine": np.eye(4).ravel(), "shape": np.array([1, 1, 3])}
    return [
        written(
            lambda p, a=attributes: write_series(p, np.zeros((9, 3)), units, a, np.zeros(9, bool))
        )
        for attributes in (rest | {"sampling_rate_hz": 100.0}, voxels)
    ]


def read_series(path: Path) -> None:
    from afterimage.io.series import open_series

    with open_series(path) as found:
        found.read()
        found.times_s, found.censored  # noqa: B018  (read when asked for)


def trials() -> list[bytes]:
    from afterimage.io.trials import write_trials

    rows = {"stimulus": np.array(["a", "b"]), "split": np.array(["train", "test"]),
            "subject": np.array(["1", "1"])}  # fmt: skip
    units = {"kind": np.array(["eeg"] * 3), "x": np.zeros(3)}
    return [
        written(
            lambda p, s=shape, t=times: write_trials(
                p, [np.zeros(s, np.float32)], rows, units, t, {}
            )
        )
        for shape, times in (((2, 3), None), ((2, 3, 4), np.arange(4.0)))
    ]


def read_trials(path: Path) -> None:
    from afterimage.io.trials import read_layout, read_responses

    read_responses(path, "train")
    read_layout(path)


def blocks() -> list[bytes]:
    from afterimage.io.arrays import block_writer

    def write(path: Path) -> None:
        with block_writer(path) as writer:
            writer.group("ridge", ["a", "b"])
            writer.write("ridge", "gabor", [np.zeros((2, 6))], (2, 3), {"encoder": "{}"})

    return [written(write)]


def read_features(path: Path) -> None:
    from afterimage.io.arrays import block_shapes, groups_of, open_blocks, read_blocks

    for group in groups_of(path):
        read_blocks(path, group)
        block_shapes(path, group)
        with open_blocks(path, group) as found:
            for block in found.values():
                block.columns(slice(0, 2))


def betas() -> list[bytes]:
    import h5py

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            file["betas"] = np.zeros((750, 2, 2, 2), np.int16)

    return [written(write)]


def read_betas(path: Path) -> None:
    from afterimage.datasets.nsd_files import read_betas

    for block in read_betas(path, np.ones((2, 2, 2), bool)):
        assert block.dtype == np.float32


def voxel_table() -> list[bytes]:
    import h5py

    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            group = file.create_group("ResponseData")
            group["block0_values"] = np.zeros((3, 4))
            group["block0_items"] = np.array([b"0", b"1", b"2", b"3"])
            group["block1_values"] = np.arange(3)[:, None]
            group["block1_items"] = np.array([b"voxel_id"])

    return [written(write)]


def read_voxel_table(path: Path) -> None:
    from afterimage.datasets.things_tables import ResponseTable

    with ResponseTable(path, 4) as table:
        table.check_voxels([0, 1, 2], path)
        table.read(np.arange(2))


def designs() -> list[bytes]:
    from scipy.io import savemat

    images = np.tile(np.arange(1, 11, dtype=float), (8, 1))
    values = {"masterordering": np.arange(1.0, 9), "subjectim": images, "sharedix": images[:1, :3]}

    def write(path: Path) -> None:
        savemat(path, values)

    return [written(write, "file.mat")]


def read_design(path: Path) -> None:
    from afterimage.datasets.nsd_design import read_design

    read_design(path.parents[3])


# --------------------------------------------------------------------------- recordings
def run_file(label: str, ending: str) -> Path:
    (path,) = (made.study() / f"sub-{label}").rglob(f"*{ending}")
    return Path(path)


def copy_run(label: str) -> Callable[[Path], Any]:
    """Copy the folder of a run, so that one of its files can be replaced."""

    def copy(folder: Path) -> None:
        source = run_file(label, "_events.tsv").parent
        shutil.copytree(source, folder, dirs_exist_ok=True)

    return copy


def read_recording(path: Path) -> None:
    from afterimage.bids.sidecars import read_sidecars
    from afterimage.io.recordings import listed_channels, open_recording, table_units

    folder = path.parent
    tables = [*folder.glob("*_channels.tsv"), *folder.glob("*_electrodes.tsv")]
    listed_channels(tables)
    sidecar = read_sidecars(folder.glob("*eg.json"))
    recording = next(
        found for ending in ("vhdr", "edf", "fif") for found in folder.glob(f"*eg.{ending}")
    )
    raw = open_recording(recording, sidecar, recording.name).raw
    assert raw.n_times > 0
    table_units(tables, raw.ch_names)


def recording(label: str, ending: str, n_examples: int, *words: bytes) -> Reader:
    return Reader(
        read_recording, lambda: [run_file(label, ending).read_bytes()],
        f"sub-{label}/{'meg' if label == 'fif' else 'eeg'}/sub-{label}_task-pictures_run-01{ending}"
        if ending not in ("_electrodes.tsv", "_coordsystem.json")
        else f"sub-{label}/eeg/sub-{label}_space-CapTrak{ending}",
        n_examples, words, copy_run(label),
    )  # fmt: skip


CELLS = (b"\t", b"\n", b"\r", b"n/a", b"nan", b"1e999", b"-0", b"../../x", b"<b>", b"\x00", b'"')
MARKS = (
    b"{",
    b"[",
    b'"',
    b":",
    b",",
    b"null",
    b"1e999",
    b"NaN",
    b"[" * 3000,
    b"9" * 5000,
    b"\\u0000",
)
YAML = (
    *MARKS,
    b"&a",
    b"*a",
    b"!!python/object:os.system",
    b"<<: ",
    b"? ",
    b"2020-99-99",
    b"0o9",
    b"- ",
)
KEYS = (b"DataFile=../x", b"NumberOfChannels=99999999", b"SamplingInterval=0", b"=", b"[", b"\n",
        b"Ch1=", b"Mk1=Stimulus,S  1,99999999999,1,0", b"BinaryFormat=INT_32", b"nan")  # fmt: skip
PICKLED = (b"cos\nsystem\n", b"\x85" * 3000, b"\x85R.", b"}", b"\x8c", b"\x94", b"u", b"s", b"\x8f",
           b"\x90",
           b"L" + b"9" * 5000 + b"L\n", b"\x8b\xff\xff\xff\x7f", b"(" * 200, b"l", b"t", b"b", b"0",
           b"2")  # fmt: skip
#: Every reader; the numbers of the long run make 100,000.
READERS: dict[str, Reader] = {
    "stimuli.tsv": Reader(read_table, lambda: [TABLE], "stimuli.tsv", 10_000, CELLS),
    "events.tsv": Reader(read_events, lambda: [EVENTS], "sub-01_events.tsv", 10_000, CELLS),
    "timeseries.tsv": Reader(read_prepared_series, lambda: [SERIES], "x_timeseries.tsv", 5_000, CELLS),
    "published table": Reader(read_published_table, lambda: [VOXELS], "voxels.csv", 5_000, (*CELLS, b",")),
    "JSON": Reader(read_object, lambda: [JSON], "x.json", 6_000, MARKS),
    "sidecar": Reader(read_sidecar, lambda: [JSON], "x_bold.json", 6_000, MARKS),
    "dataset_description": Reader(
        read_description, lambda: [DESCRIPTION], "dataset_description.json", 3_000, (*MARKS, b"http://[")
    ),
    "configuration": Reader(read_config, lambda: [CONFIG], "config.yaml", 5_000, YAML),
    "npy": Reader(read_npy, lambda: [npy(np.arange(12.0).reshape(3, 4)), npy(np.ones(3, "i2"))], "x.npy",
                  8_000, (b"PK\x03\x04", b"(", b"1" * 30, b"'O'", b"|O", b"-", b"<U9999999999")),
    "pickle": Reader(read_pickled, pickles, "x.npy", 9_000, PICKLED),
    "tokens": Reader(read_tokens, tokens, "x_tokens.npz", 3_000, (b"PK\x01\x02", b"(9999999999, "),
                     lambda folder: (folder / "x_tokens.json").write_text('{"recordings": [{"name": "x"}]}')),
    "safetensors": Reader(read_weights, weights, "x.safetensors", 5_000, (*MARKS, b"-1", b"F64"),
                          lambda folder: (folder / "x.json").write_text("{}")),
    "PNG, JPEG, WebP": Reader(read_picture, lambda: pictures("PNG", "JPEG", "WEBP"), "x.png", 5_000,
                              (b"IHDR", b"iTXt", b"acTL", b"eXIf", b"\xff\xc0", b"\xff\xe1", b"VP8X",
                               b"%!PS")),
    "GIF, BMP, TIFF": Reader(read_picture, lambda: pictures("GIF", "BMP", "TIFF"), "x.gif", 5_000,
                             (b"GIF89a", b"!\xff", b"BM", b"II*\x00", b"MM\x00*")),
    "NIfTI": Reader(read_scan, lambda: images(False), "x_bold.nii", 4_000, (b"n+1\x00", b"\x00\x00\xc0\x7f")),
    "packed NIfTI": Reader(read_scan, lambda: images(True), "x_bold.nii.gz", 3_000, (b"\x1f\x8b\x08",)),
    "series": Reader(read_series, series, "x_series.nc", 1_200),
    "trials": Reader(read_trials, trials, "x_trials.nc", 1_000),
    "features": Reader(read_features, blocks, "x_features.nc", 1_000),
    "betas": Reader(read_betas, betas, "betas.hdf5", 800),
    "voxel table": Reader(read_voxel_table, voxel_table, "x.h5", 800),
    "design": Reader(read_design, designs, "nsddata/experiments/nsd/nsd_expdesign.mat", 1_200),
    "BrainVision header": recording("vision", "_eeg.vhdr", 600, *KEYS),
    "BrainVision markers": recording("vision", "_eeg.vmrk", 300, *KEYS),
    "channels.tsv": recording("vision", "_channels.tsv", 300, *CELLS),
    "electrodes.tsv": recording("vision", "_electrodes.tsv", 200, *CELLS),
    "coordsystem.json": recording("vision", "_coordsystem.json", 200, *MARKS),
    "EDF": recording("edf", "_eeg.edf", 200, b"-1      ", b"99999999", b"EDF+D", b"0       "),
    "FIF": recording("fif", "_meg.fif", 200, b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff"),
}  # fmt: skip
