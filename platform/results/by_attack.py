"""Attack success of every attack against every defense."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import NamedTuple

import pandas as pd

from backstop.platform.results.cells import SUCCESS, UNTRIGGERED
from backstop.platform.results.columns import ranked_rows
from backstop.platform.results.frames import cells_frame, exact_mean
from backstop.platform.results.names import (
    ChainName,
    Json,
    attack_names,
    chain_order,
    document_chains,
)
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
    attacked = cells[cells["attack"] != NOTHING["attack"]]
    ranked = set(attacked.loc[attacked["left_out"].isna(), "attack"])
    measured = attacked[attacked[f"{SUCCESS}_mean"].notna()]
    if measured["attack"].nunique() < 2:
        return None
    undefended = measured[measured["defense"] == NOTHING["defense"]]
    successes = mean_success(measured)
    clean_twins = _means_by_attack(measured, "natural_success")
    untriggered = _means_by_attack(undefended, UNTRIGGERED)
    knows = dict(zip(measured["attack"], measured["knows"], strict=True))
    names, chains = attack_names(document), document_chains(document)
    attacks = sorted(knows, key=lambda attack: (chain_order(chains[attack]), attack))
    defenses = [row.defense for row in ranked_rows(document)]
    lines = [
        AttackLine(
            names[attack] if attack in ranked else names[attack].marked("°"),
            knows[attack],
            clean_twins.get(attack),
            untriggered.get(attack),
            [successes.get((attack, defense.text)) for defense in defenses],
        )
        for attack in attacks
    ]
    return AttackTable(defenses, lines)


def mean_success(cells: pd.DataFrame) -> Mapping[Hashable, float]:
    """(attack, defense) → attack success in the mean over the cells that have it."""
    rates = cells.groupby(["attack", "defense"])[f"{SUCCESS}_mean"].agg(exact_mean).dropna()
    return rates.to_dict()


def _means_by_attack(cells: pd.DataFrame, figure: str) -> Mapping[Hashable, float]:
    return cells.groupby("attack")[f"{figure}_mean"].agg(exact_mean).dropna().to_dict()
