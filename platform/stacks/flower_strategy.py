"""A defense as a strategy of Flower's message API."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.supercore import log

from backstop.platform.library.aggregation import Aggregator
from backstop.platform.library.replies import Reply
from backstop.platform.library.whole_models import WholeModels, read_defense
from backstop.platform.params import BadInput
from backstop.platform.specs.part import Part, chain_text


class DefendedStrategy(Strategy):  # type: ignore[misc]  # flwr is of an extra
    """A strategy that samples, configures and evaluates as another one does, and aggregates what
    clients send with a defense.

    What it makes of the clients' models is what :func:`backstop.defense` makes of them, bit for
    bit: updates against the model that was sent, node ids as clients, ``num-examples`` (the
    strategy's ``weighted_by_key``) as weights. Floating-point arrays whose name ends in
    ``running_mean`` or ``running_var``, or that are buffers of ``model``, are statistics that
    follow the defense; integer arrays stay those of the global model. Metrics are aggregated by
    the strategy. Replies with an error, with other arrays than the model's, or without a positive
    sample count are left out, and the log says so.
    """

    def __init__(
        self,
        defense: str | Part | Sequence[Part | str] | Aggregator,
        strategy: FedAvg | None = None,
        *,
        model: Any = None,
        root: Any = None,
    ) -> None:
        """``defense`` is a chain, or what :func:`backstop.defense` returns where it has a seed or
        another option. ``strategy`` is Flower's ``FedAvg()`` unless given; one that aggregates in
        its own way is refused. ``model``, a torch.nn.Module, and ``root``, clean samples (x, y),
        are for defenses that need them. Raises BadInput.
        """
        self.strategy = FedAvg() if strategy is None else strategy
        _check_averages(self.strategy)
        self.defense = read_defense(defense)
        self._rounds = WholeModels(self.defense, model, root)

    def summary(self) -> None:
        """Log the defense, and the strategy's settings."""
        log(INFO, "\t├──> Defense: %s", chain_text(self.defense.spec.defense, "defense"))
        self.strategy.summary()

    def configure_train(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """As the strategy does, with the model that the defense sends."""
        sent = self._rounds.send(_arrays(arrays))
        if self.defense.sends:
            arrays = _record(sent)
        messages: Iterable[Message] = self.strategy.configure_train(
            server_round, arrays, config, grid
        )
        return messages

    def aggregate_train(
        self,
        server_round: int,
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next global model, and the metrics; None where there is nothing to aggregate."""
        del server_round
        valid, _ = self.strategy._check_and_log_replies(  # noqa: SLF001 -- as its subclasses do
            replies, is_train=True, validate=False
        )
        result = self._rounds.after([self._reply(message) for message in valid])
        for client, reason in result.left_out.items():
            log(WARNING, "aggregate_train: node %s is left out: %s", client, reason)
        used = [
            message.content
            for message in valid
            if message.metadata.src_node_id not in result.left_out
        ]
        if result.model is None:
            return None, None
        key = self.strategy.weighted_by_key
        return _record(result.model), self.strategy.train_metrics_aggr_fn(used, key)

    def configure_evaluate(
        self,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        """As the strategy does."""
        messages: Iterable[Message] = self.strategy.configure_evaluate(
            server_round, arrays, config, grid
        )
        return messages

    def aggregate_evaluate(
        self,
        server_round: int,
        replies: Iterable[Message],
    ) -> MetricRecord | None:
        """As the strategy does."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def _reply(self, message: Message) -> Reply:
        arrays = list(message.content.array_records.values())
        metrics = list(message.content.metric_records.values())
        model = _arrays(arrays[0]) if len(arrays) == 1 else {}
        weight = metrics[0].get(self.strategy.weighted_by_key) if len(metrics) == 1 else None
        return Reply(message.metadata.src_node_id, model, weight)


def _check_averages(strategy: Any) -> None:
    """Raise BadInput for a strategy whose aggregation is not the mean that a defense replaces."""
    own = getattr(type(strategy), "aggregate_train", None)
    if own is not FedAvg.aggregate_train:
        raise BadInput(
            f"Defended: strategy {type(strategy).__name__} does not average as FedAvg does, and a"
            " defense aggregates in its place; give FedAvg, FedProx or a subclass that leaves"
            " aggregate_train alone"
        )


def _arrays(record: ArrayRecord) -> dict[str, Any]:
    return {name: array.numpy() for name, array in record.items()}


def _record(model: Any) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in model.items()})
