"""Specs checked, with their defaults, as JSON and as ids."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import ROUND_HALF_UP, Decimal
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, get_type_hints

from backstop.platform import loose, plugins, vault
from backstop.platform.optimizers import OPTIMIZERS
from backstop.platform.params import (
    BadInput,
    Parameter,
    Range,
    check,
    declare,
    fill,
    nearest,
    schema,
)
from backstop.platform.specs.notation import NEXT_ADVERSARY
from backstop.platform.specs.part import (
    Part,
    Scalar,
    chain_text,
    chains_apart,
    complete_part,
    plugin_stages,
    to_chain,
)

MANY = 10**9
Precision = Literal["float32", "bfloat16"]
EvaluateOn = Literal["test", "validation"]
EvaluateBy = Literal["server", "clients"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that can change a number of an experiment, and nothing that cannot.

    Two specs with equal :attr:`id` give the same bytes on the same kind of device with the same
    library versions.
    """

    dataset: Part = Part("digits")
    model: Part = Part("mlp")
    attack: tuple[Part, ...] = ()  # stages compose left to right
    defense: tuple[Part, ...] = ()  # stages compose left to right; () is plain FedAvg
    clients: Annotated[int, Range(1, MANY), "clients in the federation"] = 100
    per_round: Annotated[int, Range(1, MANY), "clients that train in a round"] = 20
    malicious: Annotated[float, Range(0, 1), "share of all clients that is malicious"] = 0.2
    malicious_by: Annotated[
        Literal["lot", "fewest", "most"],
        "which clients are malicious; lot: drawn; fewest, most: those with so many samples",
    ] = "lot"
    fake_samples: Annotated[
        int | Literal["mean"] | None,
        Range(1, MANY),
        "none: malicious clients hold data as others do; a number or mean: they are added fakes"
        " without data, all samples are dealt to the others, and each claims to hold so many",
    ] = None
    selection: Annotated[
        Literal["random", "fixed"], "fixed: every cohort holds the same number of malicious clients"
    ] = "random"
    client_dropout: Annotated[
        float,
        Range(0, 1, high_open=True),
        "chance that a client of a cohort, honest or malicious, never answers in a round",
    ] = 0.0
    alpha: Annotated[
        float | Literal["natural", "shards", "labels", "sizes"] | None,
        Range(0, MANY, low_open=True),
        "a number: Dirichlet concentration, by which each class is dealt over the clients"
        " (not each client's mix of classes drawn), so clients differ in size;"
        " none: IID; shards: two label shards a client; natural: the dataset's own clients;"
        " labels: labels_each of the labels a client; sizes: IID, in sizes by a power law",
    ] = 0.5
    labels_each: Annotated[
        int, Range(1, MANY), "with alpha=labels: how many labels a client has"
    ] = 2
    size_exponent: Annotated[
        float,
        Range(0, 10),
        "with alpha=sizes: the client of rank r has a share proportional to r^-size_exponent",
    ] = 1.0
    input_noise: Annotated[
        float,
        Range(0, 100),
        "standard deviation of the noise on the last client's training inputs, of images on the"
        " scale from 0 to 1, of tables in standard deviations; from the first client, which has"
        " none, it grows evenly",
    ] = 0.0
    rounds: Annotated[int, Range(1, MANY), "communication rounds"] = 30
    local_epochs: Annotated[
        int, Range(1, MANY), "passes over its own samples that a client makes in a round"
    ] = 1
    batch: Annotated[int, Range(1, MANY), "samples in a local step"] = 64
    optimizer: Part = Part("sgd")  # built anew each round on each client
    start: Annotated[
        str | None,
        "checkpoint that the model starts from, named by its content; none: fresh initial values",
    ] = None
    warmup: Annotated[
        int, Range(0, MANY), "rounds of clean, undefended FedAvg before the first round"
    ] = 0
    server_lr: Annotated[
        float, Range(0, 1e6, low_open=True), "factor on the aggregate, the same for every defense"
    ] = 1.0
    attack_start: Annotated[
        int, Range(0, MANY), "first round in which malicious clients attack"
    ] = 0
    attack_stop: Annotated[
        int | None, Range(0, MANY), "first round in which they no longer do; none: never"
    ] = None
    attack_every: Annotated[int, Range(1, MANY), "attack in every k-th round from the start on"] = 1
    attackers: Annotated[
        Literal["all", "in_turn"],
        "who attacks in an attacked round; all: every malicious client of its cohort;"
        " in_turn: one malicious client, the next by id each time, and the cohort holds it",
    ] = "all"
    dormant: Annotated[
        bool,
        "malicious clients make their trigger but train and send as honest ones:"
        " the attack's clean twin",
    ] = False
    eval_every: Annotated[int, Range(1, MANY), "evaluate every k-th round and the last"] = 1
    root_size: Annotated[
        int, Range(0, MANY), "training samples the server holds out of the clients' data"
    ] = 100
    block: Annotated[
        int, Range(1, MANY), "clients trained together by the vectorized engine (at most per_round)"
    ] = 20
    precision: Annotated[
        Precision,
        "of the model's products and convolutions in training and evaluation; parameters, updates"
        " and defenses are float32 with both",
    ] = "float32"
    evaluate_on: Annotated[
        EvaluateOn,
        "test: the test set; validation: a part of the training data that no client and no root"
        " set holds, for tuning and searches, which never see the test set",
    ] = "test"
    evaluate_by: Annotated[
        EvaluateBy,
        "server: the global model on the test set; clients: each client's model on its own part of"
        " the test set, by its labels, and the figures are means over honest clients that have"
        " trained; a defense whose clients keep a part of the model is always measured so",
    ] = "server"
    seed: Annotated[int, Range(0, 2**31 - 1), "names all random streams"] = 0

    @cached_property
    def resolved(self) -> Spec:
        """The spec with all defaults filled in, or BadInput; worked out once (:func:`validate`)."""
        resolved = _resolve(self)
        resolved.__dict__["resolved"] = resolved  # what came out of here need not go in again
        return resolved

    @cached_property
    def id(self) -> str:
        """Sha256 (hex) of the canonical JSON with defaults filled in and each plug-in's VERSION."""
        return spec_id(self) if self.resolved is self else self.resolved.id

    def replace(self, **changes: Any) -> Spec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


