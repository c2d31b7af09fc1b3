"""A defense as a strategy of Flower's classic API, whose clients have ``fit``."""

from __future__ import annotations

from collections.abc import Sequence
from logging import WARNING
from typing import Any

from flwr.common import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg, Strategy
from flwr.supercore import log

from backstop.platform.library.aggregation import Aggregator
from backstop.platform.library.replies import Reply
from backstop.platform.library.whole_models import WholeModels, read_defense
from backstop.platform.params import BadInput
from backstop.platform.specs.part import Part

Scalars = dict[str, Any]
FitFailures = list[tuple[ClientProxy, FitRes] | BaseException]


class DefendedClassic(Strategy):  # type: ignore[misc]  # flwr is of an extra
    """As :class:`backstop.flower.Defended`, for apps with ``NumPyClient`` and ``server_fn``.

    Models are lists of arrays here, without names: which of them are statistics of normalization
    layers only ``model`` can tell. Clients are known by their ``cid``.
    """

    def __init__(
        self,
        defense: str | Part | Sequence[Part | str] | Aggregator,
        strategy: FedAvg | None = None,
        *,
        model: Any = None,
        root: Any = None,
    ) -> None:
        """As of :class:`backstop.flower.Defended`; ``strategy`` is ``flwr.server.strategy.FedAvg``
        unless given. Raises BadInput.
        """
        self.strategy = FedAvg() if strategy is None else strategy
        if getattr(type(self.strategy), "aggregate_fit", None) is not FedAvg.aggregate_fit:
            raise BadInput(
                f"DefendedClassic: strategy {type(self.strategy).__name__} does not average as"
                " FedAvg does, and a defense aggregates in its place; give FedAvg, FedProx or a"
                " subclass that leaves aggregate_fit alone"
            )
        self.defense = read_defense(defense)
        self._rounds = WholeModels(self.defense, model, root)

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """As the strategy does."""
        return self.strategy.initialize_parameters(client_manager)

    def configure_fit(
        self,
        server_round: int,
        parameters: Parameters,
        client_manager: ClientManager,
    ) -> list[tuple[ClientProxy, FitIns]]:
        """As the strategy does, with the model that the defense sends."""
        sent = self._rounds.send(parameters_to_ndarrays(parameters))
        if self.defense.sends:
            parameters = ndarrays_to_parameters(sent)
        chosen: list[tuple[ClientProxy, FitIns]] = self.strategy.configure_fit(
            server_round, parameters, client_manager
        )
        return chosen

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: FitFailures,
    ) -> tuple[Parameters | None, Scalars]:
        """The next global model, and the metrics; None where there is nothing to aggregate."""
        del server_round
        if failures and not self.strategy.accept_failures:
            return None, {}
        result = self._rounds.after([_reply(client, sent) for client, sent in results])
        for cid, reason in result.left_out.items():
            log(WARNING, "aggregate_fit: client %s is left out: %s", cid, reason)
        if result.model is None:
            return None, {}
        used = [sent for client, sent in results if client.cid not in result.left_out]
        return ndarrays_to_parameters(result.model), self._metrics(used)

    def _metrics(self, used: list[FitRes]) -> Scalars:
        aggregate = self.strategy.fit_metrics_aggregation_fn
        if aggregate is None:
            return {}
        metrics: Scalars = aggregate([(sent.num_examples, sent.metrics) for sent in used])
        return metrics

    def configure_evaluate(
        self,
        server_round: int,
        parameters: Parameters,
        client_manager: ClientManager,
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """As the strategy does."""
        chosen: list[tuple[ClientProxy, EvaluateIns]] = self.strategy.configure_evaluate(
            server_round, parameters, client_manager
        )
        return chosen

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, Scalars]:
        """As the strategy does."""
        aggregated: tuple[float | None, Scalars] = self.strategy.aggregate_evaluate(
            server_round, results, failures
        )
        return aggregated

    def evaluate(
        self,
        server_round: int,
        parameters: Parameters,
    ) -> tuple[float, Scalars] | None:
        """As the strategy does."""
        evaluated: tuple[float, Scalars] | None = self.strategy.evaluate(server_round, parameters)
        return evaluated


def _reply(client: ClientProxy, sent: FitRes) -> Reply:
    return Reply(client.cid, parameters_to_ndarrays(sent.parameters), sent.num_examples)
