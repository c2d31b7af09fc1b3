"""What must be said below a leaderboard, in sentences without a stop at their ends."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from backstop.platform.results.figures.cells import SUCCESS
from backstop.platform.results.figures.names import Json, attack_names
from backstop.platform.results.figures.wording import kind_of_ends, plural
from backstop.platform.results.leaderboard.entries import ABSENT_FIELD
from backstop.platform.results.leaderboard.standings import REFERENCE, VARIANT
from backstop.platform.results.tables.columns import footnote_marks, ranked_rows
from backstop.platform.specs.part import NOTHING

Cells = Sequence[Json]
EMPTY, MALICIOUS_ONLY = "final/empty_rounds", "final/malicious_only_rounds"
MARKED = {  # the marks of columns.MARKS
    "†": "† lacks attacks or settings that other rows have; its means are not over the same cells",
    "‡": "‡ holds diverged runs; a figure they lack counts as accuracy 0 and attack success 1",
    "§": "§ is told a number of attackers, f",
    "¶": "¶ has one seed, which both chose the worst attack and tells what it does",
    "‖": "‖ holds runs in which an adversary never attacked: success under its trigger is nobody's",
}


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
    rows = (*document["rows"], *document["untargeted"])
    attacked = [cell for cell in document["cells"] if cell["attack"] != NOTHING["attack"]]
    marks = {mark for row in rows for mark in footnote_marks(row)}
    return [
        *_without_rank(document),
        *_by_search(document),
        *(text for mark, text in MARKED.items() if mark in marks),
        *_left_out(document, attacked),
        *_without_attackers(attacked),
        *_without_an_adversary(document, attacked),
        *_without_answers(document["runs"]),
        *_uncounted(document["rows"]),
        *_collapsed(document, attacked),
        *_borrowed(document["rows"]),
        *_untargeted(document),
        *_not_judged(attacked),
    ]


def ends_note(document: Json) -> str:
    """What stands beside the means, and in brackets behind the ranks; empty where nothing does."""
    scores = [row["score"] for row in document["rows"] if row["score"] is not None]
    kinds = sorted({kind_of_ends(score) for score in scores if score["n"] > 1})
    if not kinds:
        return ""
    ranks = "in brackets behind a rank the ranks that the seeds leave open"
    return f"beside a mean the {' or the '.join(kinds)}, {ranks}"


def _without_rank(document: Json) -> list[str]:
    """Which rows have no rank, by the reasons why; what is there to compare with needs none."""
    by_reason: dict[str, list[str]] = {}
    variants: Counter[str] = Counter()
    for row in ranked_rows(document):
        reason = row.fields["unranked"]
        if reason == VARIANT:
            variants[row.defense.family] += 1
        elif reason not in (None, REFERENCE):
            name = str(row.defense._replace(mark=""))
            by_reason.setdefault(reason, []).append(name)
    notes = [f"no rank ({reason}): {_first_few(names)}" for reason, names in by_reason.items()]
    if variants:
        counts = [f"{count} of {family}" for family, count in sorted(variants.items())]
        notes.append(f"no rank ({VARIANT}): {_first_few(counts)}")
    return notes


def _first_few(names: Sequence[str], most: int = 5) -> str:
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return "; ".join([*names[:most], *more])


def _by_search(document: Json) -> list[str]:
    """Whether the worst cases that a search has chosen count in the ranks."""
    searched = {row["defense"] for row in document["rows"] if row["worst_case_success"]}
    if not searched:
        return []
    ranked = {row["defense"] for row in document["rows"] if row["rank"] is not None}
    if ranked <= searched:
        alone = not any(row["attacks"] for row in document["rows"])
        means = ", and all means are under it, for want of other attacks" if alone else ""
        return [f"ranked by the worst case that a search has chosen for each defense{means}"]
    lacking = _first_few(sorted(ranked - searched))
    return [f"the searched worst cases count in no rank: not searched were {lacking}"]


def _uncounted(rows: Cells) -> list[str]:
    """Rows some of whose seeds do not count, because not all of their cells have them."""
    defenses = [row["defense"] for row in rows if row["uncounted_seeds"]]
    if not defenses:
        return []
    return [f"seeds that not all cells have do not count in: {_first_few(defenses)}"]


def _collapsed(document: Json, attacked: Cells) -> list[str]:
    """Where DER is not told."""
    names = attack_names(document)
    seeds: dict[str, set[int]] = {}
    for cell in attacked:
        if cell["collapsed_seeds"]:
            seeds.setdefault(str(names[cell["attack"]]), set()).update(cell["collapsed_seeds"])
    listed = [f"{attack} (seed {', '.join(map(str, sorted(seeds[attack])))})" for attack in seeds]
    return [f"no DER, because FedAvg collapsed: {_first_few(listed)}"] if listed else []


def _borrowed(rows: Cells) -> list[str]:
    """Whose natural success is not known behind the same defense."""
    defenses = [row["defense"] for row in rows if row["borrowed_twins"]]
    if not defenses:
        return []
    return [f"excess over FedAvg's clean twin, for want of their own: {_first_few(defenses)}"]


def _untargeted(document: Json) -> list[str]:
    if not document["untargeted"]:
        return []
    attacks = {attack for row in document["untargeted"] for attack in row["attacks"]}
    names = attack_names(document)
    listed = sorted(str(names[attack]) for attack in attacks)
    return [f"on a board of their own, for they define no success: {_first_few(listed)}"]


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
        notes.append(f"left out: {names[attack]}{where}: {reason}")
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


def _without_an_adversary(document: Json, attacked: Cells) -> list[str]:
    """Which of several adversaries never attacked, and in how many of the runs under the attack."""
    names = attack_names(document)
    absent: Counter[tuple[str, int]] = Counter()
    runs: Counter[str] = Counter()
    for cell in attacked:
        runs[cell["attack"]] += len(cell["seeds"])
        for number, seeds in cell.get(ABSENT_FIELD, {}).items():
            absent[cell["attack"], int(number)] += len(seeds)
    listed = [
        f"adversary {number} in {count} of {plural(runs[attack], 'run')} of {names[attack]}"
        for (attack, number), count in sorted(absent.items())
    ]
    return [f"without a client in an attacked round: {_first_few(listed)}"] if listed else []


def _without_answers(runs: Cells) -> list[str]:
    """How often, where clients drop out, a round had no honest answer."""
    counted = [run["metrics"] for run in runs if EMPTY in run["metrics"]]
    if not counted:
        return []
    empty = statistics.fmean(metrics[EMPTY] for metrics in counted)
    alone = statistics.fmean(metrics[MALICIOUS_ONLY] for metrics in counted)
    nobody = f"nobody answered in {empty:.3g} rounds, which move nothing"
    mean = f"in the mean of {plural(len(counted), 'run')}"
    return [f"clients drop out: {mean} {nobody}, and malicious clients alone in {alone:.3g}"]


def _not_judged(attacked: Cells) -> list[str]:
    attacks = {
        cell["attack"] for cell in attacked if cell["bites"] is None and cell[SUCCESS] is not None
    }
    if not attacks:
        return []
    unknown = f"whether {plural(len(attacks), 'attack')} did anything is not known"
    return [f"{unknown}: undefended FedAvg or the clean twin has not run"]
