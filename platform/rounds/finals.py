"""The final figures of an experiment: one pure function of its records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from backstop.platform.contract import Record

LAST_SHARE = 10  # the last 1/LAST_SHARE of the evaluations counts, and at least one
PREFIXES = ("round/", "defense/")
REPAIRED = "repaired/"
TURNS = "attack/turns"
OF_THE_RUN = "run/"  # what the last record tells of the whole run
ABSENT_FIGURE = "final/absent_adversaries"  # and with /1, /2 … where it is that adversary
# figures that stored runs may lack because they are older than the figure, also of one adversary
YOUNGER_FIGURES = frozenset(
    {
        "final/start_accuracy",
        "final/test_samples",
        "final/success_samples",
        "final/label_skew",
        "final/size_ratio",
        "final/input_skew",
        ABSENT_FIGURE,
    },
)
KEPT = "defense/kept_weight_"
BITE = 0.05  # attack success over a comparison's that makes an attack: a convention of the boards

Amount = TypeVar("Amount", float, NDArray[np.float64])


def defense_effectiveness(asr_reduction: Amount, accuracy_cost: Amount) -> Amount:
    """DER in [0, 1]: what a defense takes from attack success, less what it costs in accuracy.

    Both are against undefended FedAvg, numbers or arrays of them; 0.5 is no better than FedAvg.

    Source: equation 7 of M. Zhu, S. Wei, L. Shen, Y. Fan and B. Wu, "Enhancing Fine-Tuning Based
    Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023.

    >>> float(defense_effectiveness(0.5, 0.125)), float(defense_effectiveness(-0.5, -0.125))
    (0.6875, 0.5)
    """
    gained, lost = np.maximum(0.0, asr_reduction), np.maximum(0.0, accuracy_cost)
    score: Amount = (gained - lost + 1) / 2
    return score


def finite(values: Iterable[float]) -> bool:
    """Whether no value is NaN or infinite."""
    return all(math.isfinite(value) for value in values)


def diverged(metrics: Mapping[str, float]) -> bool:
    """Whether a round's own figures (``round/…``) hold a NaN or an infinity."""
    return not finite(value for name, value in metrics.items() if name.startswith("round/"))


def final(records: Sequence[Record]) -> dict[str, float]:
    """``final/<name>`` for each ``round/<name>`` and ``defense/<name>``.

    It is the mean over the last tenth of the evaluations, and over one at least.

    Where the defense repaired the final model, ``final/<name>`` is the repaired model's figure
    (``repaired/<name>``) and the mean of the rounds before it is ``final/unrepaired_<name>``. An
    evaluation without the metric does not count in its mean. A metric whose mean is not finite
    is left out. ``final/diverged`` is 1 when any round reported a NaN or an infinity, 0 otherwise.
    ``final/attack_turns``, where there is an attack, is how often a malicious client attacked in
    all: 0 says that the attack never happened. ``final/start_accuracy`` is the clean accuracy of
    the model before the first round, ``final/test_samples`` and ``final/success_samples`` are how
    many inputs accuracy and attack success are shares of. ``final/label_skew``,
    ``final/size_ratio`` and ``final/input_skew`` say how unequal the clients are. Where
    clients drop out, ``final/empty_rounds`` and ``final/malicious_only_rounds`` count the rounds in
    which nobody and in which malicious clients alone answered. ``final/absent_adversaries`` is how
    many of several adversaries never attacked, where some did not, and
    ``final/absent_adversaries/2`` is 1 where it was the second.

    >>> first = Record("", 0, {"round/clean_accuracy": 0.5})
    >>> final([first, Record("", 1, {"round/clean_accuracy": 0.75})])
    {'final/clean_accuracy': 0.75, 'final/diverged': 0.0}
    """
    figures = _means(_last_evaluations(records))
    at_the_end = records[-1].metrics if records else {}
    for key, value in at_the_end.items():
        if key.startswith(REPAIRED):
            _enter_repaired(figures, key.removeprefix(REPAIRED), value)
        if key.startswith(OF_THE_RUN):
            figures[f"final/{key.removeprefix(OF_THE_RUN)}"] = value
    if TURNS in at_the_end:
        figures["final/attack_turns"] = at_the_end[TURNS]
    figures["final/diverged"] = float(any(diverged(record.metrics) for record in records))
    return figures


