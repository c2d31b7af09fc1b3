"""The search space of an answer, as a file that ``backstop sweep`` runs again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from backstop.platform.advice.candidates import COMPARED_WITH, Candidate
from backstop.platform.advice.trial import TriedFederation
from backstop.platform.contract import Part, Spec

ADVISED = "advised"  # of the file and its function
FILE = '''"""What `backstop advise` has run: {runs}.

`backstop sweep {name}.py` runs it again; what is finished in its store is not run twice.
"""

from __future__ import annotations

from backstop import Part, Spec, grid

BASE = Spec(
{base}
)
ATTACKS = {attacks}
DEFENSES = {defenses}
SEEDS = {seeds}


def {name}() -> list[Spec]:
    """Every defense under every attack and seed."""
    return grid(BASE, seed=SEEDS, attack=ATTACKS, defense=DEFENSES)
'''


class AdvisedSpace(NamedTuple):
    """A search space as text, and the experiment that takes its runs."""

    text: str
    experiment: str


def write_space(
    trial: TriedFederation,
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
) -> AdvisedSpace:
    """The space of the candidates and the references. Its experiment is named by all of it but the
    seeds, so that more seeds join those that are there.
    """
    defenses = [*COMPARED_WITH, *(candidate.chain for candidate in candidates)]
    base, attacks = _fields(trial.base), _listed(trial.attacks)
    kept = f"{base}\n{attacks}\n{_listed(defenses)}"
    digest = hashlib.sha256(kept.encode()).hexdigest()[:8]
    runs = f"{len(defenses)} defenses, {len(trial.attacks)} attacks, {len(seeds)} seeds"
    text = FILE.format(
        name=ADVISED,
        runs=runs,
        base=base,
        attacks=attacks,
        defenses=_listed(defenses),
        seeds=list(seeds),
    )
    return AdvisedSpace(text, f"advice-{digest}")


def _fields(spec: Spec) -> str:
    """The fields of a spec that are not at their defaults, a line each."""
    plain = Spec()
    lines = []
    for item in fields(Spec):
        value = getattr(spec, item.name)
        if value != getattr(plain, item.name):
            lines.append(f"    {item.name}={_written(value)},")
    return "\n".join(lines)


def _written(value: object) -> str:
    if isinstance(value, Part):
        params = f", {dict(value.params)!r}" if value.params else ""
        return f"Part({value.name!r}{params})"
    return repr(value)


def _listed(texts: Sequence[str]) -> str:
    lines = "".join(f"    {text!r},\n" for text in texts)
    return f"[\n{lines}]"
