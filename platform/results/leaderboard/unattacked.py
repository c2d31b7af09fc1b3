"""A dormant run is the run without any attack: both train the same model, so where the one was not
run the other stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from backstop.platform.results.figures.cells import ACCURACY, Entry, Logged, curve_of, json_text
from backstop.platform.results.figures.names import Json

OF_THE_TRIGGER = frozenset(
    f"final/{name}"
    for name in (
        "attack_success_rate",
        "global_success",
        "malicious_success",
        "rejected_triggered_rate",
        "robust_accuracy",
        "success_samples",
        "trigger_effect",
        "untriggered_target_rate",
        "worst_tenth_success",
    )
)


def without_dormant(runs: Iterable[Logged]) -> list[Logged]:
    """The runs, each dormant one as the run without an attack that it is, or left out where that
    one is there; those stand at the end.
    """
    active: list[Logged] = []
    dormant: dict[str, Logged] = {}
    for run in runs:
        if not run.spec.get("dormant"):
            active.append(run)
            continue
        spec = _unattacked(run.spec)
        dormant.setdefault(json_text(spec), _quiet(run, spec))
    there = {json_text(run.spec) for run in active if not run.spec["attack"]}
    return active + [run for text, run in dormant.items() if text not in there]


def _unattacked(spec: Json) -> Json:
    return {**spec, "attack": [], "dormant": False}


def _quiet(run: Logged, spec: Json) -> Entry:
    """The run with this spec and without what is said of a trigger."""
    metrics = {name: value for name, value in run.metrics.items() if not of_the_trigger(name)}
    return Entry(
        id=run.id,
        spec=spec,
        metrics=metrics,
        fingerprint=run.fingerprint,
        curves={f"round/{ACCURACY}": curve_of(run, ACCURACY)},
        data=run.data,
        code=run.code,
    )


def of_the_trigger(name: str) -> bool:
    """Whether a final figure is of triggered inputs, before or after a repair, of all adversaries
    or of one.

    >>> of_the_trigger("final/unrepaired_attack_success_rate/2"), of_the_trigger("final/answered")
    (True, False)
    """
    return "/".join(name.replace("unrepaired_", "").split("/")[:2]) in OF_THE_TRIGGER