def comparable(stored: Mapping[str, float], again: Mapping[str, float]) -> list[str]:
    """The names of the figures in which two runs of one spec can differ, in order: a stored run
    that is older than a figure does not lack it.

    >>> comparable({"final/a": 1.0}, {"final/a": 1.0, "final/b": 0.0, "final/test_samples": 9.0})
    ['final/a', 'final/b']
    """
    return sorted(name for name in {*stored, *again} if name in stored or not _is_younger(name))


def _is_younger(name: str) -> bool:
    """Whether an older run may lack a figure, or one that is an adversary's."""
    return "/".join(name.split("/")[:2]) in YOUNGER_FIGURES


def _last_evaluations(records: Sequence[Record]) -> Sequence[Record]:
    """Those that count: the last tenth, one at least."""
    count = max(1, len(records) // LAST_SHARE)
    return records[-count:]


def _enter_repaired(
    figures: dict[str, float],
    name: str,
    value: float,
) -> None:
    """Put the repaired model's figure in the place of the rounds' mean, which is renamed."""
    final_name = f"final/{name}"
    if final_name in figures:
        figures[f"final/unrepaired_{name}"] = figures.pop(final_name)
    if math.isfinite(value):
        figures[final_name] = value


def _means(records: Sequence[Record]) -> dict[str, float]:
    """The finite means of the rounds' and the defense's figures, under their final names."""
    keys = {key for record in records for key in record.metrics if key.startswith(PREFIXES)}
    means = {}
    for key in sorted(keys):
        values = [float(record.metrics[key]) for record in records if key in record.metrics]
        if finite(values):
            _, _, name = key.partition("/")
            means[f"final/{name}"] = math.fsum(values) / len(values)
    return means


def unmoved(records: Sequence[Record]) -> str:
    """A sentence where the defense left no client any weight in every evaluated round, or nothing.

    >>> unmoved([Record("", 0, {"defense/kept_weight_benign": 0.0})]).partition(":")[0]
    "the defense gave every client's row weight 0 in all evaluated rounds (1)"
    """
    for record in records:
        kept = [value for name, value in record.metrics.items() if name.startswith(KEPT)]
        if not kept or any(kept):
            return ""
    if not records:
        return ""
    return (
        f"the defense gave every client's row weight 0 in all evaluated rounds ({len(records)}): "
        "nothing was aggregated in them"
    )


def doubts(final: Mapping[str, float]) -> list[str]:
    """Why an attack's success, as the finals of one run give it, says nothing: sentences.

    >>> doubts({"final/attack_turns": 0.0})
    ['no malicious client took part in an attacked round: the attack never happened']
    """
    if final.get("final/attack_turns") == 0:
        return ["no malicious client took part in an attacked round: the attack never happened"]
    return [*_absent(final), *_idle(final)]


def absentees(final: Mapping[str, float]) -> tuple[int, ...]:
    """The numbers, from 1, of the adversaries without a client in an attacked round.

    >>> absentees({"final/absent_adversaries": 1.0, "final/absent_adversaries/2": 1.0})
    (2,)
    """
    numbers = [name.removeprefix(f"{ABSENT_FIGURE}/") for name, one in final.items() if one]
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))


def _absent(final: Mapping[str, float]) -> Iterator[str]:
    """Sentences on clients that would have had to be there."""
    for number in absentees(final):
        who = f"adversary {number} had no client in an attacked round"
        yield f"{who}: success under its trigger is nobody's"
    if final.get("final/measured_clients") == 0:
        yield "no honest client has trained, so that there are no figures of one"


def _idle(final: Mapping[str, float]) -> list[str]:
    """A sentence where the trigger does nothing."""
    effect = final.get("final/trigger_effect")
    if effect is None or effect >= BITE or not final.get("final/attack_turns"):
        return []
    reached = _percent(final["final/attack_success_rate"])
    anyway = _percent(final["final/untriggered_target_rate"])
    line = f"{reached} of the triggered inputs get the wanted label, {anyway} without the trigger"
    return [f"the trigger adds next to nothing: {line}"]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
