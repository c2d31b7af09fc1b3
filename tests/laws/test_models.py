"""What holds for every model, on the input of every dataset that it takes. A new file in
platform/models/ is picked up by itself.
"""

from __future__ import annotations

import doctest
import importlib
import os
import pickle
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from backstop.platform import plugins
from backstop.platform.contract import Dataset, Model, Samples
from backstop.platform.intake.files import file_status
from backstop.platform.params import BadInput
from backstop.platform.seeds import seeded
from backstop.platform.specs.part import complete_part, parse_part

MODELS = plugins.names("models")
PAIRS = [
    (model, dataset)
    for model in MODELS
    for dataset in plugins.names("datasets")
    if set(plugins.kinds("models", model)) & set(plugins.kinds("datasets", dataset))
]
HOME = plugins.PACKAGES["models"]
FOLDER = Path(os.environ.get("BACKSTOP_DATA", "/nonexistent"))


SMALL = {("convnet", "digits"): {"modules": 2}}  # defaults are for larger images
QUICK = {  # of networks of other libraries
    "vit_tiny": {"size": 16, "patch": 4, "depth": 1},
    "lora_text": {"words": 500, "dim": 16, "layers": 1},
}


@cache
def batch(dataset: str) -> tuple[Samples, int]:
    """Eight training samples as a model gets them, and the number of classes."""
    found: Dataset = plugins.build("datasets", dataset, {})
    for file in found.files:
        if file_status(FOLDER, file) != "present":
            pytest.skip(f"{file.path} is not in the data folder; set BACKSTOP_DATA")
    data = found.load(FOLDER)
    x, y = data.train.x[:8], data.train.y[:8]
    x = x / 255 if x.dtype == torch.uint8 else x
    if data.mean is not None and data.std is not None:
        shape = (1, -1) + (1,) * (x.ndim - 2)
        x = (x - torch.tensor(data.mean).reshape(shape)) / torch.tensor(data.std).reshape(shape)
    return Samples(x, y), data.classes


def build(model: str, dataset: str, seed: int = 0) -> nn.Module:
    samples, classes = batch(dataset)
    for library in getattr(importlib.import_module(f"{HOME}.{model}"), "LIBRARIES", ()):
        reason = f"{library} is not installed: the extra models brings it"
        pytest.importorskip(library, reason=reason, exc_type=ImportError)
    params = SMALL.get((model, dataset)) or QUICK.get(model, {})
    make: Model = plugins.build("models", model, params)
    with seeded(seed, "model"):
        return make(tuple(samples.x.shape[1:]), classes)


