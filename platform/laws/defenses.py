"""Laws that hold for every defense: each takes its name and raises a breach.

A defense for which a law cannot hold by its definition lists the law's title in ``EXEMPT``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Answers, Defense, Question, Updates
from backstop.platform.laws.breach import Law, hold
from backstop.platform.laws.parameters import tries
from backstop.platform.laws.scopes import goes_in_sections
from backstop.platform.laws.streams import global_states
from backstop.platform.laws.views import plain_server_view, server_view_with
from backstop.platform.seeds import generator
from backstop.platform.training.defense_chain import only_repairs

SHAPES = ((1, 1), (1, 7), (2, 1), (2, 7), (3, 1), (3, 7), (10, 24), (40, 5))  # rows, coordinates
_D = 24
ROUNDS = 8  # after which a defense that asks clients has done so
FEW_ROWS = ((1, _D), (2, _D), (10, _D))  # for each of many parameters
SAME_SUM = 1e-4  # the same, where the rows' own rounding differs
NEAR = 1e-5  # relative difference of two sums that should be equal


def build_defense(name: str, **params: Any) -> Defense:
    """A defense by name."""
    defense: Defense = plugins.build("defenses", name, params)
    return defense


def weighed(rows: Tensor) -> Updates:
    """These rows (n, d), of clients with 1 to 49 samples."""
    n = len(rows)
    weight = torch.randint(1, 50, (n,), generator=generator(0, "tests", "weight")).float()
    return Updates(rows.clone(), weight, torch.arange(n) * 3)


def noise(
    n: int,
    d: int,
    name: str = "rows",
) -> Tensor:
    """Small random rows (n, d), the same for the same name."""
    return torch.randn(n, d, generator=generator(0, "tests", name)) * 0.01


def apply(defense: Defense, given: Updates) -> Updates:
    """What a defense makes of the first round."""
    view = server_view_with(given)
    return defense.apply(given, defense.init(view), view)[0]


def aggregate(after: Updates) -> Tensor:
    """The server's last step (d,), in float64."""
    kept = after.weight > 0
    weight = after.weight[kept].double()
    return weight @ after.rows[kept].double() / weight.sum()


def sound(after: Updates, given: Updates) -> None:
    """What every defense returns: finite rows, weights of at least 0, clients that were there."""
    types = (after.rows.dtype, after.weight.dtype, after.client.dtype)
    expected = (torch.float32, torch.float32, torch.int64)
    hold(types == expected, f"rows, weights and clients of {expected}", f"saw {types}")
    n, d = given.rows.shape
    shape = tuple(after.rows.shape)
    hold(
        1 <= shape[0] <= n and shape[1] == d,
        f"1 to {n} rows of {d} coordinates",
        f"saw {shape}",
    )
    counts = (tuple(after.weight.shape), tuple(after.client.shape))
    hold(
        counts == ((shape[0],),) * 2,
        f"a weight and a client for each of {shape[0]} rows",
        f"saw {counts}",
    )
    finite = bool(after.rows.isfinite().all()) and bool(after.weight.isfinite().all())
    odd = f"saw {_odd(after)} of {n} rows with NaN or infinity"
    hold(finite, "finite rows and weights", odd)
    least, total = after.weight.min().item(), after.weight.sum().item()
    hold(least >= 0 and total > 0, "weights of at least 0, some of them above", f"saw {least}")
    strangers = ~torch.isin(after.client, torch.cat([given.client, torch.tensor([-1])]))
    hold(not strangers.any(), "clients of the round, or -1", f"saw {after.client.tolist()}")


def _odd(after: Updates) -> int:
    return int((~after.rows.isfinite()).any(1).logical_or(~after.weight.isfinite()).sum())


def any_number_of_rows(name: str) -> None:
    """Any number of rows and coordinates, and any legal parameters, give sound updates."""
    for params in tries("defenses", name):
        for n, d in FEW_ROWS if params else SHAPES:
            given = weighed(noise(n, d))
            sound(apply(build_defense(name, **params), given), given)


