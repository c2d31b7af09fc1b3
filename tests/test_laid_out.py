"""8-bit images reach a convolution as the plain way brings them there, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.spec import validate
from backstop.platform.training import federation, loading
from backstop.platform.training.federation import Federation
from backstop.platform.training.network import to_unit_interval

SPEC = Spec(dataset=Part("patches"), model=Part("cnn"), clients=10, per_round=4)


def _built(spec: Spec) -> Federation:
    spec = validate(spec)
    data = loading.load_dataset(spec.dataset, Path("unused"))
    return federation.build_federation(spec, data, torch.device("cpu"))


@pytest.mark.parametrize("normalized", [True, False])
def test_every_pixel_is_that_of_the_plain_way(normalized: bool) -> None:
    built = _built(SPEC)
    x, net = built.data.train.x[:50], built.net
    assert x.dtype == torch.uint8
    assert net.pixels is not None
    if not normalized:
        plain = net._replace(shift=None, scale=None, pixels=None)
        every = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
        net = plain._replace(pixels=plain.normalize(every)[:, :, 0, 0].t().contiguous())
    laid_out, expected = net.normalize(x), net.normalize(to_unit_interval(x))
    assert torch.equal(laid_out, expected)
    assert laid_out.is_contiguous(memory_format=torch.channels_last)


def test_only_eight_bit_images_are_looked_up() -> None:
    """What an attack has changed is in [0, 1], and a perceptron wants no channels last."""
    net = _built(SPEC).net
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net.normalize(x), net._replace(pixels=None).normalize(x))
    assert _built(SPEC.replace(model=Part("mlp"))).net.pixels is None
