"""What is known of searches, for those who show, store and rank it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backstop.platform.results.figures.intervals import figure
from backstop.platform.results.tracking.searched import Searched
from backstop.platform.specs.part import chain_text
from backstop.platform.sweeps.confirmation import Confirmed
from backstop.platform.sweeps.search import Proposals
from backstop.platform.sweeps.trial_runs import SearchTrial

Report = dict[str, Any]  # a piece of the JSON document


def search_report(proposals: Proposals) -> Report:
    """A search as JSON: what it tried, what is best, and what the fresh seeds say of that."""
    search = proposals.search
    best = proposals.best()
    return {
        "title": search.title,
        "side": search.side,
        "objectives": [item.words for item in proposals.objectives],
        "constraints": [item.words for item in proposals.constraints],
        "sampler": search.sampler,
        "seeds": list(search.seeds),
        "confirm": list(search.confirm),
        "trials": [_trial_report(trial) for trial in proposals.trials],
        "best": None if best is None else _trial_report(best),
        "front": [trial.position for trial in proposals.front()],
        "confirmed": [confirmed_report(item) for item in proposals.confirmed],
    }


def _trial_report(trial: SearchTrial) -> Report:
    return {
        "number": trial.position,
        "values": dict(trial.values),
        "scores": dict(trial.scores),
        "state": trial.state,
        "kept": trial.kept,
    }


def confirmed_report(confirmed: Confirmed) -> Report:
    """A winner as JSON: what it is, the ids of its runs, and what the fresh seeds say."""
    return {
        "number": confirmed.trial.position,
        "attack": attack_words(confirmed),
        "defense": chain_text(confirmed.specs[0].defense, "defense") if confirmed.specs else "",
        "ids": [spec.id for spec in confirmed.specs],
        "scores": {name: figure(values) for name, values in confirmed.scores.items()},
    }


def attack_words(confirmed: Confirmed) -> str:
    """The attacks of a winner's runs in words."""
    texts = dict.fromkeys(chain_text(spec.attack, "attack") for spec in confirmed.specs)
    return ", ".join(texts)


def searched_by(proposals: Proposals) -> Searched | None:
    """What a search has chosen and confirmed; None where it has nothing to show."""
    ids = [spec.id for confirmed in proposals.confirmed for spec in confirmed.specs]
    if not ids:
        return None
    search = proposals.search
    return Searched(
        side=search.side,
        ids=tuple(ids),
        trials=len(proposals.trials),
        seeds=len(search.seeds),
        objective=judged_by(proposals),
    )


def judged_by(proposals: Proposals) -> str:
    """The objectives and constraints in one line."""
    objectives = ", ".join(item.words for item in proposals.objectives)
    constraints = " and ".join(item.words for item in proposals.constraints)
    return f"{objectives} with {constraints}" if constraints else objectives


def best_values(searches: Iterable[Proposals]) -> dict[str, float]:
    """Name → the best value of each search and objective, on validation data and on fresh seeds."""
    values: dict[str, float] = {}
    for proposals in searches:
        title = f"{proposals.title}/" * bool(proposals.title)
        if (best := proposals.best()) is not None:
            for name, value in best.scores.items():
                values[f"validation/{title}{name}"] = value
        for confirmed in proposals.confirmed[:1]:
            for name, over_seeds in confirmed.scores.items():
                if over_seeds:
                    values[f"confirmed/{title}{name}"] = sum(over_seeds) / len(over_seeds)
    return values


def searches_note(searches: Iterable[Proposals]) -> str:
    """A Markdown table of the winners, those of several objectives as a front."""
    lines = ["| search | proposal | validation | fresh seeds |", "| --- | --- | --- | --- |"]
    for proposals in searches:
        lines += [_note_line(proposals, trial) for trial in proposals.winners()]
    return "\n".join(lines)


def _note_line(proposals: Proposals, trial: SearchTrial) -> str:
    values = proposal_text(trial)
    fresh: Mapping[str, Sequence[float]] = {}
    for confirmed in proposals.confirmed:
        if confirmed.trial.position == trial.position:
            fresh = confirmed.scores
    confirmed_means = {name: sum(over) / len(over) for name, over in fresh.items() if over}
    return (
        f"| {proposals.title or judged_by(proposals)} | {values} | {_scores_text(trial.scores)}"
        f" | {_scores_text(confirmed_means)} |"
    )


def _scores_text(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items()) or "–"


def proposal_text(trial: SearchTrial) -> str:
    """All that was proposed, in one line."""
    return ", ".join(f"{key} {value_text(value)}" for key, value in trial.values.items())


def value_text(value: object) -> str:
    """A proposed value for people.

    >>> value_text(0.123456), value_text("badnets"), value_text(3)
    ('0.1235', 'badnets', '3')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
