"""Networks of image metrics: the architectures of torchvision, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from afterimage.errors import ConfigError
from afterimage.networks.alexnet import AlexNet
from afterimage.networks.efficientnet import EfficientNetB1
from afterimage.networks.inception import InceptionV3
from afterimage.networks.metric_networks import MetricNetwork, check_folder
from afterimage.networks.resnet import ResNet50


@pytest.mark.parametrize(
    ("network", "whole", "head"),
    [  # parameters as torchvision documents them, less those of the classifier
        (AlexNet, 61_100_840, 9216 * 4096 + 4096 + 4096**2 + 4096 + 4096 * 1000 + 1000),
        (InceptionV3, 23_834_568, 2048 * 1000 + 1000),
        (EfficientNetB1, 7_794_184, 1280 * 1000 + 1000),
        (ResNet50, 25_557_032, 2048 * 1000 + 1000),
    ],
)
def test_they_have_the_parameters_of_the_published_ones(network, whole, head) -> None:
    with torch.device("meta"):
        made = network()
    assert sum(values.numel() for values in made.parameters()) == whole - head


def randomise(network: torch.nn.Module) -> torch.nn.Module:
    """Give batch normalisation other statistics than 0 and 1, so that they matter."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return network.eval()


def copy_in_order(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Give the weights of one network to another that holds the same layers in the same order."""
    kinds = (torch.nn.Conv2d, torch.nn.BatchNorm2d)
    pairs = zip(
        [m for m in source.modules() if isinstance(m, kinds)],
        [m for m in target.modules() if isinstance(m, kinds)],
        strict=True,
    )
    for one, other in pairs:
        other.load_state_dict(one.state_dict())


@torch.inference_mode()
def test_resnet_is_that_of_transformers() -> None:
    from transformers import ResNetConfig, ResNetModel

    own = randomise(ResNet50())
    other = ResNetModel(ResNetConfig()).eval()
    # transformers registers the projection of a block before its convolutions.
    for number, stage in enumerate(other.encoder.stages, start=1):
        for block, layer in zip(getattr(own, f"layer{number}"), stage.layers, strict=True):
            for index in range(3):
                layer.layer[index].convolution.load_state_dict(
                    getattr(block, f"conv{index + 1}").state_dict()
                )
                layer.layer[index].normalization.load_state_dict(
                    getattr(block, f"bn{index + 1}").state_dict()
                )
            if isinstance(block.downsample, torch.nn.Sequential):
                layer.shortcut.convolution.load_state_dict(block.downsample[0].state_dict())
                layer.shortcut.normalization.load_state_dict(block.downsample[1].state_dict())
    other.embedder.embedder.convolution.load_state_dict(own.conv1.state_dict())
    other.embedder.embedder.normalization.load_state_dict(own.bn1.state_dict())
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    expected = other(images).pooler_output.flatten(1)
    torch.testing.assert_close(own(images, ["avgpool"])["avgpool"], expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_efficientnet_is_that_of_transformers_with_the_padding_of_torchvision() -> None:
    from transformers import EfficientNetConfig, EfficientNetModel

    own = randomise(EfficientNetB1())
    config = EfficientNetConfig(
        image_size=240, width_coefficient=1.0, depth_coefficient=1.1, hidden_dim=1280
    )
    other = EfficientNetModel(config).eval()
    for module in other.modules():  # Keras pads unevenly where it strides, and has another epsilon
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-5
    other.embeddings.padding = torch.nn.ZeroPad2d(1)
    for block in other.encoder.blocks:
        size = block.depthwise_conv.depthwise_conv.kernel_size[0]
        block.depthwise_conv.depthwise_conv_pad = torch.nn.ZeroPad2d(size // 2)
    copy_in_order(own, other)
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    expected = other(images).pooler_output.flatten(1)
    torch.testing.assert_close(own(images, ["avgpool"])["avgpool"], expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alexnet")
    torch.manual_seed(0)
    weights = {**AlexNet().state_dict(), "classifier.6.bias": torch.zeros(1000)}
    save_file(weights, folder / "model.safetensors")
    config = {"architecture": "alexnet", "weights": "IMAGENET1K_V1"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_is_read_and_its_layers_come_out(alexnet: Path) -> None:
    facts = check_folder("alexnet", alexnet)
    assert facts["weights"] == "IMAGENET1K_V1" and len(facts["sha256"]) == 64
    images = torch.rand(2, 3, 256, 256)
    found = MetricNetwork("alexnet", alexnet).encode(images, ["features.4", "features.11"])
    assert {name: values.shape for name, values in found.items()} == {
        "features.4": (2, 192 * 31 * 31), "features.11": (2, 256 * 15 * 15)
    }  # fmt: skip
    # features.4 by the functions of torch alone, from normalised pixels
    torch.manual_seed(0)
    weights = AlexNet().state_dict()
    mean, std = (
        torch.tensor(v)[None, :, None, None]
        for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    x = torch.conv2d(
        (images - mean) / std, weights["features.0.weight"], weights["features.0.bias"], 4, 2
    )
    x = torch.max_pool2d(torch.relu(x), 3, 2)
    x = torch.relu(torch.conv2d(x, weights["features.3.weight"], weights["features.3.bias"], 1, 2))
    torch.testing.assert_close(found["features.4"], x.flatten(1), atol=1e-5, rtol=1e-5)


def test_another_architecture_is_refused(alexnet: Path) -> None:
    with pytest.raises(ConfigError, match="Inception v3") as caught:
        check_folder("inception_v3", alexnet)
    assert "'alexnet'" in caught.value.found and "docs/evaluation.md" in caught.value.fix
    with pytest.raises(ConfigError, match="CLIP"):
        check_folder("clip_vit_l14", alexnet)


@pytest.mark.parametrize("harm", ["cut", "no_config", "missing", "shape", "unknown"])
def test_a_half_copied_folder_is_refused(alexnet: Path, tmp_path: Path, harm: str) -> None:
    weights = AlexNet().state_dict()
    config = json.loads((alexnet / "config.json").read_text())
    if harm == "missing":
        weights.pop("features.10.bias")
    if harm == "shape":
        weights["features.10.bias"] = torch.zeros(7)
    if harm == "unknown":
        weights["layers.0.weight"] = torch.zeros(7)
    save_file(weights, tmp_path / "model.safetensors")
    if harm != "no_config":
        (tmp_path / "config.json").write_text(json.dumps(config))
    if harm == "cut":
        whole = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="AlexNet") as caught:
        check_folder("alexnet", tmp_path)
    assert caught.value.where == str(tmp_path) and caught.value.found


def test_similarity_of_many_features_is_that_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    from afterimage.evaluation import identification

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 12, 5000)).astype(np.float32)
    a[3] = 0.5  # a row without variance gives 0
    mean = rng.standard_normal(5000)
    whole = identification.similarity(a, b)
    centred = identification.similarity(a, b, training_mean=mean)
    monkeypatch.setattr(identification, "LARGEST_WHOLE", 100)
    monkeypatch.setattr(identification, "CHUNK_FEATURES", 700)
    np.testing.assert_allclose(identification.similarity(a, b), whole, atol=2e-10)
    found = identification.similarity(a, b, training_mean=mean)
    np.testing.assert_allclose(found, centred, atol=2e-10)


def test_the_stage_checks_folders_before_any_work(
    alexnet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from afterimage.stages.evaluate import Config
    from afterimage.stages.published_protocols import check_networks

    def checked(**networks: str):
        return check_networks(Config(protocols=["mindeye2"], networks=networks))

    found = checked(alexnet=str(alexnet), swav=str(tmp_path / "absent"))
    assert list(found) == ["alexnet"] and found["alexnet"]["path"] == str(alexnet)
    assert "a small network is used" in caplog.text
    with pytest.raises(ConfigError, match="no protocol has such a network"):
        checked(vgg=str(alexnet))
    with pytest.raises(ConfigError, match="SwAV"):
        checked(swav=str(alexnet))
    assert check_networks(Config(networks={"swav": str(alexnet)})) == {}  # not asked for


def test_the_report_says_what_stands_in() -> None:
    from types import SimpleNamespace

    from afterimage.evaluation.protocols import PROTOCOLS
    from afterimage.stages.published_protocols import describe_networks

    judged = [SimpleNamespace(protocol=PROTOCOLS["mindeye2"])]
    facts = {
        "weights": "IMAGENET1K_V1",
        "sha256": "0" * 64,
        "path": "x",
        "architecture": "alexnet",
    }
    told = describe_networks(
        judged, {"alexnet": facts, "swav": facts | {"weights": "other"}}, ["clip"]
    )
    rows = {row["metric"]: row for row in told["mindeye2"]["networks"]}
    assert (
        rows["twoway_alexnet2"]["comparable"] and rows["twoway_alexnet2"]["network"] == "AlexNet"
    )
    assert rows["twoway_inception"]["row"] == "twoway_standin_clip"
    assert "no folder of Inception v3" in rows["twoway_inception"]["why"]
    assert "published with swav_800ep" in rows["distance_swav"]["why"]
