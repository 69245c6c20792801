"""Generate connectivity by demographics, free it of them, and check both on held-out people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from afterimage.bids.names import entity
from afterimage.connectivity.demovae import DemoVAE, draw_demographics, repaired
from afterimage.errors import AfterimageError, InputError
from afterimage.evaluation import generative
from afterimage.evaluation.fingerprint import Score
from afterimage.evaluation.phenotypes import make_folds
from afterimage.io.arrays import write_dataset
from afterimage.io.tables import write_tsv
from afterimage.settings import StageConfig
from afterimage.stages.phenotype_files import People, read_column, read_people
from afterimage.stages.runner import record_skipped

VERSION = 3
CITES = ("orlichenko2024",)

log = logging.getLogger("afterimage")

COLUMNS = (
    "check", "demographic", "value", "ci_low", "ci_high", "chance", "chance_low", "chance_high",
    "p", "ceiling", "n", "protocol",
)  # fmt: skip
PEOPLE_TABLE = "participants.tsv"
#: Fewer people than this cannot be split into those to train on and those to check on.
FEWEST = 30


class Config(StageConfig):
    """What connectivity is generated from."""

    enabled: bool = Field(False, description="train the generative model of connectivity")
    seg: str = Field("", description="set of regions; empty: the first")
    measure: str = Field(
        "correlation", description="measure of connectivity, with a diagonal of 1"
    )
    demographics: tuple[str, ...] = Field(
        ("age", "sex"), description="columns of participants.tsv: numbers, or categories"
    )
    harmonise: str = Field(
        "", description="one of them (as site): everybody is rewritten to its most frequent value"
    )
    group_column: str = Field(
        "", description="column of participants.tsv, as family: never on both sides of the split"
    )
    n_held_out_parts: int = Field(
        4, ge=2, description="one in so many people is held out for the checks"
    )
    n_components: int = Field(
        30, ge=1, description="principal components of connectivity; the rest is not in samples"
    )
    latent_size: int = Field(
        20, ge=1, description="latent numbers a person, at most: as many as components above noise"
    )
    n_epochs: int = Field(600, ge=1, description="passes over the training people")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    n_samples: int = Field(1000, ge=10, description="people that are generated")
    n_permutations: int = Field(200, ge=100, description="permutations for the checks of latents")
    random_state: int | None = Field(None, description="seed; default: the root seed")


@dataclass(frozen=True)
class Inputs:
    """What the stage reads: connectivity of all people, and participants.tsv."""

    connectivity: tuple[Path, ...]
    tables: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """What the stage writes: checks, and generated and harmonised connectivity."""

    checks: Path
    arrays: Path


def run(
    inputs: Inputs, outputs: Outputs, config: Config, *, threads: int = 1, device: str = "cpu"
) -> None:
    """Train on three quarters of the people, check on the others; what stands against it is noted."""
    import xarray

    rows: list[dict[str, Any]] = []
    try:
        people, demographics, left_out = _people(inputs, config)
        dataset = _generate(people, demographics, inputs, config, rows)
        dataset.attrs["left_out"] = " ".join(left_out)
    except AfterimageError as error:
        rows, dataset = [], xarray.Dataset(attrs={"problem": error.what})
        record_skipped("generate_connectivity", outputs.checks, error)
    write_tsv(outputs.checks, rows, COLUMNS)
    write_dataset(outputs.arrays, dataset)


def _people(inputs: Inputs, config: Config) -> tuple[People, dict[str, np.ndarray], list[str]]:
    """Return who has connectivity and all demographics, these, and who has not."""
    files = [p for p in inputs.connectivity if entity(p, "seg") != "sensors"]
    seg = config.seg or (entity(files[0], "seg") if files else "")
    files = [p for p in files if entity(p, "seg") == seg]
    people = read_people(files, "mean") if files else None
    if people is None:
        raise InputError(
            "there are no regions that people share", where="generate_connectivity",
            found=f"seg {seg or 'none'}", expected="an atlas", fix="set parcellate.atlases, or seg",
        )  # fmt: skip
    if config.measure not in people.measures:
        raise InputError(
            "connectivity has not been measured in that way", where="generate_connectivity.measure",
            found=config.measure, expected=" or ".join(people.measures), fix="add it to connect",
        )  # fmt: skip
    columns = {n: read_column(inputs.tables, PEOPLE_TABLE, n) for n in config.demographics}
    known = [
        row
        for row, subject in enumerate(people.subjects)
        if all(subject in column.values for column in columns.values())
    ]
    left_out = sorted(set(people.subjects) - {people.subjects[row] for row in known})
    people = people.select(known)
    if len(known) < FEWEST:
        raise InputError(
            "too few people have connectivity and all demographics", found=f"{len(known)} people",
            where="generate_connectivity", expected=f"{FEWEST} or more",
            fix="name fewer demographics; the method is made for hundreds of people",
        )  # fmt: skip
    demographics = {}
    for name, column in columns.items():
        texts = [column.values[s] for s in people.subjects]
        numeric = column.numeric and len(set(texts)) > 2
        demographics[name] = np.array([float(t) for t in texts] if numeric else texts)
    return people, demographics, left_out


def _generate(
    people: People,
    demographics: Mapping[str, np.ndarray],
    inputs: Inputs,
    config: Config,
    rows: list[dict[str, Any]],
) -> Any:
    """Train, sample, rewrite and check; add the rows of checks and return the arrays."""
    import xarray

    seed = config.random_state or 0
    groups = np.array(people.subjects)
    if config.group_column:
        of = read_column(inputs.tables, PEOPLE_TABLE, config.group_column).values
        groups = np.array([of.get(s, f"sub-{s}") for s in people.subjects])
    folds = make_folds(groups, n_folds=config.n_held_out_parts, n_repeats=1, random_state=seed)
    train, test = folds.repeats[0][0]
    edges = people.edges(config.measure)
    for name, values in demographics.items():
        if values.dtype.kind not in "fiu" and (new := set(values[test]) - set(values[train])):
            raise InputError(
                "a category has held-out people only", where=name, found=", ".join(sorted(new)),
                expected="several people of every category", fix="join rare categories",
            )  # fmt: skip
    model = DemoVAE(
        config.latent_size, config.n_epochs, config.learning_rate, config.n_components, seed
    )
    own = {name: values[train] for name, values in demographics.items()}
    held = {name: values[test] for name, values in demographics.items()}
    model.fit(edges[train], own)
    drawn = draw_demographics(own, config.n_samples, seed)
    raw = model.sample(drawn, seed)
    sampled, needed = repaired(raw)
    rows += check_samples(edges[train], edges[test], raw, own, held, drawn)
    rows.append({"check": "repaired", "value": float(needed.mean()), "n": len(raw),
                 "protocol": "share of samples that were not positive definite"})  # fmt: skip
    latents = model.latents(edges)
    rows += check_latents(edges[test], latents[test], held, config.n_permutations, seed)
    notes = ""
    if train.sum() < 10 * model.latent_size_:
        notes = (
            f"{int(train.sum())} training people are fewer than ten a latent: latents may not be "
            "free of demographics"
        )
    dataset = xarray.Dataset(
        {
            "sampled": (("sample", "edge"), sampled),
            "real": (("person", "edge"), edges),
            "latents": (("person", "latent"), latents.astype(np.float32)),
        },
        coords={
            "participant": ("person", np.array(people.subjects, dtype=object)),
            "held_out": ("person", test),
            "roi": ("unit", np.array(people.units, dtype=object)),
            **{f"sampled_{n}": ("sample", _storable(v)) for n, v in drawn.items()},
        },
        attrs={
            "seg": people.seg, "measure": config.measure, "edges": "below the diagonal, by row",
            "problem": "", "notes": notes, "n_train": int(train.sum()), "n_held_out": int(test.sum()),
            "n_latents": model.latent_size_,
        },
    )  # fmt: skip
    if config.harmonise:
        dataset["harmonised"] = _harmonise(model, edges, demographics, test, config, rows)
    return dataset


def _storable(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind in "fiu" else values.astype(object)


def check_samples(
    train: np.ndarray,
    test: np.ndarray,
    sampled: np.ndarray,
    own: Mapping[str, np.ndarray],
    held: Mapping[str, np.ndarray],
    drawn: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Compare samples with held-out people, and training people with these as the ceiling.

    Parameters
    ----------
    train, test, sampled : array of shape (n_people, n_edges)
    own, held, drawn : dict of array of shape (n_people,)
        Their demographics.
    """
    found, best = generative.likeness(test, sampled), generative.likeness(test, train)
    protocol = "samples against held-out people; ceiling: training against held-out people"
    rows: list[dict[str, Any]] = [
        {"check": name, "value": found[name], "ceiling": best[name], "n": len(test),
         "protocol": protocol}
        for name in found
    ]  # fmt: skip
    for name, values in drawn.items():
        real = generative.effect_map(train, own[name])
        effects = generative.compare_effects(real, generative.effect_map(sampled, values))
        reached = generative.compare_effects(real, generative.effect_map(test, held[name]))
        rows += [
            {"check": check, "demographic": name, "value": effects[check],
             "ceiling": reached[check], "n": len(sampled),
             "protocol": "effects in samples against training people; ceiling: held-out people"}
            for check in effects
        ]  # fmt: skip
    rows.append({
        "check": "copying", "value": generative.copying(train, test, sampled), "n": len(sampled),
        "protocol": "distance to the nearest training person, samples over held-out people",
    })  # fmt: skip
    return rows


