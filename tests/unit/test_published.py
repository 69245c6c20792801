"""Published scores stand beside ours only where all that makes a number is the same."""

from __future__ import annotations

import csv
from typing import Any

import pytest

from afterimage.evaluation.metrics import describe, protocol
from afterimage.evaluation.protocols import PROTOCOLS
from afterimage.evaluation.published import match_published, reasons
from afterimage.resources import resource_root

FOLDER = resource_root() / "data" / "published"


def read(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def own(subject: str = "01", metric: str = "twoway_inception", **changes: Any) -> dict[str, Any]:
    text = protocol(
        family="mindeye2", size="resized to 256, then 425 px", n=1000, repeats="averaged",
        selection="one sample", direction="brain_to_image", gallery=1000,
    )  # fmt: skip
    row = {
        "subject": subject, "label": "mindeyeUnclip", "role": "reconstruction", "metric": metric,
        "value": 0.9, "n": 1000, "protocol": text,
    }  # fmt: skip
    return row | changes


def matched(
    rows, dataset="nsd", trials=None, comparable=None, file="nsd_full.tsv", method="MindEye2"
):
    published = [
        row
        for row in read(file)
        if row["method"] == method and row["metric"] == "twoway_inception"
    ]
    assert len(published) == 1
    trials = trials or {row["subject"]: 24980 for row in rows}
    (found,) = match_published(
        published, rows, dataset=dataset, n_training_trials=trials, comparable=comparable or {}
    )
    return found


FOUR = [own(name, value=0.9 + 0.01 * i) for i, name in enumerate(("01", "02", "05", "07"))]


def test_the_same_people_network_and_protocol_are_compared() -> None:
    found = matched(FOUR)
    assert not found.why and found.published["value"] == "0.954"
    assert found.own[0]["value"] == pytest.approx(0.915)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"dataset": "god"}, "another dataset"),
        ({"dataset": ""}, "another dataset"),
        ({"rows": FOUR[:1]}, "of subjects"),
        ({"trials": {"01": 750, "02": 750, "05": 750, "07": 750}}, "fitted on 40h"),
        ({"rows": [own(r["subject"], "twoway_standin_clip") for r in FOUR]}, "needs its network"),
        ({"comparable": {("mindeye2", "twoway_inception"): False}}, "weights"),
        ({"rows": [own(r["subject"], n=982) for r in FOUR]}, "test images"),
        ({"rows": [own(r["subject"], protocol="afterimage-1; native") for r in FOUR]}, "not asked"),
        ({"method": "Brain-IT"}, "does not say its protocol"),
    ],
)  # fmt: skip
def test_what_differs_is_said(change: dict[str, Any], word: str) -> None:
    found = matched(**({"rows": FOUR} | change))
    assert word in found.why and not found.own
    assert reasons([found]) == [(found.why, 1)]


def test_people_of_different_protocols_are_never_averaged() -> None:
    mixed = [*FOUR[:3], own("07", protocol=FOUR[0]["protocol"].replace("one sample", "best-of-8"))]
    found = matched(mixed)
    assert not found.own and "in different ways" in found.why


def test_the_tables_are_whole() -> None:
    files = sorted(path.name for path in FOLDER.glob("*.tsv"))
    assert len(files) == 6
    rows = [row for name in files for row in read(name)]
    assert {row["evidence"] for row in rows} <= set("VTSMC")
    assert all((row["verified"] == "no") == (row["evidence"] == "M") for row in rows)
    assert {row["protocol"] for row in rows} <= {*PROTOCOLS, "coco_captions", "n/a"}
    for row in rows:
        value = float(row["value"])
        assert row["citation"] != "n/a"
        if row["protocol"] != "coco_captions":
            describe(row["metric"])
            assert 0 <= value <= 1
    keys = [
        (r["table"], r["method"], r["training"], r["subjects"], r["metric"], r["note"])
        for r in rows
    ]
    assert len(set(keys)) == len(keys)
    # Numbers of the reference, one a table
    assert {
        (r["table"], r["training"], float(r["value"])) for r in rows
        if r["metric"] == "pixcorr" and r["method"] in ("Brain-IT", "ZEBRA")
    } == {("1.1", "40h", 0.386), ("1.2", "1h", 0.331), ("1.3", "0h", 0.131),
          ("1.3", "0h", 0.109), ("1.3", "0h", 0.153)}  # fmt: skip
