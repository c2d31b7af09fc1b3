"""Attack success of every attack against every defense."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

import pandas as pd

from backstop.platform.results.figures.cells import SUCCESS, UNTRIGGERED
from backstop.platform.results.figures.names import (
    ChainName,
    Json,
    attack_names,
    chain_order,
    document_chains,
)
from backstop.platform.results.tables.columns import ranked_rows
from backstop.platform.results.tables.frames import cells_frame, exact_mean
from backstop.platform.specs.part import NOTHING

BY_ATTACK_NOTE = (
    "Clean twin: the same triggered inputs, before a model that nobody attacked. Untriggered: the"
    " same inputs without the trigger, before the model that FedAvg gives under the attack."
    " ° counts in no rank."
)


class AttackLine(NamedTuple):
    """One attack; its rates are means over settings and seeds, None where there are none."""

    attack: ChainName  # marked with ° where it counts in no rank in any setting
    knows: str
    clean_twin: float | None
    untriggered: float | None
    successes: list[float | None]  # against each defense of the table


class AttackTable(NamedTuple):
    """Attacks by name and then by the values of their parameters, defenses by rank."""

    defenses: list[ChainName]
    lines: list[AttackLine]


def attack_table(document: Json) -> AttackTable | None:
    """The table; None for fewer than two attacks that have a success."""
    cells = cells_frame(document)
    if cells.empty:
        return None
    attacked = cells[(cells["attack"] != NOTHING["attack"]) & ~cells["searched"]]
    ranked = set(attacked.loc[attacked["left_out"].isna(), "attack"])
    measured = attacked[attacked[f"{SUCCESS}_mean"].notna()]
    if measured["attack"].nunique() < 2:
        return None
    return AttackTable(
        defenses=[row.defense for row in ranked_rows(document)],
        lines=_lines(document, measured, ranked),
    )


def _lines(
    document: Json,
    measured: pd.DataFrame,
    ranked: set[str],
) -> list[AttackLine]:
    """A line for each attack of the cells that have a success; ``ranked`` are those that count."""
    undefended = measured[measured["defense"] == NOTHING["defense"]]
    clean_twins = _means_by_attack(measured, "natural_success")
    untriggered = _means_by_attack(undefended, UNTRIGGERED)
    successes = mean_success(measured)
    knows = dict(zip(measured["attack"], measured["knows"], strict=True))
    names = attack_names(document)
    defenses = [row["defense"] for row in document["rows"]]
    lines = []
    for attack in _in_order(knows, document):
        name = names[attack]
        line = AttackLine(
            attack=name if attack in ranked else name.marked("°"),
            knows=knows[attack],
            clean_twin=clean_twins.get(attack),
            untriggered=untriggered.get(attack),
            successes=[successes.get((attack, defense)) for defense in defenses],
        )
        lines.append(line)
    return lines


def _in_order(attacks: Iterable[str], document: Json) -> list[str]:
    """Attacks by name and then by the values of their parameters."""
    chains = document_chains(document)
    return sorted(attacks, key=lambda attack: (chain_order(chains[attack]), attack))


def mean_success(cells: pd.DataFrame) -> Mapping[Hashable, float]:
    """(attack, defense) → attack success in the mean over the cells that have it."""
    rates = cells.groupby(["attack", "defense"])[f"{SUCCESS}_mean"].agg(exact_mean).dropna()
    return rates.to_dict()


def _means_by_attack(cells: pd.DataFrame, figure: str) -> Mapping[Hashable, float]:
    return cells.groupby("attack")[f"{figure}_mean"].agg(exact_mean).dropna().to_dict()
