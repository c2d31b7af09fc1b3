"""What a run that is measured by its clients says of them, beside the figures of every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from backstop.platform.commands.output import percent_text
from backstop.platform.results.figures.wording import plural


def worst_tenth(metrics: Mapping[str, float]) -> str:
    """The worst honest clients of a round, in a column; empty where clients are not measured."""
    if "round/worst_tenth_accuracy" not in metrics:
        return ""
    accuracy = percent_text(metrics["round/worst_tenth_accuracy"])
    success = percent_text(metrics.get("round/worst_tenth_success"))
    return f"worst tenth {accuracy:>7} {success:>7}"


def client_lines(finals: Mapping[str, float]) -> list[str]:
    """A line for honest clients, for malicious ones and for the global model, each where there are
    figures of it.
    """
    if "final/measured_clients" not in finals:
        return []
    count = int(finals["final/measured_clients"])
    called = {
        plural(count, "honest client"): ("clean_accuracy", "attack_success_rate"),
        "  worst tenth of each": ("worst_tenth_accuracy", "worst_tenth_success"),
        "malicious clients": ("malicious_accuracy", "malicious_success"),
        "global model": ("global_accuracy", "global_success"),
    }
    return list(_lines(called, finals))


def _lines(
    called: Mapping[str, tuple[str, str]],
    finals: Mapping[str, float],
) -> Iterator[str]:
    wide = max(map(len, called))
    for name, (accuracy, success) in called.items():
        if f"final/{accuracy}" in finals:
            line = f"{name:<{wide}}  accuracy {percent_text(finals[f'final/{accuracy}']):>7}"
            reached = finals.get(f"final/{success}")
            yield line + (
                f"  attack success {percent_text(reached):>7}" if reached is not None else ""
            )