# fields younger than the ids of stored runs: written only where they differ from their default
YOUNGER_FIELDS = frozenset(
    {
        "precision",
        "evaluate_on",
        "evaluate_by",
        "client_dropout",
        "malicious_by",
        "fake_samples",
        "labels_each",
        "size_exponent",
        "input_noise",
    }
)
# fields that say nothing but with one value of ``alpha``
SPLIT_FIELDS = {"labels_each": "labels", "size_exponent": "sizes"}
ENGINE = 3  # raised when the platform's own numbers change; part of every id
ADVERSARIES = 2  # likewise for those of several adversaries, part of the ids of their specs
DORMANT = ", dormant"  # said after an attack that is only its clean twin


@lru_cache
def scalar_fields() -> dict[str, Parameter]:
    """The Spec's scalar fields as declared parameters: the options of ``run`` and the keys of
    ``--set``.
    """
    hints = get_type_hints(Spec, include_extras=True)
    return {
        item.name: declare(item.name, hints[item.name], item.default)
        for item in fields(Spec)
        if hasattr(hints[item.name], "__metadata__")
    }


def spec_title(spec: Spec) -> str:
    """The cell of a spec in words: attack × defense."""
    attack = chain_text(spec.attack, "attack") + DORMANT * spec.dormant
    return f"{attack} × {chain_text(spec.defense, 'defense')}"


def complete_optimizer(given: Part) -> Part:
    """The optimizer with defaults filled in and every parameter checked."""
    if given.name not in OPTIMIZERS:
        raise BadInput(f"unknown optimizer {given.name!r}; {nearest(given.name, OPTIMIZERS)}")
    declared = schema(OPTIMIZERS[given.name])
    return Part(given.name, fill(declared, given.params, f"optimizer {given.name}"))


def validate(spec: Spec) -> Spec:
    """The spec with all defaults filled in, or BadInput. Nothing is loaded and nothing is drawn.

    It costs something once for each spec: the answer is kept with the spec, and is its own answer.
    """
    return spec.resolved


def _resolve(spec: Spec) -> Spec:
    """The work of :func:`validate`."""
    spec = _completed(spec)
    _check_schedule(spec)
    check_split({name: getattr(spec, name) for name in ("alpha", *SPLIT_FIELDS)})
    _check_attackers(spec)
    if spec.dormant and not spec.attack:
        raise BadInput("spec: dormant=True is the clean twin of an attack; attack is none")
    if spec.start is not None and not vault.KEPT_NAME.fullmatch(spec.start):
        raise BadInput(
            f"spec: start={spec.start!r} is not allowed;"
            f" start is the name of a kept checkpoint, sha256-…, or none; {START_HINT}"
        )
    _check_kinds(spec)
    check_defense(spec.defense, spec.root_size)
    _check_triggers(spec)
    spec = _measured_by_clients(spec) if _keeping(spec.defense) else spec
    _check_measured(spec)
    _check_fakes(spec)
    return spec


