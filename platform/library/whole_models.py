"""Rounds of a server whose clients send whole models: what it sends, and the next global model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.library.aggregation import Aggregator, defense
from backstop.platform.library.identities import Id
from backstop.platform.library.needs import HOW
from backstop.platform.library.replies import ModelArrays, Reply, of_types, unusable
from backstop.platform.params import BadInput
from backstop.platform.specs.part import Part, chain_text


class Next(NamedTuple):
    """What a round ends with."""

    model: ModelArrays | None  # None: nobody's could be used, the global model stays
    left_out: Mapping[Id, str]  # client → why what it sent could not be used


def read_defense(given: str | Part | Sequence[Part | str] | Aggregator) -> Aggregator:
    """A defense from a chain, or as :func:`backstop.defense` made it."""
    return given if isinstance(given, Aggregator) else defense(given)


def check_needs(chosen: Aggregator, model: Any, root: Any) -> None:
    """Raise BadInput where a defense needs a model or a root set that is None."""
    lacking = {"model": model is None, "root": root is None}
    hints = [HOW[need] for need in chosen.needs if lacking.get(need)]
    if hints:
        chained = chain_text(chosen.spec.defense, "defense")
        raise BadInput(f"defense {chained} needs more than updates; give {'; '.join(hints)}")


class WholeModels:
    """A defense on whole models, round after round.

    A reply is left out where its arrays are not those of the model that was sent, or its sample
    count is no positive number: a client cannot end the federation with what it sends.
    """

    def __init__(self, chosen: Aggregator, model: Any, root: Any) -> None:
        """``model`` and ``root`` are as in ``Aggregator.aggregate``. Raises BadInput where the
        defense needs one that is None.
        """
        check_needs(chosen, model, root)
        self.defense = chosen
        self._extras = {"model": model, "root": root}
        self._sent: ModelArrays | None = None

    def send(self, params: ModelArrays) -> ModelArrays:
        """What the clients of a round are sent in place of the global model, ``params``."""
        if self.defense.sends:
            params = self.defense.send(params, **self._extras)
        self._sent = params
        return params

    def after(self, replies: Sequence[Reply]) -> Next:
        """The next global model, of what clients made of the one that was sent last."""
        sent = self._sent
        if sent is None:
            raise BadInput("defense: no model was sent, and updates are told from it")
        left_out: dict[Id, str] = {}
        used = []
        for reply in replies:
            reason = unusable(reply, sent)
            if reason:
                left_out[reply.client] = reason
            else:
                used.append(reply)
        if not used:
            return Next(None, left_out)
        after: ModelArrays = self.defense.aggregate_models(
            [of_types(reply.arrays, sent) for reply in used],
            [float(reply.weight) for reply in used],
            [reply.client for reply in used],
            params=sent,
            **self._extras,
        )
        return Next(after, left_out)
