"""Every attack there is against five defenses, FedAvg and a model that stands still: the table that
docs/attacks.md explains.

A new file in attacks/ joins by itself: with its defaults, alone where it defines a trigger or only
does damage, else behind a patch; those that need another setting to bite on this task are set in
SETTINGS. Images are handwritten digits; attacks on text and tables have small tasks of their own.
No download; some three quarters of an hour on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.plugins import attack_facts, names
from backstop.platform.specs.change import grid
from backstop.search_spaces._references import REFERENCES
from backstop.search_spaces.quickstart import BASE

DEFENSES = [*REFERENCES, "invariant", "median", "multi_krum(f=4)", "norm_clip(norm=0.2)", "flame"]
ROUNDS = 40
BEHIND = "badnets(share=0.2)"  # the trigger of stages that have none
SETTINGS = {
    "a3fl": "a3fl(size=2)",  # the published 5 x 5 pixels cover a digit: they need no backdoor
    "alie": "alie(z=1.5)",
    "alie_backdoor": f"{BEHIND}+alie_backdoor(z=3)",
    "bad_pfl": "bad_pfl(eps=0.2)",
    "badnets": "badnets(share=0.2)",
    "blended": "blended(alpha=0.3)",
    "bpp": "bpp(levels=2, negatives=0.5, share=0.5)+model_replacement(strength=4)",
    "chameleon": f"{BEHIND}+chameleon(epochs=3)",
    "dba": "dba(share=0.2)",
    "edge_case": "edge_case(source=7, target=0, share=0.5)+model_replacement(strength=5)",
    "edge_phrase": "edge_phrase(share=0.6)+model_replacement(strength=3)",
    "feature_value": "feature_value(share=0.2)",
    "ftrojan": "ftrojan(magnitude=200)+model_replacement(strength=3)",
    "iba": "iba(eps=0.2)",
    "invisible": "invisible(epsilon=0.2)",
    "label_flip": "label_flip(source=1, target=7)+model_replacement(strength=3)",
    "model_replacement": f"{BEHIND}+model_replacement(strength=3)",
    "pfedba": "pfedba(part=0.25)",  # the published part is nine of a digit's pixels
    "phrase": "phrase(share=0.3)",
    "wanet": "wanet(strength=4)",
    "pgd": f"{BEHIND}+pgd(radius=0.5)+model_replacement(strength=3)",
    "physical": "physical(size=0.5, place=0.25)",
    "semantic": "semantic(source=7, tail=0.5, share=0.8)+model_replacement(strength=4)",
    "sig": "sig(delta=0.3)",
    "single_pixel": "single_pixel+model_replacement(strength=2)",
    "darkfed": "darkfed(strength=5)",
    "fcba": "fcba(share=0.2)",
    "lp_adaptive": "badnets(share=0.5)+lp_adaptive",
    "lp_attack": "badnets(share=0.5)+lp_attack(strength=0.5)",
    "sdba": "badnets(share=0.5)+sdba",
    "soda": "badnets(share=0.3)+soda",
    "constrain_and_scale": f"{BEHIND}+constrain_and_scale(alpha=0.7, strength=3, falling=false)",
}
TASKS = {
    "image": (Part("digits"), Part("mlp")),
    "table": (Part("synthetic"), Part("mlp")),
    "text": (Part("topics"), Part("bag_of_words")),
}


def _setting(name: str) -> str:
    """The chain in which an attack stands in the table."""
    facts = attack_facts(name)
    return SETTINGS.get(name) or (name if facts.trigger or facts.untargeted else f"{BEHIND}+{name}")


def _task(kind: str) -> Spec:
    """The task on which attacks on this kind of data are judged."""
    dataset, model = TASKS[kind]
    base = BASE.replace(dataset=dataset, model=model, rounds=ROUNDS)
    # word vectors learn slowly
    return (
        base.replace(optimizer=Part("sgd", {"lr": 0.5, "momentum": 0.9}))
        if kind == "text"
        else base
    )


def all_attacks() -> list[Spec]:
    """Every attack × seven defenses × two seeds."""
    found = []
    for kind in TASKS:
        own = [
            name for name in names("attacks") if (attack_facts(name).kinds or ("image",))[0] == kind
        ]
        if own:
            found += grid(_task(kind), seed=range(2), attack=map(_setting, own), defense=DEFENSES)
    return found
