"""The ids of clients as the whole numbers by which defenses know them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from backstop.platform.params import BadInput

Id = str | int
FIRST_NAME = 1 << 62  # whole numbers below stand for themselves


class Identities(NamedTuple):
    """Whole numbers from 0 to 2⁶² - 1 stand for themselves. Names, and whole numbers beyond, are
    numbered from 2⁶² on as they are first seen, those of one round in their order.

    >>> known = Identities().seeing(["oslo", "bergen", 3])
    >>> [known.number("oslo") - FIRST_NAME, known.number("bergen") - FIRST_NAME, known.number(3)]
    [1, 0, 3]
    """

    numbers: Mapping[Id, int] = {}

    def seeing(self, clients: Sequence[Id]) -> Identities:
        """Those that know these clients too."""
        fresh = {client for client in clients if client not in self.numbers}
        named = [client for client in fresh if not _is_own(client)]
        numbers = dict(self.numbers)
        for client in sorted(named, key=lambda client: (isinstance(client, str), client)):
            numbers[client] = FIRST_NAME + len(numbers)
        return Identities(numbers)

    def number(self, client: Id) -> int:
        """The number of a client that was seen."""
        return client if _is_own(client) else self.numbers[client]  # type: ignore[return-value]


def read_ids(clients: Any, count: int) -> list[Id]:
    """The ids of ``count`` clients as they were given; None: 0 to count - 1. Raises BadInput for
    one that cannot be, or that comes twice.
    """
    if clients is None:
        return list(range(count))
    if isinstance(clients, Tensor | np.ndarray):
        clients = clients.tolist()
    if isinstance(clients, str) or not isinstance(clients, Iterable):
        raise BadInput(f"clients={clients!r}; give a list of ids, whole numbers or names")
    ids = [_read_id(client) for client in clients]
    if len(ids) != count:
        raise BadInput(f"clients holds {len(ids)} ids for {count} updates; give one for each")
    for client, times in Counter(ids).items():
        if times > 1:
            raise BadInput(f"clients holds {client!r} {times} times; a client sends one update")
    return ids


def _read_id(client: Any) -> Id:
    if isinstance(client, str):
        return str(client)
    if isinstance(client, int | np.integer) and not isinstance(client, bool):
        return int(client)
    raise BadInput(f"clients holds {client!r}; an id is a whole number or a name")


def _is_own(client: Id) -> bool:
    return isinstance(client, int) and 0 <= client < FIRST_NAME