def _completed(spec: Spec) -> Spec:
    """The spec with all defaults filled in, each value checked by itself."""
    spec = spec.replace(**_checked_scalars(spec))
    attack = to_chain(spec.attack, "attack")
    defense = to_chain(spec.defense, "defense")
    return spec.replace(
        dataset=complete_part(spec.dataset, "datasets"),
        model=complete_part(spec.model, "models"),
        attack=tuple(complete_part(stage, "attacks") for stage in attack),
        defense=tuple(complete_part(stage, "defenses") for stage in defense),
        optimizer=complete_optimizer(spec.optimizer),
    )


def _checked_scalars(spec: Spec) -> dict[str, Scalar]:
    """The scalars of a spec by their names, each checked by itself."""
    checked = {}
    for name, parameter in scalar_fields().items():
        checked[name] = check(parameter, getattr(spec, name), "spec")
    return checked


def _parts_by_group(spec: Spec) -> list[tuple[str, Part]]:
    """The plug-ins of a spec: (group, part)."""
    return [
        ("datasets", spec.dataset),
        ("models", spec.model),
        *(("attacks", stage) for stage in plugin_stages(spec.attack)),
        *(("defenses", stage) for stage in spec.defense),
    ]


def loose_names(spec: Spec) -> list[str]:
    """The names of a spec's plug-ins that are loose files."""
    return [part.name for _, part in _parts_by_group(spec) if loose.is_full_name(part.name)]


def _check_schedule(spec: Spec) -> None:
    if spec.per_round > spec.clients:
        raise BadInput(
            f"spec: per_round={spec.per_round} is more than clients={spec.clients};"
            " at most all clients train in a round"
        )
    if spec.attack_stop is not None and spec.attack_stop <= spec.attack_start:
        raise BadInput(
            f"spec: attack_stop={spec.attack_stop} must come after attack_start={spec.attack_start}"
        )


def check_split(given: Mapping[str, Scalar]) -> None:
    """BadInput where a field of :data:`SPLIT_FIELDS` is given to a split that does not read it."""
    for name, split in SPLIT_FIELDS.items():
        usual = scalar_fields()[name].default
        if given[name] != usual and given["alpha"] != split:
            raise BadInput(
                f"spec: {name}={given[name]} is for alpha={split}, and alpha={given['alpha']};"
                f" set alpha={split}, or leave {name} as it is ({usual})"
            )


def _check_kinds(spec: Spec) -> None:
    """Model, attack and defense must take the kind of data that the dataset has."""
    kinds = set(plugins.kinds("datasets", spec.dataset.name))
    for group, part in _parts_by_group(spec)[1:]:
        takes = plugins.kinds(group, part.name)
        if takes and kinds and not kinds & set(takes):
            raise BadInput(
                f"{plugins.SINGULAR[group]} {part.name} takes {' and '.join(takes)} data;"
                f" dataset {spec.dataset.name} is {' or '.join(sorted(kinds))} data"
            )


def _check_triggers(spec: Spec) -> None:
    chains = chains_apart(spec.attack)
    for number, chain in enumerate(chains, 1):
        triggers = [stage.name for stage in chain if plugins.attack_facts(stage.name).trigger]
        if len(triggers) > 1:
            raise BadInput(
                f"attack {chain_text(chain, 'attack')}: {' and '.join(triggers)} both define the"
                " trigger; keep one of them"
            )
        if not triggers and len(chains) > 1:
            raise BadInput(
                f"attack {chain_text(spec.attack, 'attack')}: adversary {number},"
                f" {chain_text(chain, 'attack')}, has no trigger, so that its success is none to"
                " measure; each of several adversaries has one"
            )


def attacker_count(clients: int, share: float) -> int:
    """Malicious clients in the federation: share · clients, halves rounded up.

    >>> attacker_count(100, 0.145)  # 14.5, not 14.499…
    15
    """
    return int((Decimal(str(share)) * clients).to_integral_value(ROUND_HALF_UP))


def attackers_in_cohort(
    clients: int,
    per_round: int,
    malicious: int,
) -> int:
    """Malicious clients in each cohort of a fixed selection: per_round · malicious / clients,
    halves rounded up.
    """
    return (2 * per_round * malicious + clients) // (2 * clients)


