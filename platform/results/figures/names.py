"""Chains by name: in full, and short for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform.specs import notation
from backstop.platform.specs.part import NOTHING, Part, stages_text

Chain = tuple[Part, ...]
Json = Mapping[str, Any]  # an object as JSON has it
Stages = Sequence[Json]  # a chain as JSON has it
# a parameter in order: its key, whether its value is no number, its number, its text
ParameterOrder = tuple[str, bool, float, str]


class ChainName(NamedTuple):
    """A chain as a table shows it.

    >>> name = ChainName("clip(norm=1, p=2)+median", (Part("clip", {"norm": 1}), Part("median")))
    >>> str(name), name.family, str(name.marked("†"))
    ('clip(norm=1)+median', 'clip+median', 'clip(norm=1)+median†')
    """

    text: str  # the chain in full
    stages: Chain  # with the parameters that tell it from the chains beside it
    mark: str = ""  # that points to a footnote

    def __str__(self) -> str:
        return self._joined("+") + self.mark

    @property
    def family(self) -> str:
        """The names of the plug-ins alone: what variants of one chain have in common."""
        return stages_text([stage.name for stage in self.stages]) or self.text

    def marked(self, mark: str) -> ChainName:
        """The same chain with a mark at its end."""
        return self._replace(mark=self.mark + mark)

    def on_lines(self) -> str:
        """The name with each stage on a line of its own."""
        return self._joined("\n+") + self.mark

    @property
    def parameters(self) -> list[str]:
        """The parameters of a single stage, each as ``key=value``; none of a longer chain."""
        if len(self.stages) != 1:
            return []
        parameters = sorted(self.stages[0].params.items())
        return [f"{key}={notation.write(value)}" for key, value in parameters]

    def _joined(self, sign: str) -> str:
        return stages_text(list(map(str, self.stages)), sign) or self.text


def chain_of(stages: Stages) -> Chain:
    """The chain that JSON holds."""
    return tuple(Part(stage["name"], stage["params"]) for stage in stages)


def chain_label(stages: Stages, role: str) -> str:
    """The text form of a chain in JSON; the empty one is called ``none`` or ``fedavg``."""
    return stages_text(list(map(str, chain_of(stages)))) or NOTHING[role]


def stages_of(stages: Stages) -> list[dict[str, Any]]:
    """The chain as a document holds it."""
    return [_stage_of(stage["name"], stage["params"]) for stage in stages]


def _stage_of(name: str, params: Json) -> dict[str, Any]:
    return {"name": name, "params": dict(params)}


def row_of(document: Json, defense: str) -> str:
    """A run's defense as a leaderboard's rows and cells call it."""
    joined: Mapping[str, str] = document.get("joined", {})
    return joined.get(defense, defense)


def document_chains(document: Json) -> dict[str, Chain]:
    """The chains of a leaderboard by their texts."""
    chains = {}
    for cell in document["cells"]:
        chains[cell["attack"]] = chain_of(cell["attack_stages"])
        chains[cell["defense"]] = chain_of(cell["defense_stages"])
    return chains


def chain_order(chain: Chain) -> list[tuple[str, list[ParameterOrder]]]:
    """The key that sorts chains by their names, then by the values of their parameters.

    >>> chains = [(Part("clip", {"norm": norm}),) for norm in (10, 2, 1.5)]
    >>> [str(stage) for (stage,) in sorted(chains, key=chain_order)]
    ['clip(norm=1.5)', 'clip(norm=2)', 'clip(norm=10)']
    """
    return [_stage_order(stage) for stage in chain]


def _stage_order(stage: Part) -> tuple[str, list[ParameterOrder]]:
    parameters = sorted(stage.params.items())
    return stage.name, [_parameter_order(*parameter) for parameter in parameters]


def _parameter_order(key: str, value: notation.Value) -> ParameterOrder:
    """Numbers by value, all else by its text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return key, False, value, ""
    return key, True, 0, notation.write(value)


