"""Rounds in Flower's simulation, each compared with Backstop's; run by test_flower.py in an
environment of its own. Prints one JSON object: defense → what differs in each round, which should
be nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import Client, NumPyClient
from flwr.clientapp import ClientApp
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

import backstop
from backstop.flower import Defended, DefendedClassic, malicious
from backstop.platform import plugins, seeds
from backstop.platform.contract import Shares
from backstop.platform.laws.views import plain_server_view
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.matrix import WholeMatrix
from backstop.platform.training.server_step import keep_finite, server_step

CLIENTS, ROUNDS = 10, 3
DEFENSES = ["norm_clip(norm=1)+median", "foolsgold(features=all)", "crfl(norm=10, noise=0.01)"]
BY_HAND = DEFENSES[0]  # keeps nothing between rounds: compared with the server's step itself too
BROKEN, LATE = 3, 4  # partitions: one sends another shape, one fails

attack = malicious("sign_flip+gaussian(std=0.1)", clients=[0, 1])
client_app, server_app = ClientApp(mods=[attack]), ServerApp()


def network() -> nn.Module:
    """A model with statistics and a counter."""
    with seeds.seeded(0, "flower"):
        layers = [nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)]
        return nn.Sequential(*layers)


def train(net: nn.Module, partition: int) -> int:
    """A few local steps on made-up samples; how many samples."""
    draws = seeds.generator(partition, "samples")
    x, y = torch.randn(12 + partition, 8, generator=draws), torch.arange(12 + partition) % 3
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return len(x)


@client_app.train()  # type: ignore[untyped-decorator]
def local(message: Message, context: Context) -> Message:
    """One client's round."""
    net, partition = network(), int(context.node_config["partition-id"])
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    samples = train(net, partition)
    state = dict(net.state_dict())
    if partition == BROKEN:
        state["0.bias"] = torch.zeros(1)
    if partition == LATE:
        raise RuntimeError("this client fails")
    metrics = MetricRecord({"num-examples": samples, "loss": 1.0})
    content = RecordDict({"arrays": ArrayRecord(state), "metrics": metrics})
    return Message(content=content, reply_to=message)


