"""Functions that TorchScript runs: the bits of Python's own calls, and the lock is free."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform.contract import Part, Spec
from backstop.platform.training import block_engine, dense, dense_descent, network
from backstop.platform.training.lock_free import TURN, lock_free
from tests.test_dense import TABLE, built, rows


def count_up(counter: Tensor, times: int) -> Tensor:
    for _ in range(times):
        counter.add_(1)
    return counter


def doubled(value: Tensor) -> Tensor:
    return value * 2


@pytest.fixture
def lock_is_kept() -> Iterator[None]:
    """Nobody is asked for the interpreter's lock: a thread has it until it gives it up."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("lock_is_kept")
def test_the_work_ends_while_another_thread_has_the_lock() -> None:
    """Without TorchScript the count would stop at the first call of torch."""
    counter, times = torch.zeros(1), 1000
    seen, work = counter.numpy(), lock_free(count_up)
    worker = threading.Thread(target=work, args=(counter, times))
    worker.start()
    deadline = time.monotonic() + 60
    while seen[0] < times and time.monotonic() < deadline:
        pass
    counted = seen[0]
    worker.join()
    assert counted == times


def test_nothing_is_said_of_what_is_deprecated() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert lock_free(count_up)(torch.zeros(1), 3) == 3
    assert not told


def test_nothing_is_taken_down_for_a_gradient() -> None:
    assert not lock_free(doubled)(torch.ones(1, requires_grad=True)).requires_grad


def test_without_torchscript_the_function_runs_as_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch.jit, "script")
    assert lock_free(count_up) is count_up


def as_written(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[None]:
    """Let a function of a module run call by call; an item for each time it does."""
    function = getattr(module, name).__wrapped__
    calls: list[None] = []

    def run(*given: Any) -> Any:
        calls.append(None)
        return function(*given)

    monkeypatch.setattr(module, name, run)
    return calls


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"model": Part("mlp", {"hidden": "12-7-9", "dropout": 0.3}), "local_epochs": 2},
        {"model": Part("mlp", {"hidden": 16, "class_weights": "16-1"})},
        {"dataset": Part("digits"), "batch": 16},
    ],
    ids=["mlp", "dropout", "class weights", "images"],
)
@pytest.mark.parametrize(
    "optimizer",
    [
        Part("sgd", {"lr": 0.1}),
        Part("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ],
    ids=["sgd", "momentum"],
)
def test_all_steps_together_have_the_bits_of_single_calls(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], optimizer: Part
) -> None:
    """Steps together; the same call by call; and one step after another, as other optimizers
    take them.
    """
    spec: Spec = TABLE.replace(**change, optimizer=optimizer)
    together = rows(built(spec), list(range(20)))
    calls = as_written(monkeypatch, dense_descent, "take_all_steps")
    assert torch.equal(rows(built(spec), list(range(20))), together)
    assert calls
    monkeypatch.setattr(block_engine, "_plain", lambda *_: False)
    steps = as_written(monkeypatch, dense, "take_gradients")
    assert torch.equal(rows(built(spec), list(range(20))), together)
    assert steps


def test_threads_take_turns_but_for_the_steps_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = TABLE.replace(optimizer=Part("sgd", {"lr": 0.1}))
    take_all_steps, feed = dense_descent.take_all_steps, block_engine._Feed
    had: dict[str, bool] = {}

    def steps(*given: Any) -> Any:
        had["steps"] = TURN.locked()
        return take_all_steps(*given)

    def prepared(*given: Any) -> Any:
        had["batches"] = TURN.locked()
        return feed(*given)

    monkeypatch.setattr(dense_descent, "take_all_steps", steps)
    monkeypatch.setattr(block_engine, "_Feed", prepared)
    rows(built(spec), list(range(20)))
    assert had == {"batches": True, "steps": False}

    def broken(*_: Any) -> Any:
        raise RuntimeError("no luck")

    monkeypatch.setattr(dense_descent, "take_all_steps", broken)
    with pytest.raises(RuntimeError, match="no luck"):
        rows(built(spec), list(range(20)))
    assert not TURN.locked(), "the next thread has its turn"


def test_evaluation_has_the_labels_of_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = built(TABLE).net, built(TABLE).data.test.x
    batches = net.normalize(x).split(7)
    with torch.inference_mode():
        labels = net.labels(net.params, batches, net.buffers)
        logits = [net.forward(net.params, batch) for batch in batches]
        assert torch.equal(torch.cat(labels), torch.cat(logits).argmax(1))
        calls = as_written(monkeypatch, network, "dense_labels")
        again = net.labels(net.params, batches, net.buffers)
    assert torch.equal(torch.cat(again), torch.cat(labels))
    assert calls


def test_an_output_that_is_not_finite_gives_no_label() -> None:
    net = built(TABLE).net
    broken = torch.full_like(net.params, torch.inf)
    with torch.inference_mode():
        (labels,) = net.labels(broken, [net.normalize(built(TABLE).data.test.x)], net.buffers)
    assert (labels == -1).all()