def huge_rows(name: str) -> None:
    """No finite row that a client may send makes a stage return nonsense."""
    rows = noise(10, _D)
    rows[4], rows[4, ::2] = 3e38, -3e38
    rows[7] = 1e-40
    given = weighed(rows)
    for params in tries("defenses", name):
        sound(apply(build_defense(name, **params), given), given)


def leaves_arguments(name: str) -> None:
    """What is given stays as it is."""
    given = weighed(noise(10, _D) * 1e4)
    view = server_view_with(given)
    before = Updates(*(part.clone() for part in given))
    params, changes = view.params.clone(), view.buffers.changes.clone()
    defense = build_defense(name)
    defense.apply(given, defense.init(view), view)
    for part, now, then in zip(Updates._fields, given, before, strict=True):
        same = torch.equal(now, then)
        hold(same, "arguments left as they are", f"the updates' {part} were changed in place")
    same = torch.equal(view.params, params)
    hold(same, "arguments left as they are", "the view's params were changed in place")
    same = torch.equal(view.buffers.changes, changes)
    hold(same, "arguments left as they are", "the view's buffers were changed in place")


def draws_again(name: str) -> None:
    """The same call gives the same bits, and no global generator is touched."""
    given, before = weighed(noise(10, _D)), global_states()
    first, second = apply(build_defense(name), given), apply(build_defense(name), given)
    touched = [library for library, state in global_states().items() if state != before[library]]
    hold(
        not touched,
        "draws from the view's generator",
        f"saw draws from the global one of {touched}",
    )
    same = all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    hold(same, "the same bits of the same call", "saw others")


def permutation(name: str) -> None:
    """Who sends what does not matter."""
    given = weighed(noise(10, _D))
    order = torch.randperm(10, generator=generator(0, "tests", "order"))
    turned = Updates(given.rows[order], given.weight[order], given.client)
    first, second = apply(build_defense(name), given), apply(build_defense(name), turned)
    apart = _apart(aggregate(first), aggregate(second))
    hold(apart <= NEAR, "the same aggregate whoever sends what", f"saw them {apart:.1e} apart")
    if len(first.rows) == 10 and (first.client >= 0).all():
        same = torch.allclose(second.weight, first.weight[order], rtol=NEAR)
        hold(same, "the weight of a row whoever sends it", "saw others")


def identical(name: str) -> None:
    """Identical rows return themselves."""
    row = noise(1, _D)
    for n in (1, 2, 3, 10, 33):
        apart = _apart(
            aggregate(apply(build_defense(name), weighed(row.expand(n, -1)))), row[0].double()
        )
        hold(apart <= NEAR, f"of {n} equal rows the row", f"saw one {apart:.1e} apart")