class Compared(Defended):
    """A strategy that says where its next model is another one than Backstop's."""

    def __init__(self, chained: str) -> None:
        super().__init__(chained, FedAvg(fraction_evaluate=0, min_available_nodes=CLIENTS))
        self.library = backstop.defense(chained)
        self.before: dict[str, np.ndarray] = {}
        self.differences: list[str] = []

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        self.before = numpy(arrays)
        if self.library.sends:
            self.before = self.library.send(self.before)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        after, metrics = super().aggregate_train(server_round, kept)
        sent = [message for message in kept if not message.has_error()]
        assert len(sent) == CLIENTS - 1  # LATE
        models = [numpy(message.content["arrays"]) for message in sent]
        fitting = [index for index, model in enumerate(models) if len(model["0.bias"]) > 1]
        assert len(fitting) == CLIENTS - 2  # BROKEN
        models = [models[index] for index in fitting]
        weights = [sent[index].content["metrics"]["num-examples"] for index in fitting]
        nodes = [sent[index].metadata.src_node_id for index in fitting]
        expected = self.library.aggregate_models(models, weights, nodes, params=self.before)
        self.compare("library", numpy(after), expected)
        chained = backstop.parse_chain(BY_HAND)
        if self.library.spec.defense == chained:
            self.compare("step", numpy(after), by_hand(models, weights, nodes, self.before))
        assert metrics is not None
        assert abs(metrics["loss"] - 1) < 1e-6  # the strategy's own mean
        return after, metrics

    def compare(self, what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        """Remember which arrays differ in any bit."""
        for name, value in theirs.items():
            if ours[name].tobytes() != np.asarray(value).tobytes():
                self.differences.append(f"{what}: {name}")
        moved = any((ours[name] != self.before[name]).any() for name in ours)
        if not moved:
            self.differences.append(f"{what}: nothing moved")


def numpy(record: ArrayRecord) -> dict[str, Any]:
    """A record's arrays."""
    return {name: array.numpy() for name, array in record.items()}


def by_hand(
    models: list[dict[str, Any]],
    weights: list[int],
    nodes: list[int],
    start: dict[str, Any],
) -> dict[str, Any]:
    """The server's step of an experiment on what the clients sent."""
    statistics = [name for name in start if "running" in name]
    counters = [name for name in start if "num_batches" in name]
    params = [name for name in start if name not in {*statistics, *counters}]

    def flat(model: dict[str, Any], names: list[str]) -> torch.Tensor:
        return torch.cat([torch.from_numpy(model[name].copy()).flatten() for name in names])

    order = np.argsort(np.array(nodes, dtype=np.uint64), kind="stable").tolist()
    before, still = flat(start, params), flat(start, statistics)
    matrix = WholeMatrix(torch.stack([flat(models[i], params) - before for i in order]))
    changes = torch.stack([flat(models[i], statistics) - still for i in order])
    assert keep_finite(matrix, changes).all()
    stages = [
        plugins.build("defenses", part.name, part.params) for part in backstop.parse_chain(BY_HAND)
    ]
    defense, view = chain(*stages), plain_server_view(len(before))
    sent = Shares(torch.arange(len(order)), torch.tensor([float(weights[i]) for i in order]))
    step = server_step(matrix, sent, changes, defense, defense.init(view), view)
    moved = step.moved(before, 1.0), step.moved_buffers(still)
    after = {name: start[name] for name in counters}
    for names, vector in zip((params, statistics), moved, strict=True):
        pieces = vector.split([start[name].size for name in names])
        after |= {
            name: piece.reshape(start[name].shape).numpy()
            for name, piece in zip(names, pieces, strict=True)
        }
    return after


@server_app.main()  # type: ignore[untyped-decorator]
def serve(grid: Grid, context: Context) -> None:
    """Each defense for a few rounds."""
    del context
    found = {}
    for chained in DEFENSES:
        strategy = Compared(chained)
        start = ArrayRecord(network().state_dict())
        strategy.start(grid=grid, initial_arrays=start, num_rounds=ROUNDS)
        assert strategy.defense.round == ROUNDS
        found[chained] = strategy.differences
    print("COMPARED", json.dumps(found), flush=True)


# -- the classic API


class Classic(NumPyClient):  # type: ignore[misc]
    """A client of the classic API."""

    def __init__(self, partition: int) -> None:
        self.partition = partition

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> Any:
        del config
        net = network()
        names = net.state_dict().keys()
        values = (torch.from_numpy(np.array(value)) for value in parameters)
        net.load_state_dict(dict(zip(names, values, strict=True)))
        samples = train(net, self.partition)
        return [value.numpy() for value in net.state_dict().values()], samples, {}


class ComparedClassic(DefendedClassic):
    """As Compared."""

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        chosen = super().configure_fit(server_round, parameters, client_manager)
        self.before = backstop_arrays(chosen[0][1].parameters)
        return chosen

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        after, metrics = super().aggregate_fit(server_round, results, failures)
        library = backstop.defense("norm_clip(norm=1)+median")
        expected = library.aggregate_models(
            [backstop_arrays(sent.parameters) for _, sent in results],
            [sent.num_examples for _, sent in results],
            [client.cid for client, _ in results],
            params=self.before,
            model=network(),
        )
        pairs = zip(backstop_arrays(after), expected, strict=True)
        equal = [ours.tobytes() == theirs.tobytes() for ours, theirs in pairs]
        print("CLASSIC", json.dumps([len(results), all(equal), len(equal)]), flush=True)
        return after, metrics


def backstop_arrays(parameters: Any) -> list[Any]:
    """Parameters as arrays."""
    from flwr.common import parameters_to_ndarrays

    return list(parameters_to_ndarrays(parameters))


def classic_client(context: Context) -> Client:
    """The client of a node."""
    return Classic(int(context.node_config["partition-id"])).to_client()


def classic_server(context: Context) -> ServerAppComponents:
    """A strategy of the classic API."""
    del context
    start = ndarrays_to_parameters([value.numpy() for value in network().state_dict().values()])
    inner = ClassicFedAvg(fraction_evaluate=0, min_evaluate_clients=0, initial_parameters=start)
    strategy = ComparedClassic("norm_clip(norm=1)+median", inner, model=network())
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=2))


def main() -> None:
    """Both simulations, one core for each client actor."""
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    pairs = [
        (server_app, client_app),
        (ServerApp(server_fn=classic_server), ClientApp(classic_client)),
    ]
    for server, client in pairs:
        run_simulation(
            server_app=server,
            client_app=client,
            num_supernodes=CLIENTS,
            backend_config=resources,
        )


if __name__ == "__main__":
    main()
