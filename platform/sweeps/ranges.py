"""Where a search may go: the ranges behind keys, from the annotations of specs and plug-ins."""

from __future__ import annotations

import math
from collections.abc import Mapping

import optuna

from backstop.platform import plugins
from backstop.platform.optimizers import OPTIMIZERS
from backstop.platform.params import BadInput, Parameter, Range, nearest, schema
from backstop.platform.specs.change import named_parameter
from backstop.platform.specs.part import GROUPS, NOTHING, Scalar, chain_text
from backstop.platform.specs.spec import MANY, Spec, scalar_fields

OptunaTrial = optuna.Trial  # asked for and not told yet
Distribution = (
    optuna.distributions.CategoricalDistribution
    | optuna.distributions.FloatDistribution
    | optuna.distributions.IntDistribution
)


def full_key(spec: Spec, key: str) -> str | None:
    """The key with its stage by name (``attack.strength`` → ``attack.pgd.radius``); None where the
    spec's chain has no such stage.
    """
    role, *rest = key.split(".")
    if role not in NOTHING or not rest:
        return key
    named = named_parameter(getattr(spec, role), role, rest)
    return None if named is None else ".".join((role, *named))


def parameter(base: Spec, key: str) -> Parameter:
    """What the annotation behind a key such as ``defense.invariant.mask_threshold`` declares."""
    head, *rest = key.split(".")
    if head in NOTHING and rest:
        return _stage_parameter(base, head, key, rest)
    if rest:
        declared = _part_parameters(base, head)
        name = ".".join(rest)
    else:
        declared = scalar_fields()
        name = head
    if name not in declared:
        hint = nearest(key, [*scalar_fields(), "attack.strength"])
        raise BadInput(f"search: unknown free parameter {key!r}; {hint}")
    return declared[name]


def _part_parameters(base: Spec, head: str) -> Mapping[str, Parameter]:
    """What the optimizer, the dataset or the model of a spec declares."""
    if head == "optimizer":
        return schema(OPTIMIZERS[base.optimizer.name])
    if head in ("dataset", "model"):
        part = getattr(base, head)
        return plugins.describe(GROUPS[head], part.name).parameters
    return {}


def _stage_parameter(
    base: Spec,
    role: str,
    key: str,
    rest: list[str],
) -> Parameter:
    chain = base.attack if role == "attack" else base.defense
    named = named_parameter(chain, role, rest)
    if named is None:
        hint = nearest(".".join(rest[:1]), [stage.name for stage in chain])
        raise BadInput(f"search: {key!r} is not in {role} {chain_text(chain, role)}; {hint}")
    stage, name = named
    declared = plugins.describe(GROUPS[role], stage).parameters
    if name not in declared:
        raise BadInput(
            f"search: {role} {stage} has no parameter {name!r}; {nearest(name, declared)}"
        )
    return declared[name]


def distribution(
    key: str,
    declared: Parameter,
    ends: tuple[float, float] | None = None,
) -> Distribution:
    """The search range: the annotation's, narrowed where it or the search says so."""
    if ends is None and declared.choices and not declared.range:
        return optuna.distributions.CategoricalDistribution(declared.choices)
    if ends is None and bool in declared.types:
        return optuna.distributions.CategoricalDistribution([False, True])
    if declared.range is None:
        raise BadInput(
            f"search: {key!r} has no range to search; its plug-in declares {declared.allowed}"
        )
    bounds = declared.range if ends is None else _narrowed(key, declared.range, ends)
    if bounds.search is None and bounds.high >= MANY:
        raise BadInput(
            f"search: {key!r} may be anything in {bounds}; say where to search:"
            f" ranges={{{key!r}: (low, high)}}, or choices"
        )
    if float in declared.types:
        return _float_distribution(bounds)
    return _int_distribution(bounds)


def _narrowed(
    key: str,
    legal: Range,
    ends: tuple[float, float],
) -> Range:
    """The range with other ends to search between. Raises BadInput for ends outside it."""
    low, high = ends
    if low > high or low not in legal or high not in legal:
        raise BadInput(f"search: range {ends} of {key!r} is not allowed; two numbers in {legal}")
    return Range(
        legal.low,
        legal.high,
        log=legal.log and low > 0,
        low_open=legal.low_open,
        high_open=legal.high_open,
        search=ends,
    )


def _ends(bounds: Range) -> tuple[float, float]:
    """Where to search."""
    return bounds.search or (bounds.low, bounds.high)


def _int_distribution(bounds: Range) -> optuna.distributions.IntDistribution:
    low, high = _ends(bounds)
    return optuna.distributions.IntDistribution(int(low), int(high), log=bounds.log)


def _float_distribution(bounds: Range) -> optuna.distributions.FloatDistribution:
    """From the first number that is allowed to the last: Optuna proposes both ends."""
    low, high = _ends(bounds)
    if bounds.high_open and high == bounds.high:
        high = math.nextafter(high, low)
    if bounds.low_open and low == bounds.low:
        low = math.nextafter(low, high)
    return optuna.distributions.FloatDistribution(low, high, log=bounds.log)


def contains(span: Distribution, value: Scalar) -> bool:
    """Whether the sampler could propose the value."""
    if isinstance(span, optuna.distributions.CategoricalDistribution):
        return value in span.choices
    return isinstance(value, (int, float)) and span.low <= value <= span.high


def suggest(
    trial: OptunaTrial,
    key: str,
    span: Distribution,
) -> Scalar:
    """What the sampler proposes for a key."""
    if isinstance(span, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(key, span.choices)
    if isinstance(span, optuna.distributions.IntDistribution):
        return trial.suggest_int(key, span.low, span.high, log=span.log)
    return trial.suggest_float(key, span.low, span.high, log=span.log)
