"""The whole answer as one JSON document, from which every form of it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform import plugins
from backstop.platform.advice.candidates import SUMS_ONLY, Unusable, by_reason
from backstop.platform.advice.findings import Evidence, Verdicts
from backstop.platform.advice.nearness import Aspect
from backstop.platform.advice.situation import Situation, questions, said_values
from backstop.platform.advice.trial import TriedFederation
from backstop.platform.results.figures.names import Json, short_names
from backstop.platform.results.figures.wording import percent, plural

ADVICE_SCHEMA = 1
FEW_INPUTS = 100  # inputs, below which one is more than a point
Advice = dict[str, Any]


class AdviceSource(NamedTuple):
    """Where the figures come from."""

    board: str  # its folder
    command: str  # that gives the same answer; with more seeds, a surer one
    quick: bool
    read: bool  # an existing board, not one of this federation


def make_answer(
    said: Situation,
    evidence: Evidence,
    findings: Verdicts,
    origin: AdviceSource,
    *,
    trial: TriedFederation | None = None,
    near: Sequence[Aspect] = (),
) -> Advice:
    """The document."""
    document = evidence.document
    cells = _cells(evidence)
    return {
        "schema": ADVICE_SCHEMA,
        "verdict": [
            *_cautions(origin, near, document),
            *findings.verdict,
            *_unseen(findings.left_out),
            *_coarse(cells),
        ],
        "situation": said_values(said),
        "meaning": {name: question.text for name, question in questions().items()},
        "federation": None if trial is None else _federation(trial),
        "near": [aspect._asdict() for aspect in near],
        "short_list": findings.short_list,
        "references": findings.references,
        "left_out": [
            {"reason": reason, "defenses": [item._asdict() for item in items]}
            for reason, items in by_reason(findings.left_out).items()
        ],
        "attacks": _attacks(document, cells),
        "not_tested": list(_not_tested(said, cells, trial)),
        "evidence": {
            **origin._asdict(),
            "experiment": document["experiment"],
            "runs": len(document["runs"]),
            "missing": len(document["missing_runs"]),
            "seeds": sorted({seed for cell in cells for seed in cell["seeds"]}),
            "fingerprint": document["fingerprint"],
            "rule": document["rule"],
        },
    }


def _cells(evidence: Evidence) -> list[Json]:
    """The attacked cells of what is read."""
    return [
        cell
        for cell in evidence.document["cells"]
        if cell["attack_stages"] and evidence.setting in ("", cell["setting"])
    ]


def _cautions(
    origin: AdviceSource,
    near: Sequence[Aspect],
    document: Json,
) -> Iterator[str]:
    """What a reader has to know before the figures."""
    if origin.quick:
        yield "A quick look, of a third of the rounds: it sorts out, it does not rank."
    if origin.read:
        other = [aspect.name for aspect in near if not aspect.near]
        same = len(near) - len(other)
        yield (
            f"These figures are of another federation, alike in {same} of {len(near)} aspects;"
            f" other than yours: {', '.join(other) or 'nothing'}."
        )
    if document["missing_runs"]:
        yield (
            f"{plural(len(document['missing_runs']), 'planned run')} did not finish, so some"
            " figures are of fewer cells than others; the same command does the rest."
        )


def _unseen(left_out: Sequence[Unusable]) -> Iterator[str]:
    """What secure aggregation costs, which is a choice too."""
    unseen = by_reason(left_out).get(SUMS_ONLY, ())
    if unseen:
        yield (
            f"Secure aggregation alone rules out {plural(len(unseen), 'defense')}: they look at"
            " single updates. The same command with --secure-aggregation false says what they"
            " would do."
        )


def _coarse(cells: Sequence[Json]) -> Iterator[str]:
    """How coarse the figures are, where the test set is small."""
    samples = min((cell["success_samples"] or FEW_INPUTS for cell in cells), default=FEW_INPUTS)
    if samples < FEW_INPUTS:
        yield (
            f"Attack success is measured on as few as {samples} inputs, so that one of them is"
            f" {percent(1 / samples)} points: small differences mean nothing."
        )


def _federation(trial: TriedFederation) -> Mapping[str, Any]:
    base = trial.base
    return {
        "dataset": str(base.dataset),
        "model": str(base.model),
        "parameters": trial.dimensions,
        "clients": base.clients,
        "per_round": base.per_round,
        "malicious": round(base.malicious * base.clients),
        "f": trial.means.f,
        "selection": base.selection,
        "alpha": base.alpha,
        "rounds": base.rounds,
        "root_size": base.root_size,
        "smallest": min(trial.sizes),
        "largest": max(trial.sizes),
        "label_skew": trial.label_skew,
        "accuracy": trial.accuracy,
        "update_norm": trial.means.update,
        "notes": list(trial.notes),
    }


def _attacks(document: Json, cells: Sequence[Json]) -> list[Mapping[str, Any]]:
    """The attacks that were tried, and what each does to FedAvg."""
    names = short_names(document)
    undefended = {cell["attack"]: cell for cell in cells if not cell["defense_stages"]}
    listed: list[Mapping[str, Any]] = []
    for attack in dict.fromkeys(cell["attack"] for cell in cells):
        cell = undefended.get(attack)
        listed.append(
            {
                "attack": str(names[attack]),
                "chain": attack,
                "undefended": cell and cell["excess_success"],
                "bites": cell and cell["bites"],
            }
        )
    return listed


def _not_tested(
    said: Situation,
    cells: Sequence[Json],
    trial: TriedFederation | None,
) -> Iterator[str]:
    """What the figures say nothing about."""
    tried = {stage["name"] for cell in cells for stage in cell["attack_stages"]}
    others = [
        name
        for name in plugins.names("attacks")
        if name not in tried and not plugins.attack_facts(name).untargeted
    ]
    yield (
        f"{plural(len(others), 'other backdoor stage')} that Backstop has, and attacks that only do"
        " damage; no attack was searched or tuned against a defense beyond its own adapting"
        " (backstop sweep worst_case does that on digits)"
    )
    if trial is not None:
        share = trial.base.malicious
        yield f"another number of attackers than {percent(share)} % of the clients"
        yield (
            "attackers that come late, stop or take turns; clients that drop out; data that change"
            " with time"
        )
        if said.data is None:
            yield "your data: a stand-in of the same kind was used"
        yield (
            f"a larger model: this one has {trial.dimensions:,} parameters, and the seconds of most"
            " defenses grow with them at least"
        )
    yield (
        "other parameters of the defenses: each has its defaults, is told the number of attackers"
        " that is feared where it asks for one, and the length of a usual update where it clips;"
        " more attackers than it is told may break it"
    )
    yield "chains of several defenses, but for a mixing stage with a trimmed mean behind it"
    if said.secure_aggregation:
        yield (
            "the secure aggregation itself: what each client would have to do to its own update"
            " (clip it) was done for it here; whether a malicious client can be made to was not"
        )
    yield "privacy, bias and the law"
