"""From a board to advice: which of the defenses that can be used is worth it, what it costs, what
breaks it, and what is not known.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform import plugins
from backstop.platform.advice.candidates import Means, Unusable, reason_against
from backstop.platform.advice.situation import Situation
from backstop.platform.params import BadInput
from backstop.platform.results.figures.intervals import LEAST_SEEDS
from backstop.platform.results.figures.names import Json, short_names
from backstop.platform.results.figures.wording import mean_alone, percent, plural, told
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.standings import REFERENCE
from backstop.platform.results.tracking.runs import Run

SHORT_LIST = 5  # in a short list
FEDAVG = ""  # the family of the empty chain
HOLDING = ("yes", "in the mean")


class Evidence(NamedTuple):
    """What the advice is read from."""

    document: Document
    rows: Sequence[Json]  # of the setting that is read
    runs: Sequence[Run]
    setting: str  # its key; empty: all of the board


class Verdicts(NamedTuple):
    """What a board says to a situation."""

    verdict: list[str]
    short_list: list[dict[str, Any]]
    left_out: list[Unusable]
    references: list[dict[str, Any]]


def verdicts(
    evidence: Evidence,
    said: Situation,
    means: Means,
    unusable: Sequence[Unusable],
) -> Verdicts:
    """The short list, and why all others are not on it."""
    names = {text: str(name) for text, name in short_names(evidence.document).items()}
    seconds = _seconds(evidence)
    entries = [_entry(row, names, seconds, said) for row in evidence.rows]
    references = [entry for entry in entries if entry["reference"]]
    fedavg = _of_family(references, FEDAVG)
    fit: list[dict[str, Any]] = []
    left_out = list(unusable)
    known = {item.name for item in unusable}
    usable = [
        entry for entry in entries if not entry["reference"] and known.isdisjoint(entry["stages"])
    ]
    for entry in usable:
        reason, figure = _against(entry, fedavg, said, means)
        if reason:
            left_out.append(Unusable(entry["defense"], reason, figure))
        else:
            fit.append(entry)
    verdict = list(_verdict(usable, fit, references, said))
    if any(entry["holds"] in HOLDING for entry in fit):
        left_out += [_broken(entry, said) for entry in fit if entry["holds"] not in HOLDING]
        fit = [entry for entry in fit if entry["holds"] in HOLDING]
    for place, entry in enumerate(fit[:SHORT_LIST], 1):
        entry["place"] = place
    below = f"suits too, with a lower score than the first {SHORT_LIST}"
    left_out += [Unusable(entry["defense"], below) for entry in fit[SHORT_LIST:]]
    return Verdicts(verdict, fit[:SHORT_LIST], left_out, references)


def _entry(
    row: Json,
    names: Mapping[str, str],
    seconds: Mapping[str, list[float]],
    said: Situation,
) -> dict[str, Any]:
    """A row of the board as advice shows it."""
    stages = [stage["name"] for stage in row["defense_stages"]]
    family = "+".join(stages)
    costs = [row[name] for name in ("cost_under_attack", "cost_without_attack") if row[name]]
    taken = seconds.get(family)
    worst = row["worst_attack"]
    return {
        "place": None,
        "defense": names.get(row["defense"], row["defense"]),
        "chain": row["defense"],
        "family": family,
        "stages": stages,
        "reference": row["unranked"] == REFERENCE,
        "unranked": row["unranked"],
        "ranks": [row["rank_low"], row["rank_high"]],
        "rank": row["rank"],
        "what": [_what(name) for name in stages],
        "needs": list(row["needs"]),
        "score": row["score"],
        "accuracy": row["no_attack_accuracy"],
        "learned": row["learning_retained"],
        "cost": max(costs, key=lambda figure: figure["mean"]) if costs else None,
        "worst_excess": row["worst_excess"],
        "worst_attack": worst and names.get(worst, worst),
        "worst_knows": worst and _knows(worst),
        "holds": _holds(row["worst_excess"], said.success_to_bear),
        "seconds": statistics.fmean(taken) if taken else None,
        "diverged": row["diverged"],
        "missing": row["missing"],
        "seeds": row["seeds"],
    }


def _broken(entry: Json, said: Situation) -> Unusable:
    """A row that is broken where others hold."""
    borne = percent(said.success_to_bear, 0)
    return Unusable(
        entry["defense"],
        f"broken, where others hold: what the worst attack gets, in %; you can bear {borne}",
        mean_alone(entry["worst_excess"]),
    )


def _of_family(entries: Sequence[Json], family: str) -> Json | None:
    return next((entry for entry in entries if entry["family"] == family), None)


def _what(name: str) -> str:
    """What a stage is, in its data sheet's first words."""
    try:
        return plugins.find("defenses", name).summary
    except BadInput:
        return name


def _knows(attack: str) -> str:
    from backstop.platform.declarations.facts import KNOWS
    from backstop.platform.specs.part import parse_chain, plugin_stages

    order = list(KNOWS)
    try:
        stages = plugin_stages(parse_chain(attack))
        known = [plugins.attack_facts(stage.name).knows for stage in stages]
    except BadInput:
        return ""
    return KNOWS[max(known, key=order.index)] if known else ""


def _holds(excess: Json | None, limit: float) -> str:
    """Whether a defense keeps the worst attack below what can be borne."""
    if excess is None:
        return "unknown"
    if excess["high"] <= limit:
        return "yes"
    if excess["mean"] <= limit:
        return "in the mean"
    return "no" if excess["low"] > limit else "not in the mean"