@pytest.mark.parametrize("name", MODELS)
def test_the_data_sheet_is_there_and_its_example_runs(name: str) -> None:
    plugin = plugins.find("models", name)
    assert plugin.factory.__name__ == name
    assert plugins.kinds("models", name)
    for part in ("Shapes:", "Source:", "Deviations:", "Example:"):
        assert part in plugin.sheet
    result = doctest.testmod(importlib.import_module(plugin.factory.__module__))
    assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_logits_have_one_column_per_class(model: str, dataset: str) -> None:
    samples, classes = batch(dataset)
    logits = build(model, dataset)(samples.x)
    assert logits.shape == (8, classes) and logits.dtype == torch.float32
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_every_parameter_learns(model: str, dataset: str) -> None:
    samples, _ = batch(dataset)
    net = build(model, dataset)
    names, parameters = zip(*net.named_parameters(), strict=True)

    def gradients() -> tuple[Tensor, ...]:
        loss = nn.functional.cross_entropy(net(samples.x), samples.y)
        return torch.autograd.grad(loss, parameters)

    grads = gradients()
    if not all(grad.any() for grad in grads):  # of an adapter's two matrices one begins at 0
        with torch.no_grad():
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.sub_(0.1 * grad)
        grads = gradients()
    for name, parameter, grad in zip(names, parameters, grads, strict=True):
        assert parameter.dtype == torch.float32, name
        assert bool(grad.isfinite().all()) and bool(grad.any()), name


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_the_named_stream_decides_the_initial_values(model: str, dataset: str) -> None:
    before = torch.default_generator.get_state()
    one, same, other = (build(model, dataset, seed).state_dict() for seed in (0, 0, 1))
    assert list(one) == list(same)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(before, torch.default_generator.get_state())


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_a_pickled_copy_is_the_same_function(model: str, dataset: str) -> None:
    samples, _ = batch(dataset)
    net = build(model, dataset).eval()
    copy: nn.Module = pickle.loads(pickle.dumps(net))
    assert torch.equal(net(samples.x), copy(samples.x))


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_a_sample_is_classified_alone(model: str, dataset: str) -> None:
    samples, _ = batch(dataset)
    net = build(model, dataset).eval()
    torch.testing.assert_close(net(samples.x)[:1], net(samples.x[:1]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("model", "dataset"), PAIRS)
def test_two_clients_at_once_compute_what_each_computes(model: str, dataset: str) -> None:
    """Local training may vectorize over clients."""
    samples, _ = batch(dataset)
    nets = [build(model, dataset, seed) for seed in (0, 1)]
    if any(isinstance(part, nn.RNNBase) for part in nets[0].modules()):
        pytest.skip(
            "recurrent layers have no batching rule under vmap; such models train in a loop"
        )
    params, buffers = stack_module_state(nets)

    def call(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        found: Tensor = functional_call(nets[0], (params, buffers), (samples.x,))
        return found

    stacked = vmap(call)(params, buffers)
    torch.testing.assert_close(
        stacked, torch.stack([net(samples.x) for net in nets]), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("shape", "count"), [((3, 32, 32), 62006), ((1, 28, 28), 44426), ((1, 8, 8), 21386)]
)
def test_the_size_of_the_tutorial_network(shape: tuple[int, ...], count: int) -> None:
    """Counted by hand: 25·6·C + 6, 25·6·16 + 16, 16·h·w·120 + 120, 120·84 + 84, 84·10 + 10 with h·w
    of 25, 16 and 4.
    """
    assert (
        sum(
            parameter.numel()
            for parameter in plugins.build("models", "cnn", {})(shape, 10).parameters()
        )
        == count
    )


def test_pooling_before_the_rectifier_changes_no_value() -> None:
    with seeded(0, "model"):
        net = plugins.build("models", "cnn", {})((3, 32, 32), 10)
        x = torch.randn(4, 3, 32, 32)
    hidden = x
    for block in (1, 2):
        conv = net.get_submodule(f"conv{block}")
        convolved = nn.functional.conv2d(hidden, conv.weight, conv.bias)
        hidden = nn.functional.max_pool2d(convolved.relu(), 2)
    assert torch.allclose(hidden, net[:4](x), rtol=1e-5, atol=1e-6)


def test_a_network_needs_room() -> None:
    with pytest.raises(BadInput, match=r"images of 3 x 9 are too small; both sides are at least 4"):
        plugins.build("models", "cnn", {})((1, 3, 9), 10)


@pytest.mark.parametrize(
    ("hidden", "widths"),
    [(5, [5]), ("5", [5]), ("128-256", [128, 256]), ("128-256-7", [128, 256, 7])],
)
def test_hidden_layers_of_the_perceptron(hidden: int | str, widths: list[int]) -> None:
    net = plugins.build("models", "mlp", {"hidden": hidden})((30,), 2)
    assert [layer.out_features for layer in net.modules() if isinstance(layer, nn.Linear)] == [
        *widths,
        2,
    ]


def test_hidden_layers_keep_their_text_form() -> None:
    text = "mlp(hidden=128-256)"
    assert str(parse_part(text)) == text
    assert complete_part(parse_part(text), "models").params["hidden"] == "128-256"


@pytest.mark.parametrize(
    "hidden",
    [
        "",
        "a",
        "64 - 5",
        "064",
        "9" * 5000,
        "64-",
        "64x64",
        "0",
        "64-0",
        "1.5",
        "65537",
        "-5",
        "٣",
        0,
        65537,
        1.5,
    ],
)
def test_hidden_layers_that_are_refused(hidden: object) -> None:
    with pytest.raises(BadInput, match="model mlp: hidden="):
        plugins.build("models", "mlp", {"hidden": hidden})


@pytest.mark.parametrize(
    ("stem", "side", "channels", "kernel", "count"),
    [
        ("auto", 32, 3, (3, 3), 11_173_962),
        # torchvision's 11,689,512 with 10 classes in place of 1000
        ("auto", 65, 3, (7, 7), 11_181_642),
        ("auto", 65, 1, (7, 7), 11_175_370),
        ("large", 32, 3, (7, 7), 11_181_642),
        ("small", 65, 1, (3, 3), 11_172_810),
    ],
)
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_stem_of_the_residual_network(
    norm: str, stem: str, side: int, channels: int, kernel: tuple[int, int], count: int
) -> None:
    net = plugins.build("models", "resnet18", {"norm": norm, "stem": stem})(
        (channels, side, side), 10
    )
    assert net.conv1.kernel_size == kernel and net.conv1.in_channels == channels
    assert isinstance(net.maxpool, nn.Identity) == (kernel == (3, 3))
    assert sum(parameter.numel() for parameter in net.parameters()) == count
    assert bool(list(net.buffers())) == (norm == "batch")


def test_the_new_stem_starts_as_the_other_convolutions() -> None:
    net = plugins.build("models", "resnet18", {})((3, 32, 32), 10)
    # He et al. 2015, fan out
    assert float(net.conv1.weight.detach().std()) == pytest.approx(
        (2 / (64 * 3 * 3)) ** 0.5, rel=0.1
    )


def test_padding_is_no_word_and_rows_are_shared_modulo_their_number() -> None:
    net = plugins.build("models", "bag_of_words", {"words": 10, "dim": 4})((6,), 3)
    x = torch.tensor([[3, 10, 0, 0, 0, 0], [13, 20, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    weight = net.embedding.weight
    # a word may use row 0
    torch.testing.assert_close(net(x)[0], net.output((weight[3] + weight[0]) / 2))
    assert torch.equal(net(x)[0], net(x)[1]) and torch.equal(net(x)[2], net.output.bias)
