"""A depth estimator of random weights in the on-disk form of a real one."""

from __future__ import annotations

from pathlib import Path


def save_depth_model(home: Path) -> Path:
    """Save it and return the folder."""
    import torch
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    torch.manual_seed(1)
    config = DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    DPTForDepthEstimation(config).save_pretrained(home)
    DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(home)
    return home