def _seconds(evidence: Evidence) -> dict[str, list[float]]:
    """Family of a defense → seconds that it took in a round, of each run: the server's own, and
    those of the clients that it asked.
    """
    taken: dict[str, list[float]] = {}
    for run in evidence.runs:
        seconds = run.costs.get("time/total_aggregate_s")
        if seconds is not None:
            seconds += run.costs.get("time/total_validate_s", 0.0)
            family = "+".join(stage["name"] for stage in run.spec["defense"])
            taken.setdefault(family, []).append(seconds / run.spec["rounds"])
    return taken


def _against(
    entry: Json,
    fedavg: Json | None,
    said: Situation,
    means: Means,
) -> tuple[str, str]:
    """Why a row is not on the short list, and a figure with that; empty where it may be."""
    for name in entry["stages"]:
        if reason := reason_against(name, means):
            return reason, ""
    return next(_misses(entry, fedavg, said), ("", ""))


def _misses(
    entry: Json,
    fedavg: Json | None,
    said: Situation,
) -> Iterator[tuple[str, str]]:
    if entry["unranked"]:
        yield str(entry["unranked"]), ""
    if entry["score"] is None:
        yield "no score: its runs are missing", ""
        return
    if entry["cost"] and entry["cost"]["mean"] > said.accuracy_to_lose:
        most = percent(said.accuracy_to_lose)
        yield (
            f"costs more accuracy than the {most} points that you can lose: the cost in points",
            mean_alone(entry["cost"]),
        )
    if said.server_seconds and entry["seconds"] and entry["seconds"] > said.server_seconds:
        yield (
            f"takes the server longer than its {said.server_seconds:g} s a round: in s",
            f"{entry['seconds']:.2g}",
        )
    if fedavg and fedavg["score"] and entry["score"]["mean"] <= fedavg["score"]["mean"]:
        undefended = mean_alone(fedavg["score"])
        yield (
            f"no better than no defense, whose score is {undefended}: its score",
            mean_alone(entry["score"]),
        )


def _verdict(
    usable: Sequence[Json],
    fit: Sequence[Json],
    references: Sequence[Json],
    said: Situation,
) -> Iterator[str]:
    """What a hurried reader has to know, a sentence each."""
    limit = percent(said.success_to_bear, 0)
    scored = [entry for entry in usable if entry["score"]]
    if not scored:
        yield "Nothing can be said: no attack did anything here, or too many runs are missing."
        return
    fedavg = _of_family(references, FEDAVG)
    if undefended := fedavg and fedavg["worst_excess"]:
        yield _without_defense(undefended, said)
    if not fit:
        best = max(scored, key=lambda entry: entry["score"]["mean"])
        yield (
            "Nothing fits: no defense that can be used scores above FedAvg within your limits. The"
            f" best score, {mean_alone(best['score'])}, is that of {best['defense']}; why it is not"
            " listed stands under left out."
        )
        return
    yield from _holding(fit, limit)
    holding = [entry for entry in fit if entry["holds"] in HOLDING]
    yield from _ties(holding or fit)
    yield from _frozen(references, fit)


def _without_defense(excess: Json, said: Situation) -> str:
    if excess["high"] <= said.success_to_bear:
        return (
            f"Undefended FedAvg keeps the worst of these attacks at {told(excess)} % itself, so"
            " against them no defense is needed."
        )
    return f"Without a defense the worst attack turns {told(excess)} % of its inputs."


def _holding(fit: Sequence[Json], limit: str) -> Iterator[str]:
    sure = [entry["defense"] for entry in fit if entry["holds"] == "yes"]
    mean = [entry["defense"] for entry in fit if entry["holds"] == "in the mean"]
    if sure:
        yield (
            f"{plural(len(sure), 'defense')} within your limits held the worst attack below"
            f" {limit} %, {_ends(fit[0])} included: {_some(sure)}."
        )
    elif mean:
        yield (
            f"No defense keeps the worst attack below {limit} % for certain; in the mean"
            f" {_some(mean)} {'does' if len(mean) == 1 else 'do'}, and seeds differ."
        )
    else:
        least = min(fit, key=lambda entry: entry["worst_excess"]["mean"])
        yield (
            f"Nothing holds: no defense that fits your limits keeps the worst attack below"
            f" {limit} %. The least is {told(least['worst_excess'])} %, behind {least['defense']}."
        )


def _ends(entry: Json) -> str:
    """What a figure's ends are, in words."""
    return "the 95 % interval" if entry["score"]["kind"] == "95%" else "every seed"


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHORT_LIST
    listed = ", ".join(names[:SHORT_LIST])
    return f"{listed} and {more} more" if more > 0 else listed


def _ties(fit: Sequence[Json]) -> Iterator[str]:
    first = fit[0]
    tied = [entry["defense"] for entry in fit if _may_be_first(entry, first)]
    if len(tied) > 1:
        yield (
            f"Which is best is open: the seeds cannot tell {_some(tied)} apart, so choose among"
            " them by what they need and cost."
        )
    seeds = len(first["seeds"])
    if seeds == 1:
        yield f"One seed does not say how sure a figure is (--seeds {LEAST_SEEDS})."
    elif seeds < LEAST_SEEDS:
        yield (
            f"{seeds} seeds give ranges, not confidence intervals; from {LEAST_SEEDS} on they do"
            f" (--seeds {LEAST_SEEDS})."
        )


def _may_be_first(entry: Json, first: Json) -> bool:
    """Whether the ranks that are left open reach as high as the first row's."""
    low = entry["ranks"][0]
    return low is not None and low <= first["rank"]


def _frozen(references: Sequence[Json], fit: Sequence[Json]) -> Iterator[str]:
    frozen = _of_family(references, "frozen")
    if frozen and frozen["score"] and frozen["score"]["mean"] >= fit[0]["score"]["mean"]:
        yield "A server that never moves its model scores as much: the price is not worth it."
