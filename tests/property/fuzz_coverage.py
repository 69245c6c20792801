"""Fuzz one reader guided by coverage: what reaches a new line is kept, and mutated further.

    python tests/property/fuzz_coverage.py READER [--runs N] [--seed N]

atheris (pip install 'afterimage[fuzz]') watches the lines of this package. A file that is neither
read nor refused with an error of ours, or takes longer than a second, ends the program with a traceback
and exit code 77.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import atheris

#: Of one file, and of the process.
TIMEOUT_S, MEMORY_MB = 20, 3000


def main() -> None:
    here = Path(__file__).parent
    with atheris.instrument_imports(include=["afterimage"]):
        suite = SimpleNamespace(**runpy.run_path(str(here / "test_fuzz_readers.py")))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("reader", choices=suite.fuzz.READERS, metavar="READER",
                        help="one of: " + ", ".join(suite.fuzz.READERS))  # fmt: skip
    parser.add_argument(
        "--runs", type=int, default=-1, help="files to try; default: until stopped"
    )
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    reader = suite.fuzz.READERS[asked.reader]
    fuzzed = suite.Fuzzed(reader)
    with tempfile.TemporaryDirectory() as folder:
        seeds, words = Path(folder) / "seeds", Path(folder) / "words"
        seeds.mkdir()
        with atheris.instrument_imports(include=["afterimage"]):
            for number, data in enumerate(reader.seeds()):
                (seeds / str(number)).write_bytes(data)
                fuzzed.path.write_bytes(data)
                reader.read(fuzzed.path)  # imports what it needs
        lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in reader.words)
        words.write_text("".join(f'"{line}"\n' for line in lines if 0 < len(line) <= 4 * 64))
        options = [f"-runs={asked.runs}", f"-seed={asked.seed}", f"-timeout={TIMEOUT_S}",
                   f"-rss_limit_mb={MEMORY_MB}", "-max_len=65536", f"-artifact_prefix={folder}/"]  # fmt: skip
        if reader.words:
            options.append(f"-dict={words}")
        # h5netcdf complains, unheard, of files that could not be opened.
        sys.unraisablehook = lambda unraisable: None
        atheris.Setup([__file__, *options, str(seeds)], fuzzed, enable_python_coverage=True)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
