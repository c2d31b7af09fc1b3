"""What must be said below a leaderboard, in sentences without a stop at their ends."""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.results.cells import SUCCESS
from backstop.platform.results.names import Json, attack_names
from backstop.platform.results.wording import plural
from backstop.platform.specs.part import NOTHING

Cells = Sequence[Json]


def incomplete(document: Json, most: int = 5) -> str:
    """Which planned runs are not in the document, the first few by name; empty where all are."""
    missing = [item["run"] for item in document["missing_runs"]]
    if not missing:
        return ""
    more = [f"and {len(missing) - most} more"] if len(missing) > most else []
    verb = "is" if len(missing) == 1 else "are"
    listed = "; ".join([*missing[:most], *more])
    return f"INCOMPLETE: {plural(len(missing), 'planned run')} {verb} missing: {listed}"


def footnotes(document: Json) -> list[str]:
    """What the marks mean, where there are any, and what is not ranked."""
    rows = document["rows"]
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    notes = []
    if any(row["missing"] for row in rows):
        notes.append(
            "† lacks attacks or settings that other rows have;"
            " its means are not over the same cells"
        )
    notes += _left_out(document, attacked)
    notes += _without_attackers(attacked)
    notes += _without_success(document, attacked)
    notes += _not_judged(attacked)
    if any(row["diverged"] for row in rows):
        notes.append(
            "‡ holds diverged runs; a figure they lack counts as accuracy 0 and attack success 1"
        )
    return notes


def _left_out(document: Json, attacked: Cells) -> list[str]:
    names = attack_names(document)
    several_settings = len(document["settings"]) > 1
    reasons = {}
    for cell in attacked:
        if cell["left_out"]:
            reasons[cell["setting"], cell["attack"]] = cell["left_out"]
    notes = []
    for (setting, attack), reason in reasons.items():
        where = f" (setting {setting})" if several_settings else ""
        notes.append(f"not ranked: {names[attack]}{where}: {reason}")
    return notes


def _without_attackers(attacked: Cells) -> list[str]:
    seeds: set[int] = set()
    for cell in attacked:
        if cell["seeds"]:
            seeds.update(cell["unattacked_seeds"])
    if not seeds:
        return []
    listed = ", ".join(map(str, sorted(seeds)))
    runs = f"in some runs of seed {listed}"
    return [f"{runs} no malicious client took part in an attacked round; they count nowhere"]


def _without_success(document: Json, attacked: Cells) -> list[str]:
    names = attack_names(document)
    silent = {
        str(names[cell["attack"]]) for cell in attacked if cell["seeds"] and cell[SUCCESS] is None
    }
    if not silent:
        return []
    listed = ", ".join(sorted(silent))
    return [f"without an attack success, counted in the accuracy only: {listed}"]


def _not_judged(attacked: Cells) -> list[str]:
    attacks = {
        cell["attack"] for cell in attacked if cell["bites"] is None and cell[SUCCESS] is not None
    }
    if not attacks:
        return []
    unknown = f"whether {plural(len(attacks), 'attack')} did anything is not known"
    return [f"{unknown}: undefended FedAvg or the clean twin has not run"]