def attack_names(document: Json) -> dict[str, ChainName]:
    """Names of a leaderboard's attacks, by their full texts."""
    chains = document_chains(document)
    attacks = {}
    for cell in document["cells"]:
        attack = cell["attack"]
        if attack != NOTHING["attack"]:
            attacks[attack] = chains[attack]
    return chain_names(attacks)


def variant_names(document: Json) -> dict[str, ChainName]:
    """Names of the defenses that a leaderboard has joined to others, by their full texts."""
    joined = document.get("joined", {})
    stages = (run["spec"]["defense"] for run in document["runs"] if joined)
    chains = {chain_label(each, "defense"): chain_of(each) for each in stages}
    return chain_names({text: chain for text, chain in chains.items() if text in joined})


def short_names(*documents: Json) -> dict[str, ChainName]:
    """Names of the leaderboards' attacks and defenses among each other's, by their full texts."""
    chains: dict[str, dict[str, Chain]] = {"attack": {}, "defense": {}}
    for document in documents:
        for cell in document["cells"]:
            for role, known in chains.items():
                known[cell[role]] = chain_of(cell[f"{role}_stages"])
    return chain_names(chains["attack"]) | chain_names(chains["defense"])


def part_label(part: Json) -> str:
    """The text form of one plug-in in JSON."""
    return str(Part(part["name"], part["params"]))


def part_names(settings: Iterable[Json]) -> dict[str, ChainName]:
    """The text of each plug-in in the settings → its name among the others there."""
    values = [value for setting in settings for value in setting.values()]
    parts = [value for value in values if isinstance(value, Mapping)]
    return chain_names({part_label(part): chain_of([part]) for part in parts})


def task_names(document: Json) -> dict[str, str]:
    """Setting → its data and model, among the leaderboard's others."""
    settings: Mapping[str, Json] = document["settings"]
    names = part_names(settings.values())
    tasks = {}
    for setting, fields in settings.items():
        data, model = (names[part_label(fields[role])] for role in ("dataset", "model"))
        tasks[setting] = f"{data} ({model})"
    return tasks


def chain_names(chains: Mapping[str, Chain]) -> dict[str, ChainName]:
    """Names for chains that stand side by side, by their full texts: without the parameters that
    are the same wherever their plug-in occurs.

    >>> from backstop.platform.specs.part import parse_chain
    >>> texts = ["clip(norm=1, p=2)", "clip(norm=3, p=2)+median", "fedavg"]
    >>> chains = {text: parse_chain(text) for text in texts[:2]} | {"fedavg": ()}
    >>> [str(name) for name in chain_names(chains).values()]
    ['clip(norm=1)', 'clip(norm=3)+median', 'fedavg']
    """
    stages = [stage for chain in chains.values() for stage in chain]
    varied = _varied_parameters(stages)
    names = {}
    for text, chain in chains.items():
        short = tuple(_with_only(stage, varied) for stage in chain)
        names[text] = ChainName(text, short)
    return names


def _varied_parameters(stages: Sequence[Part]) -> set[tuple[str, str]]:
    """(plug-in, parameter) of which there are several values, or that a stage does not have."""
    uses = Counter(stage.name for stage in stages)
    varied = set()
    for (name, key), values in _values_by_parameter(stages).items():
        if len(set(values)) > 1 or len(values) < uses[name]:
            varied.add((name, key))
    return varied


def _values_by_parameter(stages: Sequence[Part]) -> Mapping[tuple[str, str], list[str]]:
    """(plug-in, parameter) → its value in each stage that has it, as text."""
    values = defaultdict(list)
    for name, params in stages:
        for key, value in params.items():
            written = notation.write(value)
            values[name, key].append(written)
    return values


def _with_only(stage: Part, varied: set[tuple[str, str]]) -> Part:
    name, params = stage
    shown = {key: value for key, value in params.items() if (name, key) in varied}
    return Part(name, shown)
