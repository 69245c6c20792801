"""The configuration: files laid over each other, checked, explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from afterimage.config import template
from afterimage.config.load import check_config, load_config, merge
from afterimage.config.schema import Config
from afterimage.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    assert load_config() == Config()
    assert load_config([write(tmp_path / "empty.yaml", "")]) == Config()
    assert load_config([write(tmp_path / "words.yaml", "# only words\n")]) == Config()


def test_presets_are_configurations_of_their_own(tmp_path: Path) -> None:
    conn, xcp_d = (load_config([Path("presets") / name]) for name in ("conn", "xcp_d"))
    assert (conn.extract_series.high_pass_hz, conn.extract_series.low_pass_hz) == (0.008, 0.09)
    assert conn.extract_series.n_compcor == 10
    assert xcp_d.clean_bold.fd_threshold_mm == 0.3
    own = write(tmp_path / "own.yaml", "extract_series: {low_pass_hz: null}\n")
    both = load_config([Path("presets/xcp_d"), own])
    assert both.extract_series.low_pass_hz is None
    assert both.extract_series.confounds == xcp_d.extract_series.confounds
    with pytest.raises(ConfigError, match=r"conn, .*xcp_d"):
        load_config([Path("presets/fsl")])


def test_later_files_win_key_by_key(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", "evaluate: {n_bootstraps: 300, n_clusters: 5}\n")
    second = write(tmp_path / "b.yaml", "evaluate: {n_bootstraps: 400}\n")
    config = load_config([first, second])
    assert (config.evaluate.n_bootstraps, config.evaluate.n_clusters) == (400, 5)
    assert load_config([second, first]).evaluate.n_bootstraps == 300


def test_merge_leaves_its_arguments_alone() -> None:
    base: dict[str, Any] = {"a": {"b": 1}, "c": [1]}
    assert merge(base, {"a": {"d": 2}, "c": [3]}) == {"a": {"b": 1, "d": 2}, "c": [3]}
    assert base == {"a": {"b": 1}, "c": [1]}


@pytest.mark.parametrize(
    ("values", "where", "near"),
    [
        ({"evaluat": {}}, "evaluat", "evaluate"),
        ({"evaluate": {"n_bootstrap": 200}}, "evaluate.n_bootstrap", "n_bootstraps"),
        (
            {"train_decoder": {"decoders": {"ridge": {"n_fold": 2}}}},
            "train_decoder.decoders.ridge.n_fold",
            "n_folds",
        ),
        (
            {"reconstruct": {"methods": {"latent_diffusion": {"guidance": 2.0}}}},
            "reconstruct.methods.latent_diffusion.guidance",
            "guidance_scale",
        ),
        ({"prepare_responses": {"test_fractoin": 0.1}}, "prepare_responses.test_fractoin",
         "test_fraction"),
    ],
)  # fmt: skip
def test_unknown_key_names_the_nearest(values: dict[str, Any], where: str, near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(values)
    assert caught.value.exit_code == 78
    assert caught.value.where == where
    assert caught.value.fix == f"did you mean {near}?"
    assert near in caught.value.expected


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"evaluate": {"n_bootstraps": 5}}, "evaluate.n_bootstraps"),
        ({"evaluate": {"n_bootstraps": "many"}}, "evaluate.n_bootstraps"),
        ({"evaluate": {"near_duplicate": float("nan")}}, "evaluate.near_duplicate"),
        ({"prepare_responses": {"test_fraction": 1.0}}, "prepare_responses.test_fraction"),
        ({"random_state": -1}, "random_state"),
        ({"train_decoder": {"decoders": {"ceiling": {"kind": "ridge"}}}}, "train_decoder"),
        ({"train_decoder": {"decoders": {"my_ridge": {"kind": "ridge"}}}}, "train_decoder"),
        ({"train_decoder": {"decoders": {"other": {"kind": "nothing"}}}},
         "train_decoder.decoders.other"),
        ({"evaluate": 3}, "evaluate"),
    ],
)  # fmt: skip
def test_wrong_value_is_named(values: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(values)
    assert caught.value.where == where
    assert caught.value.found
    assert caught.value.expected
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("evaluate: [1,\n", "is not YAML"),
        ("- a\n- b\n", "holds no sections"),
        ("evaluate:\n\tn_bootstraps: 200\n", "is not YAML"),
    ],
)
def test_broken_file(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        load_config([write(tmp_path / "broken.yaml", text)])
    assert "broken.yaml" in caught.value.where


def test_named_entries_are_laid_over_the_default_ones() -> None:
    config = check_config(
        {
            "train_decoder": {
                "decoders": {
                    "ridge": {"n_folds": 3},
                    "bayesian": None,
                    "plain": {"kind": "ridge", "unit_weights": "equal"},
                }
            }
        }
    )
    decoders = config.train_decoder.decoders
    assert set(decoders) == {"ridge", "plain"}
    assert decoders["ridge"].n_folds == 3
    assert decoders["ridge"].alphas == Config().train_decoder.decoders["ridge"].alphas
    assert decoders["plain"].kind == "ridge"


def test_an_entry_of_another_kind_starts_from_its_own_defaults() -> None:
    config = check_config({"train_decoder": {"decoders": {"ridge": {"kind": "bayesian"}}}})
    default = Config().train_decoder.decoders["bayesian"]
    assert config.train_decoder.decoders["ridge"] == default


def test_root_seed_reaches_sections_without_their_own() -> None:
    config = check_config({"random_state": 7, "evaluate": {"random_state": 3}})
    assert config.section("reconstruct")["random_state"] == 7
    assert config.section("evaluate")["random_state"] == 3
    assert Config().section("reconstruct")["random_state"] == 0


def test_what_is_shown_reads_back_the_same() -> None:
    config = check_config(
        {
            "reconstruct": {"methods": {"latent_diffusion": None}},
            "evaluate": {"n_bootstraps": 333},
            "train_decoder": {"decoders": {"second": {"kind": "ridge"}}},
        }
    )
    assert check_config(yaml.safe_load(template.show(config))) == config
    assert "stimuli_digest" not in template.show(config)


def test_differences() -> None:
    assert template.differences(Config()) == []
    changed = check_config({"evaluate": {"n_bootstraps": 333}, "random_state": 2})
    assert template.differences(changed) == [
        ("evaluate.n_bootstraps", 1000, 333),
        ("random_state", 0, 2),
    ]


def test_reference_names_every_section() -> None:
    page = template.reference()
    for name in Config.model_fields:
        assert f"## {name}" in page
    assert "| `n_bootstraps` |" in page
    assert "stimuli_digest" not in page


def test_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().evaluate.n_bootstraps = 5
