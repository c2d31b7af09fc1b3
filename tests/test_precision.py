"""Models in bfloat16: what computes in it, what stays float32, and what a machine says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import run
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import Precision, validate
from backstop.platform.training import federation, loading, precision
from backstop.platform.training.federation import Federation
from backstop.platform.training.pooling import PooledConv2d

CPU = torch.device("cpu")
SPEC = Spec(
    clients=10,
    per_round=5,
    rounds=12,
    batch=16,
    root_size=20,
    optimizer=Part("sgd", {"lr": 0.1, "momentum": 0.9}),
    precision="bfloat16",
)
TOPICS = {"dataset": Part("topics"), "model": Part("lstm", {"dim": 8, "hidden": 6})}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "cnn": {"model": Part("cnn")},
    "lstm": TOPICS,
    "batch norm": {"model": Part("resnet18", {"norm": "batch"}), "batch": 32},
}


def built(spec: Spec) -> Federation:
    spec = validate(spec)
    data = loading.load_dataset(spec.dataset, Path("unused"))
    return federation.build_federation(spec, data, CPU)


def test_digits_are_learned_and_attacked_as_in_float32() -> None:
    figures = {}
    for kind in ("float32", "bfloat16"):
        spec = SPEC.replace(precision=kind, attack=to_chain("badnets", "attack"))
        *_, last = run(spec, device="cpu")
        figures[kind] = last.metrics
    assert figures["float32"]["round/clean_accuracy"] > 0.8
    for name in ("round/clean_accuracy", "round/attack_success_rate"):
        assert figures["bfloat16"][name] == pytest.approx(figures["float32"][name], abs=0.05)
    assert figures["bfloat16"]["round/train_loss"] != figures["float32"]["round/train_loss"]


@pytest.mark.parametrize("model", MODELS)
def test_products_are_bfloat16_and_what_comes_out_is_float32(model: str) -> None:
    fed = built(SPEC.replace(**MODELS[model]))
    net, head = fed.net, fed.net.module.get_submodule(fed.net.head)
    given: list[torch.dtype] = []
    head.register_forward_hook(lambda _module, _x, y: given.append(y.dtype))
    x = fed.data.train.x[:8]
    params = net.params.clone().requires_grad_()
    logits = net.logits(params, x)
    (grad,) = torch.autograd.grad(logits.sum(), params)
    features = net.features(params, x, net.buffers)
    assert given == [torch.bfloat16, torch.bfloat16]
    assert {tensor.dtype for tensor in (logits, grad, features)} == {torch.float32}
    assert grad.isfinite().all()
    trained: Tensor = fed.replica(x)
    trained.sum().backward()
    assert (trained.dtype, fed.replica.grad.dtype) == (torch.float32, torch.float32)
    plain = net._replace(precision="float32").logits(params, x)
    assert not torch.equal(logits, plain)
    torch.testing.assert_close(logits, plain, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "stages",
    ["badnets+neurotoxin", "badnets+chameleon", "a3fl", "iba"],
)
def test_attacks_train_in_it(stages: str) -> None:
    spec = SPEC.replace(attack=to_chain(stages, "attack"), rounds=1, malicious=0.5)
    (last,) = run(spec, device="cpu")
    assert 0 <= last.metrics["round/attack_success_rate"] <= 1


def test_a_pooled_convolution_takes_the_plain_way() -> None:
    """Its compiled gradient is for float32 alone."""
    layer = PooledConv2d(2, 3, 3)
    x = torch.rand(2, 2, 8, 8, generator=seeds.generator(0, "tests", "pooled")).requires_grad_()
    with precision.arithmetic("bfloat16", CPU):
        pooled = layer(x)
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("capabilities", "kinds", "said"),
    [
        ({"avx512_bf16": True}, ["bfloat16"], False),
        ({"amx_bf16": True, "avx512_bf16": False}, ["bfloat16"], False),
        ({"avx2": True, "avx512_bf16": False}, ["float32", "bfloat16"], True),
        ({}, ["float32"], False),
    ],
    ids=["AVX-512", "AMX", "neither", "not asked for"],
)
def test_a_machine_without_the_instructions_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, bool],
    kinds: list[Precision],
    said: bool,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    note = precision.emulation_note(kinds, CPU)
    assert ("they are emulated" in note) is said
    assert "\n" not in note
