"""What a run is compared with: runs that differ from it in the attack or the defense alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from backstop.platform import plugins
from backstop.platform.specs.notation import NEXT_ADVERSARY
from backstop.platform.specs.part import Part
from backstop.platform.specs.spec import Spec, spec_text
from backstop.platform.sweeps.objectives import QUIET, UNDEFENDED, UNDISTURBED

POISON_SHARE = "share"  # of a trigger: how much is poisoned, which is nothing while it is dormant


def with_twins(specs: Sequence[Spec]) -> list[Spec]:
    """The specs, and after them what the leaderboard compares them with where it is missing: for
    every setting and seed undefended FedAvg under the same attack, and under each defense, FedAvg
    too, the dormant trigger, which is the natural success of the attack's inputs.

    A dormant run trains the model of the run without any attack, so it stands for that one: where
    there is no trigger, the run without an attack is added.
    """
    by_text = {spec_text(spec): spec for spec in specs}
    for spec in specs:
        for twin in _twins(spec):
            by_text.setdefault(spec_text(twin), twin)
    quiet = {spec_text(_unattacked(spec)) for spec in by_text.values() if _is_quiet(spec)}
    for spec in list(by_text.values()):
        unattacked = _unattacked(spec)
        text = spec_text(unattacked)
        if text not in quiet:
            by_text.setdefault(text, unattacked)
    by_id: dict[str, Spec] = {}
    for spec in by_text.values():
        by_id.setdefault(spec.id, spec)
    return list(by_id.values())


def _twins(spec: Spec) -> list[Spec]:
    """Without the defense, and both while the trigger is dormant, where there is one."""
    both = [_undefended(spec), spec]
    trigger = _trigger(spec)
    dormant = [item.replace(attack=trigger, dormant=True) for item in both] if trigger else []
    return [both[0], *dormant]


def _undefended(spec: Spec) -> Spec:
    """The same without a defense, measured as with it: where that lets clients keep a part of the
    model, by the clients.
    """
    return spec.replace(defense=(), evaluate_by=spec.resolved.evaluate_by)


def _unattacked(spec: Spec) -> Spec:
    """The same without any attack."""
    return spec.replace(attack=(), dormant=False)


def _is_quiet(spec: Spec) -> bool:
    """Whether nobody attacks."""
    return spec.dormant or not spec.attack


def _trigger(spec: Spec) -> tuple[Part, ...]:
    """The stages of its attack that define what success is."""
    return tuple(
        stage
        for stage in spec.attack
        if stage.name == NEXT_ADVERSARY or plugins.attack_facts(stage.name).trigger
    )


def quiet_twin(spec: Spec) -> Spec:
    """The same defense while nobody attacks: under the dormant trigger where there is one, which
    also tells the natural success of its inputs.
    """
    trigger = _trigger(spec)
    return spec.replace(attack=trigger, dormant=bool(trigger))


def shared_quiet_twin(spec: Spec) -> Spec:
    """The twin of all shares of poisoned data and of all schedules: a dormant trigger poisons
    nothing, in no round. Only a trigger that learns from round to round may differ a little.
    """
    quiet = quiet_twin(spec)
    return quiet.replace(
        attack=tuple(_without_share(stage) for stage in quiet.attack),
        attack_start=0,
        attack_stop=None,
        attack_every=1,
    )


def _without_share(stage: Part) -> Part:
    kept = {name: value for name, value in stage.params.items() if name != POISON_SHARE}
    return Part(stage.name, kept)


def compared_with(
    spec: Spec,
    needs: Iterable[str],
    quiet: Callable[[Spec], Spec],
) -> Mapping[str, Spec]:
    """What is needed → the spec of it; ``quiet`` makes the twin in which nobody attacks."""
    undefended = _undefended(spec)
    twins = {
        UNDEFENDED: undefended,
        QUIET: quiet(spec),
        UNDISTURBED: quiet(undefended),
    }
    return {name: twins[name] for name in needs}
