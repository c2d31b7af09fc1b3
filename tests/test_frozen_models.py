"""Modules of which a part is frozen: that part is a constant, neither trained nor sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from backstop.platform import loose
from backstop.platform.contract import Data, Part, Samples, Spec
from backstop.platform.experiment import Experiment, State, run
from backstop.platform.params import BadInput
from backstop.platform.specs.part import parse_part
from backstop.platform.training.fitting import fit
from tests.conftest import forget

NETS = '''
import torch
from torch import nn


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter on it, and a head."""

    def __init__(self, in_features, num_classes, rank: int = 2):
        super().__init__()
        self.base = nn.Linear(in_features, 16).requires_grad_(False)
        self.down = nn.Linear(in_features, rank, bias=False)
        self.up = nn.Linear(rank, 16, bias=False)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(torch.relu(self.base(x) + self.up(self.down(x))))
'''
SMALL = Spec(
    dataset=Part("synthetic", {"samples": 300}),
    clients=5,
    per_round=3,
    rounds=3,
    root_size=0,
    optimizer=Part("sgd", {"lr": 0.1, "weight_decay": 0.1}),
)


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder with nets.py in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loose, "FILES", {})
    Path("nets.py").write_text(NETS)
    yield
    forget()


def toy() -> Data:
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    samples = Samples(x, torch.arange(8) % 2)
    return Data(samples, samples, classes=2, kind="table")


class Tied(nn.Module):
    """Two names of one frozen table."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        self.other = nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.one.weight.requires_grad_(False)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.other(self.one(x)))
        return logits


def test_frozen_parameters_become_constants_and_the_outputs_stay() -> None:
    module = Tied()
    x = toy().train.x
    before = module(x)
    fitted = fit(module, toy(), "tied")
    assert [name for name, _ in fitted.named_parameters()] == ["head.weight", "head.bias"]
    assert list(fitted.state_dict()) == ["head.weight", "head.bias"]
    assert fitted.get_buffer("one.weight") is not None
    assert torch.equal(fitted(x), before)


def test_a_module_that_is_frozen_as_a_whole_is_refused() -> None:
    with pytest.raises(BadInput, match="model net: all of its parameters are frozen"):
        fit(Tied().requires_grad_(False), toy(), "net")


def test_adapters_and_head_alone_are_trained_and_sent() -> None:
    spec = SMALL.replace(model=parse_part("nets.py:Adapted(rank=3)")).resolved
    experiment = Experiment(spec, Path(), "cpu")
    net = experiment.built.net
    assert [slot.name for slot in net.layout] == [
        "down.weight",
        "up.weight",
        "head.weight",
        "head.bias",
    ]
    assert not net.buffer_layout and list(experiment.model) == [slot.name for slot in net.layout]
    base = net.module.get_buffer("base.weight").clone()
    replicated = experiment.built.replica.module.get_buffer("base.weight")
    states: list[State] = []
    first, again = (list(run(spec, keep=states.append)) for _ in range(2))
    assert first[-1].metrics == again[-1].metrics
    assert first[-1].metrics["round/train_loss"] < first[0].metrics["round/train_loss"]
    assert states[-1].params.shape == (20 * 3 + 3 * 16 + 17 * 4,)
    while experiment.rounds_left:
        experiment.round()
    assert torch.equal(net.module.get_buffer("base.weight"), base)
    assert torch.equal(replicated, base)  # no weight decay either
    assert torch.equal(experiment.state.params, states[-1].params)