def _apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, in largest values."""
    return ((one - other).abs().max() / other.abs().max().clamp_min(1e-12)).item()


def zero(name: str) -> None:
    """Zero rows move nothing."""
    moved = aggregate(apply(build_defense(name), weighed(torch.zeros(7, _D)))).abs().max().item()
    hold(moved == 0, "zero rows to move nothing", f"saw a move of {moved:.1e}")


def adversarial(name: str) -> None:
    """Attacked rows do not give the plain mean."""
    rows = noise(10, _D) + 0.1
    rows[[2, 5, 8]] = -50.0
    given = weighed(rows)
    apart = (aggregate(apply(build_defense(name), given)) - aggregate(given)).abs().max().item()
    hold(
        apart > 0.1,
        "another aggregate than the mean where three rows of ten are -50",
        f"saw one {apart:.1e} apart: on rows it does nothing",
    )


def pickled_state(name: str) -> None:
    """The state survives a process: three rounds with it pickled in between are the same."""
    defense = build_defense(name)
    straight = carried = defense.init(plain_server_view(_D))
    for number in range(3):
        given = weighed(noise(10, _D, f"round {number}"))
        one, straight = defense.apply(given, straight, server_view_with(given, number))
        kept = pickle.loads(pickle.dumps(carried))  # noqa: S301 -- of its own bytes
        other, carried = defense.apply(given, kept, server_view_with(given, number))
        same = all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        hold(same, "the same round after the state was pickled", f"round {number + 1} is another")


def states_facts(name: str) -> None:
    """The facts say what the defense does."""
    stated = plugins.defense_facts(name)
    after = apply(build_defense(name), weighed(noise(10, _D)))
    one_row = len(after.rows) == 1
    hold(
        (stated.gives == "row") == one_row,
        f"what GIVES={stated.gives!r} says",
        f"saw {len(after.rows)} of 10 rows",
    )
    mixed = bool((after.client < 0).all())
    hold(
        (stated.gives != "rows") == mixed,
        f"what GIVES={stated.gives!r} says",
        f"saw clients {after.client.tolist()}",
    )
    local = build_defense(name).local
    keeps = None
    if local is not None and (local.private or local.personal):
        parts = {"norms": "norms", "head": "head"}
        keeps = parts[local.private.part] if local.private else "model"
    hold(stated.keeps == keeps, f"what KEEPS={stated.keeps!r} says", f"saw {keeps!r}")
    repairs = only_repairs(build_defense(name))
    hold(stated.repairs == repairs, f"what REPAIRS={stated.repairs} says", f"saw {repairs}")
    asks = _asks(name)
    hold(
        ("validation" in stated.needs) == asks,
        "'validation' in NEEDS where clients are asked, and only there",
        f"saw NEEDS={stated.needs} where {'some' if asks else 'none'} are",
    )
    has_f = "f" in plugins.find("defenses", name).parameters
    hold(
        ("f" in stated.needs) == has_f,
        "'f' in NEEDS where a parameter is called f, and only there",
        f"saw NEEDS={stated.needs} {'with' if has_f else 'without'} it",
    )


def _asks(name: str) -> bool:
    """Whether a defense has let clients score models after a few rounds."""
    defense, asked = build_defense(name), []
    state = defense.init(plain_server_view(_D))
    params = plain_server_view(_D).params
    for number in range(ROUNDS):
        given = weighed(noise(10, _D, f"round {number}"))
        view = replace(server_view_with(given, number), params=params)

        def validate(question: Question, voters: Tensor | int) -> Answers:
            asked.append(len(question.models))
            return view.validate(question, voters)  # noqa: B023 -- called in this very round

        _, state = defense.apply(given, state, replace(view, validate=validate))
        params = params + given.rows.mean(0)
    return bool(asked)


def sums_of_short_rows(name: str) -> None:
    """A stage that takes a merged row as well as rows asks of short rows for their sum alone, as a
    server under secure aggregation has it: what one row loses another may have.
    """
    if plugins.defense_facts(name).takes != "row":
        return
    rows = noise(10, _D) * 0.01
    moved = rows.clone()
    step = noise(1, _D, "step")[0] * 0.01
    moved[2] += step
    moved[7] -= step
    clients, weight = torch.arange(10), torch.full((10,), 20.0)
    first, second = (
        aggregate(apply(build_defense(name), Updates(each, weight, clients)))
        for each in (rows, moved)
    )
    apart = _apart(first, second)
    hold(
        apart <= SAME_SUM,
        "what TAKES='row' says: the same aggregate of short rows with the same sum",
        f"saw them {apart:.1e} apart",
    )


DEFENSE_LAWS: Mapping[str, Law] = {
    "any number of rows": any_number_of_rows,
    "huge rows": huge_rows,
    "arguments": leaves_arguments,
    "draws": draws_again,
    "state": pickled_state,
    "permutation": permutation,
    "identical": identical,
    "zero": zero,
    "adversarial": adversarial,
    "facts": states_facts,
    "sums": sums_of_short_rows,
    "sections": goes_in_sections,
}
