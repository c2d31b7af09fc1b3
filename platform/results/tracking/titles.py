"""Names of runs for people: what tells a run from those beside it comes first, because MLflow's
tables cut names off. A run is found by its spec's id, never by its name.
"""

from __future__ import annotations

from collections.abc import Iterable

from backstop.platform.results.tracking.description import plain_text, run_params, stage_prefixes
from backstop.platform.specs.part import Part, chain_text, stages_text
from backstop.platform.specs.spec import Spec, validate

FAMILY = "attack"  # said to vary where there are several attacks besides none
ID_DIGITS = 8
ALONE = frozenset({FAMILY, "seed"})  # what tells a run apart that is of no sweep
SAID_OTHERWISE = ("attack.", "defense.", "seed", "fl.dormant")  # keys that have a form of their own


def varied_keys(specs: Iterable[Spec]) -> frozenset[str]:
    """The parameters, as :func:`~.description.run_params` names them, that have several values
    among the runs that have them; :data:`FAMILY` where several chains of plug-ins attack.
    """
    values: dict[str, set[str]] = {}
    for spec in map(validate, specs):
        for key, text in run_params(spec).items():
            values.setdefault(key, set()).add(text)
        if spec.attack and not spec.dormant:
            values.setdefault(FAMILY, set()).add(_stage_names(spec.attack))
    return frozenset(key for key, texts in values.items() if len(texts) > 1)


def run_title(spec: Spec, varied: frozenset[str] = ALONE) -> str:
    """A run's name: the defense, what varies in its sweep, the first digits of the id.

    Of a stage's parameters only the values that vary are said, in the order of their names.
    """
    spec = validate(spec)
    words = [_chain_words(spec, "defense", varied), *_attack_words(spec, varied)]
    params = run_params(spec)
    others = [key for key in sorted(varied & params.keys()) if not key.startswith(SAID_OTHERWISE)]
    words += [_setting_words(key, params[key]) for key in others]
    if "seed" in varied:
        words.append(f"seed {spec.seed}")
    return " · ".join([*words, spec.id[:ID_DIGITS]])


def _attack_words(spec: Spec, varied: frozenset[str]) -> list[str]:
    """The attack where there are several, of one alone its parameters that vary."""
    if not spec.attack:
        return ["no attack"]
    dormant = ["dormant"] if spec.dormant else []
    if FAMILY in varied:
        return [_chain_words(spec, "attack", varied), *dormant]
    keyed = _varied_values(spec, "attack", varied)
    settings = [f"{key} {text}" for values in keyed for key, text in values]
    return [*settings, *dormant]


def _setting_words(key: str, text: str) -> str:
    """``digits``, ``lr 0.1``: a part by its name, anything else with its key."""
    *_, last = key.split(".")
    return text if last == "name" else f"{last} {text}"


def _chain_words(
    spec: Spec,
    role: str,
    varied: frozenset[str],
) -> str:
    """``norm_clip(0.2)+median``."""
    chain = getattr(spec, role)
    stages = []
    for stage, values in zip(chain, _varied_values(spec, role, varied), strict=True):
        listed = ", ".join(text for _, text in values)
        stages.append(f"{stage.name}({listed})" if listed else stage.name)
    return stages_text(stages) or chain_text(chain, role)


def _varied_values(
    spec: Spec,
    role: str,
    varied: frozenset[str],
) -> list[list[tuple[str, str]]]:
    """(parameter, value) of what varies, for each stage of a chain."""
    chain = getattr(spec, role)
    return [
        [
            (key, plain_text(value))
            for key, value in sorted(stage.params.items())
            if f"{prefix}.{key}" in varied
        ]
        for stage, prefix in zip(chain, stage_prefixes(role, chain), strict=True)
    ]


def _stage_names(chain: tuple[Part, ...]) -> str:
    return stages_text([stage.name for stage in chain])
