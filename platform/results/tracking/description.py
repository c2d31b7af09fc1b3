"""How a run is described in MLflow: its parameters and tags, and the command line of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from backstop import __version__
from backstop.platform import loose
from backstop.platform.rounds.origin import Origin
from backstop.platform.specs.change import attack_strength
from backstop.platform.specs.part import Part, chain_text
from backstop.platform.specs.spec import (
    DORMANT,
    Spec,
    loose_names,
    scalar_fields,
    spec_title,
    spec_to_json,
    validate,
    written_fields,
)

TAG_LIMIT = 8000  # MLflow cuts longer tag values off
PLAIN_WORDS = {
    None: "none",
    True: "true",
    False: "false",
}


def plain_text(value: object) -> str:
    """A parameter's value as MLflow shows it: plain decimal text, ``true``, ``false``, ``none``."""
    if value is None or isinstance(value, bool):
        return PLAIN_WORDS[value]
    return str(value)


def run_params(spec: Spec) -> dict[str, str]:
    """The parameters that a run logs: one plain scalar per key, so that each makes an axis in
    MLflow's charts.

    ``attack.strength`` is left out where no stage has one. A second stage of the same name gets the
    prefix ``….2``.
    """
    spec = validate(spec)
    params = {
        "dataset.name": spec.dataset.name,
        "model.name": spec.model.name,
        "optimizer.name": spec.optimizer.name,
        "attack.name": chain_text(spec.attack, "attack"),
        "defense.name": chain_text(spec.defense, "defense"),
        "seed": str(spec.seed),
    }
    strength = attack_strength(spec)
    if strength is not None:
        params["attack.strength"] = plain_text(strength)
    for role in ("dataset", "model", "optimizer"):
        params |= _prefixed(role, getattr(spec, role).params)
    for role in ("attack", "defense"):
        params |= _chain_params(role, getattr(spec, role))
    scalars = {name: getattr(spec, name) for name in _written_scalars(spec) if name != "seed"}
    return params | _prefixed("fl", scalars)


def _written_scalars(spec: Spec) -> list[str]:
    return [name for name in written_fields(spec) if name in scalar_fields()]


def _chain_params(role: str, chain: tuple[Part, ...]) -> dict[str, str]:
    params: dict[str, str] = {}
    for stage, prefix in zip(chain, stage_prefixes(role, chain), strict=True):
        params |= _prefixed(prefix, stage.params)
    return params


def stage_prefixes(role: str, chain: tuple[Part, ...]) -> list[str]:
    """What the parameters of each stage of a chain begin with: ``defense.median``; a second stage
    of the same name has ``….2``.
    """
    prefixes = []
    times: dict[str, int] = {}
    for stage in chain:
        name = loose.short_name(stage.name)  # MLflow's keys take no @
        times[name] = times.get(name, 0) + 1
        again = f".{times[name]}" * (times[name] > 1)
        prefixes.append(f"{role}.{name}{again}")
    return prefixes


def _prefixed(prefix: str, values: Mapping[str, object]) -> dict[str, str]:
    return {f"{prefix}.{key}": plain_text(value) for key, value in values.items()}


def run_command(spec: Spec) -> str:
    """The command line that runs one spec again."""
    return _command_line(_run_options(spec), _plugin_files(spec))


def rerun_command(
    spec: Spec,
    experiment: str,
    store: str,
) -> str:
    """The command line that runs one spec again into its experiment; what is as by default is left
    out.
    """
    usual = _run_options(validate(Spec()))
    options = {name: text for name, text in _run_options(spec).items() if usual.get(name) != text}
    return _command_line({**options, "experiment": experiment, "store": store}, _plugin_files(spec))


def _run_options(spec: Spec) -> dict[str, str]:
    options = {role: str(getattr(spec, role)) for role in ("dataset", "model", "optimizer")}
    for role in ("attack", "defense"):
        options[role] = chain_text(getattr(spec, role), role)
    for name in _written_scalars(spec):
        options[name.replace("_", "-")] = plain_text(getattr(spec, name))
    return options


def _plugin_files(spec: Spec) -> list[str]:
    """The options that name the loose files of a spec, as they are called; where they lie is for
    the reader to say.
    """
    stems = [loose.short_name(name).partition(":")[0] for name in loose_names(spec)]
    return [f"--plugin {stem}.py" for stem in dict.fromkeys(stems)]


def _command_line(options: Mapping[str, str], files: Sequence[str]) -> str:
    words = [f"--{name} {shlex.quote(text)}" for name, text in options.items()]
    return " ".join(["backstop run", *files, *words])


def run_tags(
    spec: Spec,
    *,
    space: str,
    origin: Origin,
    parent: str | None,
) -> dict[str, str]:
    """The tags that a run carries; those that are empty or too long for MLflow are left out."""
    spec = validate(spec)
    document = json.dumps(
        spec_to_json(spec),
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    tags = {
        "backstop.kind": "trial",
        "backstop.id": spec.id,
        "backstop.space": space,
        "backstop.cell": spec_title(spec),
        "backstop.version": __version__,
        **origin.tags,
        "backstop.spec": document,
        "mlflow.note.content": _note(spec),
        "mlflow.source.name": "backstop",
        "mlflow.parentRunId": parent or "",
    }
    return {key: value for key, value in tags.items() if 0 < len(value) <= TAG_LIMIT}


def _note(spec: Spec) -> str:
    """What MLflow shows above a run."""
    attack, defense = chain_text(spec.attack, "attack"), chain_text(spec.defense, "defense")
    dormant = DORMANT if spec.dormant else ""
    where = f"on {spec.dataset.name} ({spec.model.name}), seed {spec.seed}"
    return (
        f"**{attack}**{dormant} against **{defense}** {where}.\n\n```\n{run_command(spec)}\n```\n"
    )
