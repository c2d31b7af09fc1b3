"""Flower's own classes called by hand, without a simulation; run by test_flower.py in an
environment of its own. Every function that begins with ``check`` is called; prints how many.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.server.strategy import FedAdam as ClassicFedAdam
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx
from flwr.supercore.task_identity import TaskIdentity
from torch import nn

import backstop
from backstop.flower import Defended, DefendedClassic, malicious
from backstop.platform.library.crafting import Sender, crafted
from backstop.platform.training.partition import malicious_clients

NODES = 6
GRID: Any = SimpleNamespace(get_node_ids=lambda: list(range(1, NODES + 1)))
SAMPLING = {"fraction_evaluate": 0.0, "min_available_nodes": NODES}


def record(value: float) -> ArrayRecord:
    """A model of one array."""
    return ArrayRecord({"w": Array(np.full((2, 3), value, np.float32))})


def context(partition: int, node: int = 1) -> Context:
    """That of one of ten partitions."""
    config = {"partition-id": partition, "num-partitions": 10}
    return Context(1, node, config, RecordDict(), {})


def asked() -> Message:
    """What a server asks a client."""
    content = RecordDict({"arrays": record(1.0), "config": ConfigRecord({"server-round": 1})})
    return Message(content=content, dst_node_id=1, message_type="train")


def answer(message: Message, value: float, metrics: dict[str, Any] | None = None) -> Message:
    """What a client replies."""
    given = {"num-examples": 10} if metrics is None else metrics
    content = RecordDict({"arrays": record(value), "metrics": MetricRecord(given)})
    return Message(content=content, reply_to=message)


def values(message: Message) -> Any:
    """The numbers of the model in a message."""
    return message.content["arrays"]["w"].numpy()


def refused(call: Callable[[], object], words: str) -> None:
    """Whether one line says why something cannot be."""
    try:
        call()
    except backstop.BadInput as error:
        assert words in str(error), error
        assert "\n" not in str(error)
    else:
        raise AssertionError(words)


def check_what_a_strategy_sends() -> None:
    strategy = Defended("crfl(norm=10, noise=0.5)", FedAvg(**SAMPLING))
    messages = list(strategy.configure_train(1, record(1.0), ConfigRecord(), GRID))
    assert len(messages) == NODES
    assert all((values(one) == values(messages[0])).all() for one in messages)
    expected = backstop.defense("crfl(norm=10, noise=0.5)").send({"w": record(1.0)["w"].numpy()})
    assert (values(messages[0]) == expected["w"]).all()
    assert (values(messages[0]) != 1).all()
    plain = Defended("median", FedProx(proximal_mu=0.5, **SAMPLING))
    (first, *_) = plain.configure_train(1, record(1.0), ConfigRecord(), GRID)
    assert (values(first) == 1).all()
    assert first.content["config"]["proximal-mu"] == 0.5


def check_a_client_cannot_end_a_federation() -> None:
    strategy = Defended("median", FedAvg(**SAMPLING))
    messages = list(strategy.configure_train(1, record(1.0), ConfigRecord(), GRID))
    replies = [answer(message, 2.0) for message in messages[:3]]
    replies.append(answer(messages[3], 9.0, {"num-examples": -1}))
    replies.append(answer(messages[4], 9.0, {"other": 3}))
    empty = Message(content=RecordDict(), reply_to=messages[5])
    after, metrics = strategy.aggregate_train(1, [*replies, empty])
    assert after is not None and metrics is not None
    assert (after["w"].numpy() == 2).all()
    assert len(strategy.defense.kept) == 3
    assert strategy.aggregate_train(2, [empty]) == (None, None)
    assert strategy.aggregate_train(3, []) == (None, None)


def check_strategies_that_cannot_be() -> None:
    refused(lambda: Defended("median", FedAdam()), "strategy FedAdam does not average")
    classic = ClassicFedAdam.__new__(ClassicFedAdam)
    refused(lambda: DefendedClassic("median", classic), "strategy FedAdam does not average")
    refused(lambda: Defended("fltrust"), "give model=, a torch.nn.Module; root=(x, y)")
    refused(lambda: Defended("mediam"), "did you mean 'median'?")
    refused(lambda: Defended("fedprox"), "changes how clients train")


def check_a_root_set_serves_a_defense() -> None:
    net = nn.Linear(3, 2)
    root = torch.eye(3), torch.tensor([0, 1, 1])
    strategy = Defended("fltrust", FedAvg(**SAMPLING), model=net, root=root)
    start = ArrayRecord(net.state_dict())
    messages = list(strategy.configure_train(1, start, ConfigRecord(), GRID))
    content = RecordDict({"arrays": start, "metrics": MetricRecord({"num-examples": 9})})
    replies = [Message(content=content, reply_to=message) for message in messages]
    after, _ = strategy.aggregate_train(1, replies)
    assert after is not None
    assert list(after) == ["weight", "bias"]


def check_who_is_malicious_sends_another_model() -> None:
    chain = "model_replacement(strength=5)+gaussian(std=2)"
    attack = pickle.loads(pickle.dumps(malicious(chain, clients=[7, 3])))
    honest = attack(asked(), context(0), lambda message, _: answer(message, 2.0))
    assert (values(honest) == 2).all()
    kept = context(7)
    for turn in range(2):
        sent = attack(asked(), kept, lambda message, _: answer(message, 2.0))
        expected = crafted(
            backstop.parse_chain(chain),
            {"w": record(2.0)["w"].numpy()},
            {"w": record(1.0)["w"].numpy()},
            Sender(0, 1, turn),
        )
        assert (values(sent) == expected["w"]).all()
    assert sent.content["metrics"]["num-examples"] == 10


def check_a_share_is_that_of_an_experiment() -> None:
    attack = malicious("sign_flip", share=0.3, seed=5)
    found = [partition for partition in range(10) if attack.attacks(context(partition))]
    assert found == malicious_clients(10, 0.3, 5).tolist()
    refused(lambda: malicious("sign_flip", share=0.01).attacks(context(0)), "is nobody")
    bare = Context(1, 77, {}, RecordDict(), {})
    refused(lambda: attack.attacks(bare), "has no partition-id and num-partitions")
    assert malicious("sign_flip", clients=[77]).attacks(bare)


def check_data_are_poisoned_where_the_client_is_malicious() -> None:
    x, y = np.zeros((20, 1, 8, 8), np.float32), np.arange(20) % 10
    attack = malicious("badnets(share=0.5)+model_replacement", clients=[3])
    assert attack.poisoned((x, y), context(1))[0] is x
    after, labels = attack.poisoned((x, y), context(3))
    assert (after != x).any((1, 2, 3)).sum() == 10
    assert (labels == 0).sum() >= 10
    evaluating = asked()
    evaluating.metadata.message_type = "evaluate"
    same = attack(evaluating, context(3), lambda message, _: answer(message, 2.0))
    assert (values(same) == 2).all()


def check_what_malicious_clients_cannot_be() -> None:
    refused(lambda: malicious("sign_flip"), "give clients=, ids of partitions, or share=")
    refused(lambda: malicious("sign_flip", clients=[0], share=0.1), "one of the two")
    refused(lambda: malicious("sign_flip", share=2.0), "share=2.0 is not allowed")
    refused(lambda: malicious("sign_flip", clients=[]), "clients is empty")
    refused(lambda: malicious("sign_flip", clients=["a"]), "clients holds 'a'")  # type: ignore[list-item]
    refused(lambda: malicious("ipm", clients=[0]), "updates of honest clients")
    refused(lambda: malicious("neurotoxin", clients=[0]), "run it in a federation of Backstop's")


def main() -> None:
    """Every check, one after another."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = (
        1,
        1,
        1,
    )  # Flower's runtime does
    checks = [check for name, check in globals().items() if name.startswith("check")]
    for check in checks:
        check()
    print("CHECKED", json.dumps(len(checks)))


if __name__ == "__main__":
    main()