def _check_attackers(spec: Spec) -> None:
    """An attack that can never happen would be ranked as one that every defense stops."""
    if not spec.attack:
        return
    if spec.attack_start >= spec.rounds:
        raise BadInput(
            f"spec: attack_start={spec.attack_start} comes after the last of rounds={spec.rounds}"
            f" (they count from 0), so nobody ever attacks; at most {spec.rounds - 1}"
        )
    present = attacker_count(spec.clients, spec.malicious)
    if not present:
        raise BadInput(
            f"spec: malicious={spec.malicious:g} of clients={spec.clients} is no client at all, so"
            f" nobody ever attacks; at least {0.5 / spec.clients:g}, or attack none"
        )
    several = len(chains_apart(spec.attack))
    if present < several:
        least = (several - 0.5) / spec.clients
        raise BadInput(
            f"spec: malicious={spec.malicious:g} of clients={spec.clients} is {present} for"
            f" {several} adversaries; each needs a client of its own, so at least"
            f" {f'{least:g}' if least <= 1 else f'clients={several}'}"
        )
    in_turn = spec.attackers == "in_turn"  # the cohort holds the attacker, whatever the selection
    drawn = attackers_in_cohort(spec.clients, spec.per_round, present)
    if spec.selection == "fixed" and not drawn and not in_turn:
        raise BadInput(
            f"spec: selection=fixed gives a cohort of per_round={spec.per_round} none of the"
            f" {present} malicious among clients={spec.clients}, so nobody ever attacks; at least"
            f" per_round={-(-spec.clients // (2 * present))}, or selection=random"
        )


def _check_fakes(spec: Spec) -> None:
    """Where malicious clients hold no data, nothing may ask for any."""
    if spec.fake_samples is None:
        return
    said = f"spec: fake_samples={spec.fake_samples} leaves malicious clients without data"
    if attacker_count(spec.clients, spec.malicious) == spec.clients:
        raise BadInput(
            f"{said}, and malicious={spec.malicious:g} of clients={spec.clients} are all of them;"
            " at least one has to be honest"
        )
    if spec.malicious_by != "lot":
        raise BadInput(
            f"{said}, so none has the {spec.malicious_by}; set malicious_by=lot, or"
            " fake_samples=none"
        )
    for stage in plugin_stages(spec.attack):
        if not plugins.attack_facts(stage.name).data_free:
            names = [name for name in plugins.names("attacks") if _runs_without_data(name)]
            raise BadInput(
                f"{said}, and attack {stage.name} needs some; take one that does not"
                f" ({', '.join(names)}), or fake_samples=none"
            )
    if spec.evaluate_by == "clients":
        raise BadInput(
            f"{said}, so they have no test data of their own; set evaluate_by=server, without a"
            " defense whose clients keep a part of the model"
        )
    for stage in spec.defense:
        if "validation" in plugins.defense_facts(stage.name).needs:
            raise BadInput(
                f"{said}, and defense {stage.name} lets clients score models on theirs; take"
                " another, or fake_samples=none"
            )


def _runs_without_data(attack: str) -> bool:
    return plugins.attack_facts(attack).data_free


def check_defense(stages: Sequence[Part], root_size: int) -> None:
    """What a chain of defenses, with all parameters filled in, needs: a root set where a stage asks
    for one, and rows of the kind that each stage takes. Raises BadInput.
    """
    _check_predictions(stages)
    _check_keeping(stages)
    chain = "+".join(stage.name for stage in stages)
    rows, by = "clients", ""  # what the stages so far leave, and the last that changed it
    for name in (stage.name for stage in stages):
        facts = plugins.defense_facts(name)
        if "root" in facts.needs and not root_size:
            raise BadInput(
                f"defense {name} needs the server's root set;"
                " root_size=0 leaves none, allowed is at least 1"
            )
        if rows == "row" and facts.takes != "row":
            raise BadInput(
                f"defense {chain}: {by} leaves one merged row and {name} compares rows;"
                f" put {name} first"
            )
        if rows == "mixtures" and facts.takes == "clients":
            raise BadInput(
                f"defense {chain}: {by} mixes the clients' rows and {name} needs each client's own;"
                f" put {name} first"
            )
        if facts.gives != "rows":
            rows, by = facts.gives, name


def _check_predictions(stages: Sequence[Part]) -> None:
    """At most one stage says how the final model predicts."""
    predicting: list[str] = []
    for stage in stages:
        switch = plugins.defense_facts(stage.name).predicts
        if switch and stage.params[switch]:
            predicting.append(stage.name)
        if len(predicting) > 1:
            chain = "+".join(stage.name for stage in stages)
            raise BadInput(
                f"defense {chain}: {' and '.join(predicting)} both say how the final model"
                f" predicts; keep one of them, or turn that off: {stage.name}({switch}=0)"
            )


def _keeping(stages: Sequence[Part]) -> list[str]:
    """The stages under which each client has something of its own."""
    return [stage.name for stage in stages if plugins.defense_facts(stage.name).keeps]


