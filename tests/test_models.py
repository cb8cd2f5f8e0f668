"""Networks: any input size, both kinds of logits, encoder weights from a file."""

import pytest
import torch
from safetensors.torch import save_file

from models import build_model
from models.smp import load_encoder
from tests.conftest import ROOT
from utils.losses import main_logits, training_losses

KINDS = [("unet", 2), ("unet", 5), ("smp_unet", 2), ("smp_unet", 5), ("deeplabv3plus", 2), ("deeplabv3plus", 5),
         ("pointrend", 2), ("pointrend", 5), ("ocrnet", 2), ("ocrnet", 5), ("deeplabv3", 2),
         ("deeplabv3", 5), ("pspnet", 2), ("pspnet", 5)]


@pytest.mark.parametrize("name, num_classes", KINDS)
@pytest.mark.parametrize("size", [(33, 47), (64, 64)])
def test_logits_at_any_size_and_a_gradient_everywhere(name, num_classes, size):
    network = build_model(name, "mobilenet_v2", None, num_classes, width=4)
    output = network(torch.randn(2, 3, *size))
    shape = (2, 1 if num_classes == 2 else num_classes, *size)
    assert main_logits(output).shape == shape
    training_losses(output, torch.randint(0, num_classes, (2, *size))).mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert network.eval()(torch.randn(1, 3, *size)).shape == (1, *shape[1:])


def test_the_classic_unet_has_64_to_1024_channels():
    network = build_model("unet")
    assert [block[0].out_channels for block in network.down] == [64, 128, 256, 512, 1024]
    # convolutions without bias in 18 blocks of two, each with a batch norm (2 x width), 4 up-convolutions, the head
    widths = [3, 64, 128, 256, 512, 1024]
    down = sum(9 * a * b + 9 * b * b + 4 * b for a, b in zip(widths, widths[1:]))
    up = sum(4 * 2 * a * a + a + 9 * 2 * a * a + 9 * a * a + 4 * a for a in widths[1:-1])
    assert sum(p.numel() for p in network.parameters()) == down + up + 64 + 1


@pytest.mark.parametrize("prefix", ["", "model.", "module.encoder."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_encoder_weights_from_a_file(tmp_path, prefix, suffix):
    source = build_model("smp_unet", "mobilenet_v2").network.encoder
    state = {prefix + key: value.clone() for key, value in source.state_dict().items() if "num_batches" not in key}
    state[prefix + "classifier.1.weight"] = torch.zeros(10, 1280)
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    encoder = build_model("smp_unet", "mobilenet_v2", str(file)).network.encoder
    for key, value in source.state_dict().items():
        assert torch.equal(encoder.state_dict()[key], value), key


def test_encoder_weights_that_do_not_fit_are_refused(tmp_path):
    encoder = build_model("smp_unet", "mobilenet_v2").network.encoder
    save_file({"features.0.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit this encoder.*first: features.0.0.weight"):
        load_encoder(encoder, tmp_path / "other.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable weights file"):
        load_encoder(encoder, tmp_path / "text.pth")
    for content in (torch.zeros(3), [1], {0: torch.zeros(3)}, {"state_dict": {"a": 5}}):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="other.pth: holds no state dict"):
            load_encoder(encoder, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="no such file"):
        build_model("smp_unet", "mobilenet_v2", "missing.pth")
    with pytest.raises(ValueError, match="nonsense"):
        build_model("smp_unet", "nonsense")


@pytest.mark.parametrize("encoder, file", [("mobilenet_v2", "mobilenet_v2-imagenet.safetensors"),
                                           ("tu-tf_efficientnet_lite0", "tf_efficientnet_lite0-imagenet.safetensors")])
def test_published_imagenet_encoders_load(encoder, file):
    path = ROOT.parent / "shared" / "weights" / file
    if not path.is_file():
        pytest.skip(f"no {path}")
    plain, loaded = build_model("smp_unet", encoder), build_model("smp_unet", encoder, str(path))
    first = next(iter(plain.network.encoder.state_dict()))
    assert not torch.equal(plain.network.encoder.state_dict()[first], loaded.network.encoder.state_dict()[first])
