"""A client mod of Flower that makes chosen clients malicious."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import WARNING
from typing import Annotated, Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType
from flwr.supercore import log

from backstop.platform.library.client_stages import read_client_stages
from backstop.platform.library.crafting import Sender, crafted
from backstop.platform.library.inputs import Channels
from backstop.platform.library.poisoning import DataPoison, read_poison
from backstop.platform.params import BadInput, Range, check, declare
from backstop.platform.specs.part import Part
from backstop.platform.training.partition import malicious_clients

PARTITION, PARTITIONS = "partition-id", "num-partitions"  # Flower's keys in a node's config
TURNS, ASKED = "backstop-turns", "backstop-asked"  # in a node's state: how often
_WHERE = "malicious"
PARTITION_SHARE = declare(
    "share", Annotated[float, Range(0, 1, low_open=True), "of all partitions"], None
)


def malicious(
    stages: str | Part | Sequence[Part | str],
    *,
    clients: Sequence[int] | None = None,
    share: float | None = None,
    seed: int = 0,
    classes: int | None = None,
    channels: Channels = "first",
    known: tuple[Any, Any] | None = None,
    vocabulary: Mapping[str, int] | None = None,
) -> Malicious:
    """A client mod that makes some clients malicious with the stages of an attack.

    Who: ``clients`` are ids of partitions (``partition-id`` in a node's config; where there is
    none, node ids), or ``share`` is that of all partitions, drawn by ``seed`` as in an experiment
    with that seed. What these clients train is theirs; stages that craft (``model_replacement``,
    ``sign_flip``, ``gaussian``; of ``pgd`` the last projection) change what they send. Stages that
    poison do nothing until the client app asks for poisoned data, with :meth:`Malicious.poisoned`.
    The other options are those of :func:`backstop.flower.poisoned`.

    Raises :class:`BadInput` for a stage that needs more than one client has.
    """
    chain = read_client_stages(stages, _WHERE)
    if (clients is None) == (share is None):
        raise BadInput(f"{_WHERE}: give clients=, ids of partitions, or share=, one of the two")
    ids = None if clients is None else _read_clients(clients)
    if share is not None:
        check(PARTITION_SHARE, share, _WHERE)
    poison = read_poison(chain.poisoning, seed, classes, channels, known, vocabulary)
    return Malicious(chain.crafting, poison, ids, share)


class Malicious:
    """A client mod, as :func:`malicious` makes it: give it to ``ClientApp(mods=[…])``."""

    def __init__(
        self,
        crafting: tuple[Part, ...],
        poison: DataPoison,
        clients: tuple[int, ...] | None,
        share: float | None,
    ) -> None:
        """``crafting`` are the stages that change what is sent, ``poison`` the others."""
        self._crafting, self._poison = crafting, poison
        self._clients, self._share = clients, share

    def attacks(self, context: Context) -> bool:
        """Whether the client of this context is malicious."""
        return self._index(context) is not None

    def poisoned(self, data: Any, context: Context) -> Any:
        """The client's training data: poisoned where it is malicious, else as they are."""
        index = self._index(context)
        if index is None or not self._poison.parts:
            return data
        _count(context, ASKED)
        return self._poison.of(data, index)

    def __call__(
        self,
        message: Message,
        context: Context,
        call_next: Callable[[Message, Context], Message],
    ) -> Message:
        """What Flower calls: the client's reply, changed where it is malicious and was asked to
        train.
        """
        index = self._index(context)
        if index is None or message.metadata.message_type != MessageType.TRAIN:
            return call_next(message, context)
        sent = _arrays(message, "message")
        turn = _count(context, TURNS)
        reply = call_next(message, context)
        self._check_asked(context)
        if reply.has_error() or not self._crafting:
            return reply
        sender = Sender(self._poison.knowledge.seed, index, turn)
        after = crafted(self._crafting, _arrays(reply, "reply"), sent, sender)
        key = next(iter(reply.content.array_records))
        reply.content[key] = ArrayRecord(
            {name: Array(np.asarray(array)) for name, array in after.items()}
        )
        return reply

    def _index(self, context: Context) -> int | None:
        """Which of the malicious clients this one is; None: it is honest."""
        config = context.node_config
        if self._clients is not None:
            ids = list(self._clients)
        elif PARTITION in config and PARTITIONS in config:
            ids = self._drawn(int(config[PARTITIONS]))
        else:
            raise BadInput(
                f"{_WHERE}: share={self._share} is of the partitions, and this node's config has no"
                f" {PARTITION} and {PARTITIONS}; give clients= instead"
            )
        own = int(config.get(PARTITION, context.node_id))
        return ids.index(own) if own in ids else None

    def _drawn(self, partitions: int) -> list[int]:
        """The ids of the malicious ones, which are those of an experiment of this seed."""
        assert self._share is not None
        ids: list[int] = malicious_clients(
            partitions, self._share, self._poison.knowledge.seed
        ).tolist()
        if not ids:
            raise BadInput(f"{_WHERE}: share={self._share} of {partitions} partitions is nobody")
        return ids

    def _check_asked(self, context: Context) -> None:
        """Say where a client trains on clean data though the attack poisons them."""
        if self._poison.parts and ASKED not in context.state:
            log(
                WARNING,
                "malicious: attack %s poisons data, and the client app has not asked for them:"
                " data = attack.poisoned(data, context)",
                self._poison.parts[0].name,
            )


def _read_clients(clients: Any) -> tuple[int, ...]:
    if isinstance(clients, str) or not isinstance(clients, Iterable):
        raise BadInput(f"{_WHERE}: clients={clients!r}; give a list of ids, whole numbers")
    ids = list(clients)
    for one in ids:
        if not isinstance(one, int | np.integer) or isinstance(one, bool) or one < 0:
            raise BadInput(f"{_WHERE}: clients holds {one!r}; an id is a whole number from 0 on")
    if not ids:
        raise BadInput(f"{_WHERE}: clients is empty; leave the mod out where nobody is malicious")
    return tuple(sorted({int(one) for one in ids}))


def _arrays(message: Message, what: str) -> dict[str, Any]:
    """The one model that a message holds."""
    records = message.content.array_records
    if len(records) != 1:
        raise BadInput(
            f"{_WHERE}: the {what} holds {len(records)} array records; a model is one of them"
        )
    (record,) = records.values()
    return {name: array.numpy() for name, array in record.items()}


def _count(context: Context, key: str) -> int:
    """How often this was called before on this client; Flower keeps its state between rounds."""
    before = int(context.state[key]["times"]) if key in context.state else 0
    context.state[key] = ConfigRecord({"times": before + 1})
    return before
