"""Weighted stochastic block model by graph-tool (Peixoto 2018, doi:10.1103/PhysRevE.97.012306).

Run by the Python of an environment that has graph-tool (not on PyPI), which need not have afterimage:
a graph comes in on standard input, blocks go out on standard output, both JSON. `block_models` is the
other end.

As in Dyballa et al. (2024), the nested model with and without correction for degree is fitted, with
exponential weights, and the one with the smaller description length is kept. What differs: the level
is the lowest one, as found, not the one that agrees best with a truth.
"""

import json
import sys
from typing import Any


def fit(problem: dict[str, Any]) -> dict[str, Any]:
    """Return blocks, description lengths (nats) and the version.

    Parameters
    ----------
    problem : dict
        ``n_nodes``; ``rows``, ``columns``, ``weights`` of the edges, each once, weights above 0;
        ``weighted``; ``n_starts``; ``random_state``.
    """
    import graph_tool
    from graph_tool.inference import minimize_nested_blockmodel_dl

    graph_tool.seed_rng(problem["random_state"])
    graph = graph_tool.Graph(directed=False)
    graph.add_vertex(problem["n_nodes"])
    graph.add_edge_list(zip(problem["rows"], problem["columns"], strict=True))
    weight = graph.new_edge_property("double")
    weight.a = problem["weights"]
    arguments = {"recs": [weight], "rec_types": ["real-exponential"]}
    fitted = []
    for corrected in (True, False):
        for _ in range(problem["n_starts"]):
            chosen = {"deg_corr": corrected, **(arguments if problem["weighted"] else {})}
            state = minimize_nested_blockmodel_dl(graph, state_args=chosen)
            fitted.append((float(state.entropy()), corrected, state))
    length, corrected, state = min(fitted, key=lambda found: found[0])
    blocks = state.project_level(0).get_blocks()
    return {
        "labels": [int(blocks[vertex]) for vertex in graph.vertices()],
        "description_length": length,
        "degree_corrected": corrected,
        "version": str(graph_tool.__version__),
    }


if __name__ == "__main__":
    json.dump(fit(json.load(sys.stdin)), sys.stdout)
