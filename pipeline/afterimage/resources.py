"""Where the workflow, its profiles and the shipped data lie: in the repository or in the wheel."""

from __future__ import annotations

from pathlib import Path

from afterimage.errors import ConfigError


def resource_root() -> Path:
    """Return the folder that holds ``Snakefile``, ``workflows/`` and ``data/``."""
    bundled = Path(__file__).parent / "bundle"
    return bundled if bundled.is_dir() else Path(__file__).resolve().parents[2]


def model_folder(path: str) -> Path:
    """Resolve the path of a model folder; ``tiny/<name>`` names the weights this project ships.

    Parameters
    ----------
    path : str
        A folder on disk (absolute, or relative to the current folder), or ``tiny/<name>``.

    Raises
    ------
    ConfigError
        If there is no such folder.
    """
    folder = resource_root() / "data" / path if path.startswith("tiny/") else Path(path)
    folder = folder.expanduser()
    if not folder.is_dir():
        raise ConfigError(
            "a model folder does not exist",
            found=str(folder),
            expected="a local folder written by save_pretrained, or tiny/clip, tiny/git, tiny/generator",
            fix="download the model first and give the path of its folder; nothing is fetched",
        )
    return folder.resolve()
