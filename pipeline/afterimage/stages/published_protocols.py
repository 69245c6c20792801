"""Published protocols for the evaluation: their networks from local folders, or what stands in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afterimage.bids.names import entity
from afterimage.errors import ConfigError
from afterimage.io.arrays import block_shapes, open_dataset, read_blocks
from afterimage.stages.reconstruction_sets import Judge, is_transductive, rows_of

if TYPE_CHECKING:
    from afterimage.evaluation.measures import Resampling
    from afterimage.evaluation.protocol_scores import ProtocolJudge

#: Tokens of OpenCLIP ViT-bigG/14, whose retrieval is published; with the class token or without.
BIGG_TOKENS = ((256, 1664), (257, 1664))

log = logging.getLogger("afterimage")


def check_networks(config: Any) -> dict[str, dict[str, Any]]:
    """Check the folders of networks before any work.

    Parameters
    ----------
    config : Config of `evaluate`

    Returns
    -------
    dict
        Of every network whose folder is there: ``path``, ``architecture``, ``weights``, ``sha256``.
        A folder that is not there is left out, with a warning.

    Raises
    ------
    ConfigError
        For a network of an unknown name, and a folder of another architecture or with files missing
        or cut off.
    """
    from afterimage.networks.metric_networks import NETWORKS, check_folder

    if unknown := sorted(set(config.networks) - set(NETWORKS)):
        raise ConfigError(
            "no protocol has such a network", where="evaluate.networks",
            found=", ".join(unknown), expected=", ".join(NETWORKS),
        )  # fmt: skip
    if set(config.protocols) <= {"afterimage"}:
        return {}
    found = {}
    for name, path in config.networks.items():
        if not Path(path).is_dir():
            log.warning(
                "evaluate.networks.%s: there is no folder %s; a small network is used", name, path
            )
            continue
        found[name] = {"path": str(path), **check_folder(name, path)}
    return found


def judges(
    judge: Judge,
    pictures: Sequence[np.ndarray],
    checked: Mapping[str, dict[str, Any]],
    resampling: Resampling,
    device: str,
) -> list[ProtocolJudge]:
    """Return one judge a published protocol that is asked for."""
    from afterimage.evaluation.protocol_scores import ProtocolJudge
    from afterimage.evaluation.protocols import PROTOCOLS
    from afterimage.networks.metric_networks import MetricNetwork

    wanted = [PROTOCOLS[name] for name in judge.config.protocols if name in PROTOCOLS]
    needed = {use.network for protocol in wanted for use in protocol.uses}
    networks = {
        name: MetricNetwork(name, facts["path"], device)
        for name, facts in checked.items()
        if name in needed
    }
    return [
        ProtocolJudge(protocol, pictures, networks, judge.embed, resampling, judge.subject)
        for protocol in wanted
    ]


def describe_networks(
    judged: Sequence[ProtocolJudge],
    checked: Mapping[str, dict[str, Any]],
    blocks: Sequence[str],
) -> dict[str, Any]:
    """Say by protocol and metric which network was used, and whether numbers can be compared."""
    from afterimage.networks.metric_networks import NETWORKS

    told: dict[str, Any] = {}
    for one in judged:
        rows = []
        for use in one.protocol.uses:
            expected, facts = NETWORKS[use.network], checked.get(use.network)
            kind = "distance" if use.distance else "twoway"
            known = use.stand_in in blocks
            own = f"{kind}_{use.name}" if facts else f"{kind}_standin_{use.stand_in}"
            used = use.stand_in if known else "none"
            why = ""
            if facts is None:
                why = f"no folder of {expected.title}: "
                why += f"our own block {use.stand_in} stands in" if known else "not computed"
            elif facts["weights"] != expected.weights:
                why = f"weights {facts['weights']}, published with {expected.weights}"
            rows.append(
                {
                    "metric": f"{kind}_{use.name}",
                    "row": own,
                    "network": expected.title if facts else used,
                    "weights": facts["weights"] if facts else "n/a",
                    "sha256": facts["sha256"] if facts else "n/a",
                    "comparable": not why,
                    "why": why,
                }
            )
        told[one.protocol.name] = {
            "letter": one.protocol.letter, "source": one.protocol.source, "networks": rows
        }  # fmt: skip
    return told


def retrievals(
    inputs: Any,
    config: Any,
    test: tuple[np.ndarray, dict[str, np.ndarray]],
    judge: Judge,
    resampling: Resampling,
) -> list[dict[str, Any]]:
    """Rows of the retrieval of the published protocols asked for, from decoded features."""
    from afterimage.evaluation.protocol_scores import retrieval_rows
    from afterimage.evaluation.protocols import PROTOCOLS

    ids, true = test
    with open_dataset(inputs.features) as dataset:
        kinds = {str(k): json.loads(v.attrs["encoder"])["kind"] for k, v in dataset.items()}
    for name, shape in block_shapes(inputs.features).items():
        if tuple(shape) in BIGG_TOKENS:
            kinds[name] = "OpenCLIP bigG tokens"
    rows = []
    for protocol in (PROTOCOLS[name] for name in config.protocols if name in PROTOCOLS):
        for path in inputs.predictions if protocol.gallery else ():
            decoder = entity(path, "desc")
            names, predicted = read_blocks(path, "brain")
            predicted.pop("training_scores")
            order = rows_of(names, ids)
            rows += retrieval_rows(
                protocol,
                {name: values[order] for name, values in predicted.items()},
                true,
                subject=judge.subject,
                decoder=decoder,
                kinds=kinds,
                how=("transductive",) if is_transductive(judge.cards[decoder]) else (),
                drawing=resampling,
            )
    return rows
