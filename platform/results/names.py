"""Display names of chains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from backstop.platform.specs.part import NOTHING, Part


def chain_label(stages: Sequence[Mapping[str, Any]], role: str) -> str:
    """The text form of a chain in JSON, as :func:`specs.text` writes it."""
    return "+".join(str(Part(stage["name"], stage["params"])) for stage in stages) or NOTHING[role]


def defense_part_text(part: Mapping[str, Any]) -> str:
    """A stage of a defense as text."""
    return chain_label([part], "defense")


def display_names(texts: Iterable[str]) -> dict[str, str]:
    """Names for people: each chain without the parameters that are the same wherever its plug-in
    occurs among the texts.

    >>> display_names(["clip(norm=1, p=2)", "clip(norm=3, p=2)+median"])
    {'clip(norm=1, p=2)': 'clip(norm=1)', 'clip(norm=3, p=2)+median': 'clip(norm=3)+median'}
    """
    split = {text: [_split(stage) for stage in stage_texts(text)] for text in texts}
    seen: dict[tuple[str, str], set[str]] = {}
    for chain in split.values():
        for name, params in chain:
            for key, value in params.items():
                seen.setdefault((name, key), set()).add(value)

    def one(name: str, params: Mapping[str, str]) -> str:
        kept = [f"{key}={value}" for key, value in params.items() if len(seen[name, key]) > 1]
        return f"{name}({', '.join(kept)})" if kept else name

    return {text: "+".join(one(*stage) for stage in chain) for text, chain in split.items()}


def stage_texts(text: str) -> list[str]:
    """The stages of a text form: split at plus signs outside of parentheses (a value such as 1e+16
    holds one too).
    """
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "+" and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return found


def _split(stage: str) -> tuple[str, dict[str, str]]:
    name, _, inside = stage.removesuffix(")").partition("(")
    pairs = (item.partition("=") for item in inside.split(", ") if item)
    return name, {key: value for key, _, value in pairs}
