"""The LSTM: against its equations in NumPy, and what padding, order, frozen embeddings and flat
vectors may and may not change.
"""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding
from torch.nn.utils.rnn import pack_padded_sequence

from backstop.platform import plugins
from backstop.platform.contract import Data, Samples
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator, seeded
from backstop.platform.training import network
from backstop.platform.training.recurrence import hidden_states, recorded_states

SMALL = {"words": 10, "dim": 5, "hidden": 4, "layers": 2}
X = torch.tensor(
    [[3, 10, 0, 0, 0], [7, 1, 2, 2, 9], [0, 0, 0, 0, 0], [4, 0, 0, 0, 0], [13, 20, 30, 0, 0]]
)
Y = torch.tensor([0, 1, 2, 1, 0])


def built(**params: int | str) -> Any:  # an nn.Module whose parts mypy does not know
    with seeded(0, "model"):
        return plugins.build("models", "lstm", SMALL | params)((X.shape[1],), 3)


def reference(net: Any, document: list[int], layers: int = 2) -> np.ndarray:
    """One document, one word after another, one gate after another, in float64."""
    values = {name: value.detach().double().numpy() for name, value in net.named_parameters()}
    table = net.embedding.weight.detach().double().numpy()
    sequence = [table[(token - 1) % 10 + 1] for token in document if token]
    state = np.zeros(4)
    for layer in range(layers):
        w, u, b, c = (
            values[f"lstm.{name}_l{layer}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        state, cell, out = np.zeros(4), np.zeros(4), []
        for x in sequence:
            i, f, g, o = (w @ x + u @ state + b + c).reshape(4, 4)
            sigma_i, sigma_f, sigma_o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
            cell = sigma_f * cell + sigma_i * np.tanh(g)
            state = sigma_o * np.tanh(cell)
            out.append(state)
        sequence = out
    found: np.ndarray = values["output.weight"] @ state + values["output.bias"]
    return found


def packed(net: Any, x: Tensor) -> Tensor:
    """The same network by torch's own layer; no document may be empty."""
    found = embedding(torch.where(x > 0, (x - 1) % 10 + 1, 0), net.embedding.weight).transpose(0, 1)
    _, (last, _) = net.lstm(pack_padded_sequence(found, (x != 0).sum(1), enforce_sorted=False))
    logits: Tensor = net.output(last[-1])
    return logits


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_equations_word_for_word(layers: int) -> None:
    net = built(layers=layers)
    wanted = np.stack([reference(net, document, layers) for document in X.tolist()])
    np.testing.assert_allclose(net(X).detach().numpy(), wanted, atol=1e-6)


def test_gradients_are_those_of_the_packed_layer() -> None:
    net, some = built(), Y != 2  # without the empty document
    ours, theirs = (
        torch.autograd.grad(cross_entropy(logits, Y[some]), list(net.parameters()))
        for logits in (net(X[some]), packed(net, X[some]))
    )
    for name, one, other in zip(dict(net.named_parameters()), ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5, msg=name)
        assert bool(one.any()), name


@pytest.mark.parametrize("counts", [[3, 3, 1], [2], [1, 1, 1, 1]])
def test_first_and_second_derivatives_of_the_steps(counts: list[int]) -> None:
    draws = generator(0, "lstm")
    inputs = torch.randn(sum(counts), 8, generator=draws, dtype=torch.float64, requires_grad=True)
    u = torch.randn(8, 2, generator=draws, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(hidden_states(inputs, u, counts), recorded_states(inputs, u, counts))
    assert torch.autograd.gradcheck(lambda a, b: hidden_states(a, b, counts), (inputs, u))
    assert torch.autograd.gradgradcheck(lambda a, b: hidden_states(a, b, counts), (inputs, u))


def test_a_document_without_a_word_has_no_state() -> None:
    net = built()
    assert torch.equal(net(X)[2], net.output.bias)


def test_padding_does_not_matter() -> None:
    net = built()
    assert torch.equal(net(X), net(torch.cat([X, X.new_zeros(5, 7)], 1)))


def test_the_order_of_documents_does_not_matter() -> None:
    net, order = built(), torch.tensor([4, 2, 0, 3, 1])
    torch.testing.assert_close(net(X[order]), net(X)[order], atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        X[1:2],
        X[3:4, :1],
        torch.ones(4, 1, dtype=torch.int64),
        X[2:3],
        torch.zeros(3, 5, dtype=torch.int64),
    ],
    ids=[
        "one document",
        "one word",
        "documents of one word",
        "one empty document",
        "empty documents",
    ],
)
@pytest.mark.parametrize("twice", [False, True])
def test_unusual_batches(x: Tensor, twice: bool) -> None:
    net = built()
    np.testing.assert_allclose(
        net(x).detach().numpy(), [reference(net, document) for document in x.tolist()], atol=1e-6
    )
    grads = torch.autograd.grad(
        net(x).square().sum(), list(net.parameters()), create_graph=twice, materialize_grads=True
    )
    assert all(bool(grad.isfinite().all()) for grad in grads)
    if twice:
        again = torch.autograd.grad(
            torch.stack([grad.square().sum() for grad in grads]).sum(),
            list(net.parameters()),
            materialize_grads=True,
        )
        assert all(bool(grad.isfinite().all()) for grad in again)


def test_larger_ids_share_rows_and_the_row_of_padding_is_never_read() -> None:
    net = built()
    assert net.embedding.weight.shape == (11, 5) and not bool(net.embedding.weight[0].any())
    assert torch.equal(net(torch.tensor([[13, 20, 31]])), net(torch.tensor([[3, 10, 1]])))
    assert not torch.equal(net(torch.tensor([[3, 10]])), net(torch.tensor([[3, 9]])))
    before = net(X)
    with torch.no_grad():
        net.embedding.weight[0] = float("nan")
    assert torch.equal(net(X), before)


def test_a_frozen_embedding_is_a_constant() -> None:
    net, learned = built(embedding="frozen"), built()
    assert torch.equal(net(X), learned(X))
    names = [name for name, _ in net.named_parameters()]
    assert names == [name for name, _ in learned.named_parameters() if name != "embedding.weight"]
    assert list(net.state_dict()) == names
    assert net.to(torch.float64).embedding.weight.dtype == torch.float64
    assert net(X).dtype == torch.float64


def test_vectors_can_be_filled_in() -> None:
    vectors = torch.randn(11, 5, generator=generator(0, "vectors"))
    nets = [built(embedding=kind) for kind in ("learned", "frozen")]
    before = nets[0](X)
    for net in nets:
        with torch.no_grad():
            net.embedding.weight.copy_(vectors)
    assert torch.equal(nets[0](X), nets[1](X)) and not torch.equal(nets[0](X), before)


@pytest.mark.parametrize("kind", ["learned", "frozen"])
def test_copies_are_the_same_function(kind: str) -> None:
    net = built(embedding=kind)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(net(X), other(X))


@pytest.mark.parametrize("counted", [{}, {"dim": 300, "hidden": 200, "words": 10000}])
def test_the_number_of_parameters(counted: dict[str, int]) -> None:
    net = built(**counted)
    sizes = [
        sum(parameter.numel() for parameter in part.parameters())
        for part in (net.embedding, net.lstm, net.output)
    ]
    assert sizes == ([10001 * 300, 723_200, 603] if counted else [55, 16 * 11 + 16 * 10, 15])


def data() -> Data:
    return Data(Samples(X, Y), Samples(X, Y), classes=3, kind="text")


def test_views_of_one_vector_are_the_same_network() -> None:
    net = built()
    names, parameters = zip(*net.named_parameters(), strict=True)
    whole = network.network(copy.deepcopy(net), data(), torch.device("cpu"), batch=5)
    assert not whole.vectorized and whole.head == "output"
    leaf = whole.params.clone().requires_grad_()
    (grad,) = torch.autograd.grad(cross_entropy(whole.logits(leaf, X), Y), leaf)
    wanted = torch.autograd.grad(cross_entropy(net(X), Y), parameters)
    assert torch.equal(grad, torch.cat([one.flatten() for one in wanted])), names
    with torch.inference_mode():
        assert torch.equal(whole.logits(whole.params, X), net(X))
        assert torch.equal(whole.logits(whole.params * 2, X), whole.logits(leaf * 2, X))
    replica = network.Replica(whole)
    cross_entropy(replica(X), Y).backward()
    assert torch.equal(replica.grad, grad)
    features = whole.features(whole.params, X, whole.buffers)
    torch.testing.assert_close(features @ net.output.weight.T + net.output.bias, net(X))


PROGRAM = """
import torch
from backstop.platform import plugins
from backstop.platform.seeds import generator, seeded
with seeded(0, "model"):
    net = plugins.build("models", "lstm", {"words": 50, "dim": 16, "hidden": 12})((9,), 3)
words = torch.randint(1, 60, (32, 9), generator=generator(0, "x"))
lengths = torch.randint(0, 10, (32, 1), generator=generator(0, "n"))
x = words * (torch.arange(9) < lengths)
net(x).square().sum().backward()
print(b"".join(p.grad.numpy().tobytes() for p in net.parameters()).hex())
"""


def test_the_same_bytes_in_every_process() -> None:
    here = StringIO()
    with redirect_stdout(here):
        exec(PROGRAM, {})
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True
    ).stdout
    assert here.getvalue() == there and len(there) > 1000


@pytest.mark.parametrize(
    "wrong",
    [
        {"words": 0},
        {"dim": 0},
        {"hidden": 0},
        {"layers": 0},
        {"layers": 17},
        {"embedding": "fixed"},
    ],
)
def test_parameters_that_are_refused(wrong: dict[str, int | str]) -> None:
    with pytest.raises(BadInput, match=f"model lstm: {next(iter(wrong))}="):
        plugins.build("models", "lstm", wrong)