def check_latents(
    edges: np.ndarray,
    latents: np.ndarray,
    demographics: Mapping[str, np.ndarray],
    n_permutations: int = 200,
    random_state: int = 0,
) -> list[dict[str, Any]]:
    """Decode demographics of held-out people from connectivity and from latents."""
    rows = []
    for name, values in demographics.items():
        for check, features, nonlinear in (
            ("decoding_connectivity", edges, False),
            ("decoding_latents", latents, False),
            ("decoding_latents_nonlinear", latents, True),
        ):
            scored = generative.decode(
                features, values, nonlinear=nonlinear, n_permutations=n_permutations,
                random_state=random_state,
            )  # fmt: skip
            rows.append(_row(check, name, scored, "cross-validated among held-out people"))
    return rows


def _harmonise(
    model: DemoVAE,
    edges: np.ndarray,
    demographics: Mapping[str, np.ndarray],
    test: np.ndarray,
    config: Config,
    rows: list[dict[str, Any]],
) -> Any:
    """Rewrite everybody to one value of a demographic, and decode it from what comes out."""
    if config.harmonise not in demographics:
        raise InputError(
            "what is harmonised is not among the demographics",
            where="generate_connectivity.harmonise", found=config.harmonise,
            expected=", ".join(demographics), fix="add it to generate_connectivity.demographics",
        )  # fmt: skip
    values = demographics[config.harmonise]
    if values.dtype.kind in "fiu":
        target: Any = float(np.median(values))
    else:
        names, counts = np.unique(values, return_counts=True)
        target = names[counts.argmax()]
    written = {**demographics, config.harmonise: np.full(len(values), target)}
    harmonised, needed = repaired(model.rewrite(edges, written))
    scored = generative.decode(
        harmonised[test], values[test], n_permutations=config.n_permutations,
        random_state=config.random_state or 0,
    )  # fmt: skip
    protocol = f"all rewritten to {target}; {float(needed.mean()):.2f} of them repaired"
    rows.append(_row("decoding_harmonised", config.harmonise, scored, protocol))
    return ("person", "edge"), harmonised, {"value": str(target)}


def _row(check: str, name: str, scored: Score, protocol: str) -> dict[str, Any]:
    about: Sequence[str] = (scored.metric, protocol)
    return scored.row() | {
        "check": check, "demographic": name, "protocol": ", ".join(about),
    }  # fmt: skip
