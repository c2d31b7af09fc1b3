"""A small real federation in which attacks and defenses show what they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from backstop.platform import plugins
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import run
from backstop.platform.rounds.finals import final
from backstop.platform.specs.part import NOTHING, parse_part, to_chain

ARENA = Spec(
    dataset=Part("digits"),
    model=Part("mlp"),
    clients=20,
    per_round=10,
    malicious=0.2,
    selection="fixed",
    alpha=10.0,
    rounds=15,
    local_epochs=2,
    batch=16,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    root_size=50,
    eval_every=15,
)
# of other kinds of data
TASKS = {
    "image": ("digits", "mlp"),
    "table": ("synthetic(samples=400)", "logistic"),
    "text": ("topics", "bag_of_words"),
}
NORMED = "normed_mlp"  # for defenses whose clients keep BatchNorm layers
LOOKED_AT = "convnet(width=8, modules=2)"  # for those that look at BatchNorm statistics
ATTACK = "badnets(share=0.2)"  # against which a defense is tried
# likewise where it does nothing against the other: some see only what is far from usual
LOUD = "badnets(share=0.5)+model_replacement(strength=5)"
TRIGGERS = {
    "image": "badnets(share=0.2)",
    "table": "feature_value",
    "text": "phrase",
}  # behind which a stage without a trigger is put
ACCURACY, SUCCESS = "final/clean_accuracy", "final/attack_success_rate"
NOTICED = 0.02  # attack success above the clean twin's, or accuracy lost, that is an effect


class Bout(NamedTuple):
    """What came of one federation in the arena."""

    accuracy: float
    success: float | None
    figures: Mapping[str, float]
    seconds: float


def bout(
    attack: str,
    defense: str,
    *,
    kind: str = "image",
    dormant: bool = False,
    beside: str = NOTHING["defense"],
) -> Bout:
    """An attack and a defense in the arena, each as text, on the model and measured as it is for
    the defense that it stands ``beside``.
    """
    dataset, model = TASKS[kind]
    facts = [plugins.defense_facts(part.name) for part in to_chain(beside, "defense")]
    keeps = {known.keeps for known in facts}
    if "norms" in keeps:
        model = NORMED
    elif any("buffers" in known.needs for known in facts):
        model = LOOKED_AT
    spec = ARENA.replace(
        dataset=parse_part(dataset),
        model=parse_part(model),
        evaluate_by="clients" if any(keeps) else "server",
        attack=to_chain(attack, "attack"),
        defense=to_chain(defense, "defense"),
        dormant=dormant,
    )
    start = perf_counter()
    figures = final(list(run(spec, folder=Path("unused"), device="cpu")))
    return Bout(figures[ACCURACY], figures.get(SUCCESS), figures, perf_counter() - start)


class Effect(NamedTuple):
    """What a plug-in does in the arena, for people, and what is wrong with that."""

    words: list[str]
    breach: str


def defense_effect(name: str) -> Effect:
    """A defense beside FedAvg, under a backdoor and without an attack."""
    nobody = NOTHING["attack"]
    fedavg = NOTHING["defense"]
    plain, defended = bout(ATTACK, fedavg, beside=name), bout(ATTACK, name, beside=name)
    calm, paid = bout(nobody, fedavg, beside=name), bout(nobody, name, beside=name)
    words = [
        f"under {ATTACK}: {_words(defended)}; FedAvg: {_words(plain)}",
        f"without an attack: {_words(paid)}; FedAvg: {_words(calm)}",
        f"seconds for {ARENA.rounds} rounds: {defended.seconds:.1f}; FedAvg: {plain.seconds:.1f}",
    ]
    if defended.figures != plain.figures:
        return Effect(words, "")
    plain, defended = bout(LOUD, NOTHING["defense"]), bout(LOUD, name)
    words.append(f"under {LOUD}: {_words(defended)}; FedAvg: {_words(plain)}")
    does_nothing = defended.figures == plain.figures
    return Effect(words, "every figure under an attack is FedAvg's" if does_nothing else "")


def attack_effect(name: str) -> Effect:
    """An attack beside its clean twin on the same triggered inputs; a stage without a trigger
    behind one, and beside that one alone.
    """
    facts = plugins.attack_facts(name)
    kind = (facts.kinds or ("image",))[0]
    alone = facts.trigger or facts.untargeted
    chain = name if alone else f"{TRIGGERS[kind]}+{name}"
    attacked = bout(chain, NOTHING["defense"], kind=kind)
    twin = bout(chain, NOTHING["defense"], kind=kind, dormant=not facts.untargeted)
    if facts.untargeted:
        twin = bout(NOTHING["attack"], NOTHING["defense"], kind=kind)
    words = [
        f"{chain}: {_words(attacked)}; its clean twin: {_words(twin)}",
        f"seconds for {ARENA.rounds} rounds: {attacked.seconds:.1f}; the twin: {twin.seconds:.1f}",
    ]
    return Effect(words, _attack_breach(name, chain, attacked, twin))


def _attack_breach(
    name: str,
    chain: str,
    attacked: Bout,
    twin: Bout,
) -> str:
    """Why an attack is none, in words; empty where it is one."""
    facts = plugins.attack_facts(name)
    if facts.untargeted:
        lost = twin.accuracy - attacked.accuracy
        short = f"it costs {lost:.1%} of accuracy, less than {NOTICED:.0%}"
        return short if lost < NOTICED else ""
    if attacked.success is None or twin.success is None:
        return f"{chain} has no attack success"
    gained = attacked.success - twin.success
    if gained < NOTICED:
        return f"its success is {gained:.1%} above its clean twin's, less than {NOTICED:.0%}"
    return ""


def _words(result: Bout) -> str:
    """Figures for people."""
    words = f"accuracy {result.accuracy:.1%}"
    return words if result.success is None else f"{words}, attack success {result.success:.1%}"