def _check_keeping(stages: Sequence[Part]) -> None:
    """At most one stage says what clients have of their own."""
    keeping = _keeping(stages)
    if len(keeping) > 1:
        chain = "+".join(stage.name for stage in stages)
        raise BadInput(
            f"defense {chain}: {' and '.join(keeping)} both say what clients have of their own;"
            " keep one of them"
        )
    _check_repairs(stages)


def _check_repairs(stages: Sequence[Part]) -> None:
    """Nothing repairs the final model where nobody uses it: it would be ranked as if it did."""
    repairing = [stage.name for stage in stages if plugins.defense_facts(stage.name).repairs]
    for name in _keeping(stages) if repairing else ():
        if plugins.defense_facts(name).keeps == "model":
            chain = "+".join(stage.name for stage in stages)
            sharing = [other for other in plugins.names("defenses") if _keeps_a_part(other)]
            raise BadInput(
                f"defense {chain}: {repairing[0]} changes the final global model alone, and under"
                f" {name} clients are measured on models of their own, which that does not reach;"
                f" leave one of them out, or have clients share a part ({', '.join(sharing)})"
            )


def _keeps_a_part(defense: str) -> bool:
    return plugins.defense_facts(defense).keeps in ("norms", "head")


def _measured_by_clients(spec: Spec) -> Spec:
    """The spec whose figures are those of the clients' models: there are no others."""
    return spec if spec.evaluate_by == "clients" else spec.replace(evaluate_by="clients")


def _check_measured(spec: Spec) -> None:
    """A run whose figures are means over no client would have none."""
    clients = spec.clients
    if spec.evaluate_by == "clients" and attacker_count(clients, spec.malicious) == clients:
        keeping = _keeping(spec.defense)
        by = f", by defense {keeping[0]}" if keeping else ""
        raise BadInput(
            f"spec: malicious={spec.malicious:g} of clients={clients} is all of them, and the"
            f" figures are those of honest ones (evaluate_by=clients{by}); at most"
            f" {(clients - 1) / clients:g}"
        )


def written_fields(spec: Spec) -> list[str]:
    """The fields by which a spec is written down, in their order: all but :data:`YOUNGER_FIELDS`
    that have their default.
    """
    return [
        item.name
        for item in fields(Spec)
        if item.name not in YOUNGER_FIELDS or getattr(spec, item.name) != item.default
    ]


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """The spec as plain JSON, written field by field: parts are ``{"name", "params"}``."""

    def plain(item: Any) -> Any:
        if isinstance(item, Part):
            return {"name": item.name, "params": dict(sorted(item.params.items()))}
        return [plain(member) for member in item] if isinstance(item, tuple) else item

    return {name: plain(getattr(spec, name)) for name in written_fields(spec)}


def spec_text(spec: Spec) -> str:
    """The spec as one line of JSON, just as it is written: resolved specs with one id have one
    text, and it costs less.
    """
    return json.dumps(spec_to_json(spec), sort_keys=True)


def spec_from_json(document: Mapping[str, Any]) -> Spec:
    """The spec that :func:`spec_to_json` wrote, or BadInput."""
    known = {item.name for item in fields(Spec)}
    for name in document:
        if name not in known:
            raise BadInput(f"spec: unknown field {name!r}; {nearest(name, known)}")
    try:
        values = {name: _from_json(item) for name, item in document.items()}
    except (KeyError, TypeError):
        raise BadInput('spec: a plug-in is written {"name": …, "params": {…}}') from None
    return Spec(**values)


def _from_json(item: Any) -> Any:
    if isinstance(item, list):
        return tuple(Part(stage["name"], stage["params"]) for stage in item)
    if isinstance(item, dict):
        return Part(item["name"], item["params"])
    return item


def canonical_json(spec: Spec) -> str:
    """The canonical JSON: validated, defaults filled in, with the versions of the plug-ins and of
    the platform's own numbers.
    """
    spec = validate(spec)
    versions = {
        f"{group}.{part.name}": plugins.describe(group, part.name).version
        for group, part in _parts_by_group(spec)
    }
    if len(chains_apart(spec.attack)) > 1:
        versions[f"attacks.{NEXT_ADVERSARY}"] = ADVERSARIES
    return json.dumps(
        {
            "spec": spec_to_json(spec),
            "versions": versions,
            "engine": ENGINE,
        },
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )


def spec_id(spec: Spec) -> str:
    """Sha256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()


START_HINT = (
    "a checkpoint holds named tensors: the .safetensors that `backstop run --save FILE` writes,"
    " or a state dict saved by torch.save"
)
