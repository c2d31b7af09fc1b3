"""A module of torch as people have it, in place of a model: what fits trains, what does not is
refused in one line before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from backstop.platform import loose
from backstop.platform.contract import Data, Samples
from backstop.platform.experiment import Experiment, run
from backstop.platform.params import BadInput
from backstop.platform.specs.part import Part, parse_part
from backstop.platform.specs.spec import Spec
from backstop.platform.training.dense import read_dense
from backstop.platform.training.dropout import Dropout
from backstop.platform.training.fitting import fit
from tests.conftest import forget

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Two layers."""

    def __init__(self, in_features, num_classes=10, hidden: int = 8, act=nn.ReLU):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(in_features, hidden), act(), nn.Dropout(0.5))
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)))


def chain(shape, classes, width: int = 8):
    return nn.Sequential(nn.Linear(shape[0], width), nn.ReLU(), nn.Linear(width, classes))


class Depth(nn.Module):
    def __init__(self, depth):
        super().__init__()


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(4)


class Empty(nn.Module):
    pass


class Raises(nn.Module):
    def __init__(self):
        raise ValueError("no luck")


def number():
    return 3


class Linear(nn.Module):
    wide, out, share = 20, 4, 0.0

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(self.wide, self.out)

    def forward(self, x):
        return self.head(nn.functional.dropout(x, self.share, self.training))


class Narrow(Linear):
    wide = 7


class Few(Linear):
    out = 3


class Draws(Linear):
    share = 0.5


class Early(Linear):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(20, 6)


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(20, 4))

    def forward(self, x):
        return x @ self.weight


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(20), nn.Linear(20, 4)

    def forward(self, x):
        return self.head(self.norm(x))
'''
SMALL = Spec(
    dataset=Part("synthetic", {"samples": 300}),
    clients=5,
    per_round=3,
    rounds=6,
    root_size=0,
)


@pytest.fixture(autouse=True)
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working folder with nets.py in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loose, "FILES", {})
    Path("nets.py").write_text(NETS)
    yield
    forget()


def spec(model: str) -> Spec:
    return SMALL.replace(model=parse_part(model)).resolved


def test_a_class_is_a_model_whose_parameters_are_the_spec_s() -> None:
    model = spec("nets.py:Net").model
    assert model.name.startswith("nets:Net@") and model.params == {"hidden": 8}
    net = Experiment(spec("nets.py:Net(hidden=5)"), Path(), "cpu").built.net
    assert [slot.shape for slot in net.layout] == [(5, 20), (5,), (4, 5), (4,)]
    assert not net.vectorized
    with pytest.raises(BadInput, match=r"hidden=2\.5 is not allowed; hidden is an integer"):
        spec("nets.py:Net(hidden=2.5)")
    with pytest.raises(BadInput, match="unknown parameter 'act'"):
        spec("nets.py:Net(act=relu)")


@pytest.mark.parametrize("model", ["nets.py:Net", "nets.py:Norm", "nets.py:chain"])
def test_what_fits_trains_and_is_repeated_bit_for_bit(model: str) -> None:
    first, again = (list(run(spec(model))) for _ in range(2))
    assert first[-1].metrics == again[-1].metrics
    assert first[-1].metrics["round/train_loss"] < first[0].metrics["round/train_loss"]


def test_a_chain_of_layers_trains_as_the_perceptron_of_the_same_layers_does() -> None:
    assert Experiment(spec("nets.py:chain"), Path(), "cpu").built.net.dense is not None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("Depth", "needs depth; give each a default, or take what the data say: shape, classes"),
        ("Lazy", r"has lazy modules, .*inputs are \(20,\)"),
        ("Empty", "has no parameters, so there is nothing to train"),
        ("Raises", r"raised ValueError: no luck; inputs are \(20,\)"),
        ("number", r"makes int, which is no torch\.nn\.Module"),
        ("Narrow", r"does not take batches of these inputs, float32 \(batch, 20\): RuntimeError"),
        ("Few", r"gives \(batch, 3\); it has to give a logit for each class, \(batch, 4\)"),
        ("Draws", "draws from the global random generator"),
        ("Early", "the last linear layer that it defines, other, gives 6 values and not the 4"),
        ("Headless", r"has no torch\.nn\.Linear"),
        ("Nothing", r"has no function Nothing\(\); it has Net, chain, Depth, .*: say FILE:NAME"),
    ],
)
def test_what_does_not_is_refused(model: str, message: str) -> None:
    with pytest.raises(BadInput, match=message) as caught:
        Experiment(spec(f"nets.py:{model}"), Path(), "cpu")
    assert "nets" in str(caught.value)


def test_dropout_is_drawn_by_name() -> None:
    rows = Samples(torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.arange(9))
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.25), nn.Linear(4, 9))
    fitted = fit(module, Data(rows, rows, 9, "table"), "mine")
    (layer,) = [part for part in fitted.modules() if isinstance(part, Dropout)]
    assert layer.share == 0.25


def test_a_layer_that_is_there_twice_is_no_chain() -> None:
    layer = nn.Linear(4, 4)
    assert read_dense(nn.Sequential(layer, nn.ReLU(), layer), ()) is None
