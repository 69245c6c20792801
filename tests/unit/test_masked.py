"""Masked training: policies hide what they say, networks do not look, teachers resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afterimage.networks.graph import DenseGIN, GraphNetwork
from afterimage.networks.masked_series import PatchNetwork, ScanNetwork, StateNetwork
from afterimage.networks.static_graph import StaticGraphAttention, StaticGraphBlock
from afterimage.networks.transformer import Encoder, EncoderBlock, rotary_angles, rotate
from afterimage.training.loop import LoopSettings, train
from afterimage.training.masked import masked_objective
from afterimage.training.masks import MaskSettings, draw_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(kind: Any, low: float, high: float, shape: tuple[int, int, int]) -> np.ndarray:
    settings = MaskSettings(kind=kind, low=low, high=high)
    return draw_mask(settings, shape, generator()).numpy()


def test_regions_are_hidden_in_each_segment_at_a_ratio_of_its_own() -> None:
    hidden = drawn("regions", 0.0, 0.8, (40, 50, 100))
    share = hidden.mean(2)
    assert share.min() == 0.01  # at least one region
    assert share.max() <= 0.8
    assert abs(share.mean() - 0.4) < 0.02
    assert abs(share.std() - 0.8 / np.sqrt(12)) < 0.01  # uniform
    assert np.abs(hidden.mean((0, 1)) - 0.4).max() < 0.03  # no region is favoured


def test_segments_blocks_and_tubes_have_their_form() -> None:
    segments = drawn("segments", 0.25, 0.25, (30, 32, 5))
    assert (segments.all(2) == segments.any(2)).all()
    assert (segments[:, :, 0].sum(1) == 8).all()
    block = drawn("block", 0.25, 0.5, (200, 32, 5))[:, :, 0]
    assert (np.abs(np.diff(np.pad(block, ((0, 0), (1, 1))).astype(int))).sum(1) == 2).all()
    assert set(block.sum(1)) <= set(range(8, 17))
    assert block[:, 0].any()
    assert block[:, -1].any()
    tube = drawn("tube", 0.4, 0.4, (30, 32, 10))
    assert (tube == tube[:, :1]).all()
    assert (tube[:, 0].sum(1) == 4).all()


def test_rectangles_tile_the_grid_and_differ_between_examples() -> None:
    settings = MaskSettings(kind="rectangles", low=0.6, high=0.6, rectangle=(2, 3))
    hidden = draw_mask(settings, (30, 9, 8), generator()).numpy()  # 5 by 3 tiles, smaller at ends
    tiles = hidden[:, ::2, ::3]
    assert (tiles.sum((1, 2)) == 9).all()
    assert (tiles.repeat(2, 1).repeat(3, 2)[:, :9, :8] == hidden).all()
    assert (hidden[0] != hidden[1]).any()


def test_both_hides_whole_segments_and_regions_of_the_others() -> None:
    hidden = drawn("both", 0.25, 0.25, (30, 32, 8))
    whole = hidden.all(2).sum(1)
    assert (whole == 8).all()
    assert (hidden.sum(2)[~hidden.all(2)] == 2).all()


def test_rotary_scores_depend_on_the_distance_in_time_alone() -> None:
    query, key = (
        torch.randn(1, 8, generator=generator()),
        torch.randn(1, 8, generator=generator(1)),
    )

    def score(first: float, second: float) -> float:
        angles = [rotary_angles(torch.tensor([t]), 8, 100.0) for t in (first, second)]
        return float((rotate(query, angles[0]) * rotate(key, angles[1])).sum())

    assert score(3.0, 5.0) == pytest.approx(score(13.0, 15.0), abs=1e-5)
    assert abs(score(3.0, 5.0) - score(5.0, 3.0)) > 1e-3  # before is not after


def test_encoder_without_times_is_blind_to_order_and_with_times_is_not() -> None:
    torch.manual_seed(0)
    encoder = Encoder(16, 2, 2).eval()
    tokens = torch.randn(2, 7, 16)
    order = torch.randperm(7, generator=generator())
    assert torch.allclose(encoder(tokens)[:, order], encoder(tokens[:, order]), atol=1e-5)
    times = torch.arange(7)
    moved = encoder(tokens[:, order], times)
    assert not torch.allclose(encoder(tokens, times)[:, order], moved, atol=1e-3)
    assert torch.allclose(encoder(tokens, times), encoder(tokens, times + 5), atol=1e-4)


def test_block_agrees_with_attention_written_out() -> None:
    torch.manual_seed(0)
    block = EncoderBlock(8, 2).eval()
    tokens = torch.randn(1, 5, 8)
    normed = block.norm_attention(tokens)[0]
    query, key, value = block.qkv(normed).view(5, 3, 2, 4).unbind(1)
    heads = []
    for head in range(2):
        weights = (query[:, head] @ key[:, head].T / 2).softmax(-1)
        heads.append(weights @ value[:, head])
    after = tokens + block.project(torch.cat(heads, -1))
    expected = after + block.fall(torch.nn.functional.gelu(block.rise(block.norm_mlp(after))))
    assert torch.allclose(block(tokens), expected, atol=1e-5)


def test_static_graph_does_not_look_at_the_signal_and_has_no_self_loop() -> None:
    torch.manual_seed(0)
    attention = StaticGraphAttention(16, 4)
    embedding = torch.randn(9, 16)
    visible = torch.ones(3, 9, dtype=torch.bool)
    alpha = attention.graph(embedding)
    assert (alpha.diagonal(dim1=1, dim2=2) == 0).all()
    assert torch.allclose(alpha.sum(-1), torch.ones(4, 9))
    seen = []
    original = StaticGraphAttention.graph

    def spy(self: StaticGraphAttention, values: torch.Tensor) -> torch.Tensor:
        seen.append(original(self, values))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StaticGraphAttention, "graph", spy)
        for seed in (0, 1):
            attention(torch.randn(3, 9, 16, generator=generator(seed)), embedding, visible)
    assert torch.equal(seen[0], seen[1])  # bitwise, whatever the signal
    # Nothing of a region's own token reaches its own output.
    tokens = torch.randn(1, 9, 16)
    changed = tokens.clone()
    changed[0, 4] += 5.0
    before, after = (attention(t, embedding, visible[:1]) for t in (tokens, changed))
    assert torch.allclose(before[0, 4], after[0, 4], atol=1e-6)
    assert (before[0, 3] - after[0, 3]).abs().max() > 1e-3


def test_static_graph_leaves_hidden_regions_out_as_if_they_were_not_there() -> None:
    torch.manual_seed(0)
    attention = StaticGraphAttention(8, 2)
    embedding, tokens = torch.randn(6, 8), torch.randn(2, 6, 8)
    visible = torch.ones(2, 6, dtype=torch.bool)
    visible[:, [1, 4]] = False
    few = [0, 2, 3, 5]
    smaller = attention(tokens[:, few], embedding[few], visible[:, few])
    assert torch.allclose(attention(tokens, embedding, visible)[:, few], smaller, atol=1e-5)
    visible[:] = False
    visible[:, 2] = True
    assert torch.isfinite(attention(tokens, embedding, visible)).all()


def test_permuting_regions_with_their_embeddings_permutes_the_output() -> None:
    torch.manual_seed(0)
    block = StaticGraphBlock(16, 4)
    embedding, tokens = torch.randn(9, 16), torch.randn(2, 9, 16)
    visible = torch.rand(2, 9, generator=generator()) < 0.7
    order = torch.randperm(9, generator=generator())
    straight = block(tokens, embedding, visible)[:, order]
    moved = block(tokens[:, order], embedding[order], visible[:, order])
    assert torch.allclose(straight, moved, atol=1e-5)


def test_dense_gin_is_the_product_by_hand() -> None:
    torch.manual_seed(0)
    layer = DenseGIN(3, 8)
    with torch.no_grad():
        layer.epsilon.fill_(0.3)
    adjacency = (torch.rand(2, 6, 6, generator=generator()) < 0.4).float().triu(1)
    adjacency = adjacency + adjacency.transpose(1, 2)
    nodes = torch.randn(2, 6, 3)
    for graph in range(2):
        expected = np.zeros((6, 3))
        for node in range(6):
            expected[node] = 1.3 * nodes[graph, node].numpy()
            for other in range(6):
                expected[node] += (
                    float(adjacency[graph, node, other]) * nodes[graph, other].numpy()
                )
        found = layer.aggregate(nodes, adjacency)[graph].detach().numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)


def networks() -> dict[str, tuple[torch.nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_features": 16, "n_layers": 2, "n_heads": 2}
    series = torch.randn(2, 5, 8, 6)
    graphs = torch.zeros(2, 3, 8, 10)
    edges = (torch.rand(2, 3, 8, 8, generator=generator()) < 0.4).float().triu(1)
    graphs[..., :8] = edges + edges.transpose(-1, -2)
    graphs[..., 8:] = torch.randn(2, 3, 8, 2, generator=generator())
    return {
        "patches": (PatchNetwork(8, 6, regions_per_patch=8, **sizes), series),
        "parcel patches": (PatchNetwork(8, 6, regions_per_patch=2, **sizes), series),
        "static": (StateNetwork(8, 6, adaptive=False, **sizes), series),
        "adaptive": (StateNetwork(8, 6, adaptive=True, **sizes), series),
        "scan": (
            ScanNetwork(
                8, 6, n_features=16, n_layers=2, n_states=4, expand=2, bidirectional=True,
                channels_per_patch=2,
            ), series,
        ),
        "graphs": (
            GraphNetwork(8, 2, n_features=16, n_layers=2, temporal_weight=0.5), graphs,
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(networks()))
def test_what_is_hidden_cannot_be_seen(name: str) -> None:
    network, tokens = networks()[name]
    hidden = torch.rand(tokens.shape[:3], generator=generator()) < 0.5
    hidden[:, 1] = True  # a whole segment
    changed = tokens.clone()
    if name == "graphs":
        # Edges among hidden nodes, and their features, may be anything.
        pairs = hidden[..., None] & hidden[..., None, :]
        changed[..., :8] = torch.where(pairs, 1 - tokens[..., :8], tokens[..., :8])
        changed[..., 8:] = torch.where(hidden[..., None], torch.tensor(7.0), tokens[..., 8:])
    else:
        changed[hidden] = 7.0
    first, second = network.encode(tokens, hidden), network.encode(changed, hidden)
    assert torch.allclose(first, second, atol=1e-6)
    visible = tokens.clone()
    visible[~hidden] += 1.0
    assert not torch.allclose(first, network.encode(visible, hidden), atol=1e-3)
    decoded = network.decode(first)
    assert decoded.shape == tokens.shape
    assert tokens.shape[2] % first.shape[2] == 0


@pytest.mark.parametrize("name", ["patches", "static", "graphs"])
@pytest.mark.parametrize("target", ["signal", "ema-latent"])
def test_pretraining_resumes_to_the_same_bytes(tmp_path: Path, name: str, target: Any) -> None:
    settings = LoopSettings(n_steps=6, batch_size=2, checkpoint_every=2, warmup_steps=1)

    def pretrain(folder: Path | None, stop: int = 0) -> dict[str, torch.Tensor]:
        network, tokens = networks()[name]
        objective = masked_objective(
            network,
            lambda shape, source: draw_mask(MaskSettings(kind="both", high=0.5), shape, source),
            target=target,
        )

        def interrupt(step: int, _loss: float) -> None:
            if step == stop:
                raise KeyboardInterrupt

        def batch_of(indices: np.ndarray, _step: int) -> dict[str, torch.Tensor]:
            known = torch.ones(tokens[indices].shape[:3], dtype=torch.bool)
            return {"tokens": tokens[indices], "known": known}

        train(
            objective, batch_of, 2, settings,
            random_state=3, checkpoint_folder=folder, on_progress=interrupt,
        )  # fmt: skip
        return {k: t.clone() for k, t in objective.state_dict().items()}

    whole = pretrain(None)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tmp_path, stop=5)
    resumed = pretrain(tmp_path)
    assert any("teacher" in key for key in whole) == (target == "ema-latent")
    for key, tensor in whole.items():
        assert torch.equal(tensor, resumed[key]), key


def test_tokens_that_are_not_known_are_not_scored() -> None:
    network, tokens = networks()["static"]
    known = torch.ones(tokens.shape[:3], dtype=torch.bool)
    known[0, 2] = False
    hidden = torch.zeros_like(known)
    hidden[:, :, 3] = True
    predicted = torch.zeros_like(tokens)
    error = tokens.square().mean(-1)
    by_hand = 0.75 * error[hidden & known].mean() + 0.25 * error[~hidden & known].mean()
    assert float(network.loss(predicted, tokens, hidden, known)) == pytest.approx(
        float(by_hand), rel=1e-5
    )
    wild = tokens.clone()
    wild[0, 2] = 1e3
    assert torch.equal(
        network.loss(predicted, wild, hidden, known),
        network.loss(predicted, tokens, hidden, known),
    )
