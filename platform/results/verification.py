"""Is every figure of a leaderboard what its runs say: computed again, compared, sampled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backstop.platform.params import BadInput
from backstop.platform.results.document import SCHEMA, Document
from backstop.platform.results.names import chain_label
from backstop.platform.results.ranking import SUCCESS, Entry, ranking_document, run_order, setting


def recompute(document: Mapping[str, Any]) -> Document:
    """The document that the document's own runs give. Raises BadInput when it is no leaderboard of
    this schema.
    """
    if document.get("schema") != SCHEMA:
        raise BadInput(
            f"leaderboard: schema {document.get('schema')!r} is not known; this version reads schema {SCHEMA}"
        )
    try:
        runs = [
            Entry(
                run["id"],
                run["spec"],
                run["metrics"],
                data=run.get("data", ""),
                curves={
                    f"round/{SUCCESS}": [
                        (int(at), float(rate)) for at, rate in run["success_by_round"]
                    ]
                },
            )
            for run in document["runs"]
        ]
        return ranking_document(
            sorted(runs, key=run_order),
            document["experiment"],
            document["fingerprint"],
            document.get("code", {}),
            document.get("missing_runs", []),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(
            f"leaderboard: its runs cannot be read ({type(error).__name__}: {error}); was the file changed by hand?"
        ) from None


def differences(document: Mapping[str, Any], recomputed: Mapping[str, Any]) -> list[str]:
    """Every field in which two documents differ, in words, in the order of the file."""

    def names(item: object) -> str:
        if not isinstance(item, Mapping):
            return ""
        if (
            "attack" in item
            and "defense" in item
            and "rank" not in item
            and isinstance(item["attack"], str)
        ):
            return f" {item['attack']} × {item['defense']}"
        return (
            f" {item['defense']}"
            if "rank" in item
            else f" {str(item['id'])[:12]}"
            if "id" in item
            else ""
        )

    def walk(path: str, old: object, new: object) -> list[str]:
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            keys = [*old, *(key for key in new if key not in old)]
            gap = (
                ""
                if not path
                else " "
                if path.endswith(("…", "×")) or " " in path.rpartition("]")[2]
                else "."
            )
            return [
                line
                for key in keys
                for line in walk(
                    f"{path}{gap}{key}" if path else str(key),
                    old.get(key, "(missing)"),
                    new.get(key, "(missing)"),
                )
            ]
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            return [
                line
                for place, (a, b) in enumerate(zip(old, new, strict=True))
                for line in walk(f"{path}[{place}]{names(a)}", a, b)
            ]
        if old == new and type(old) is type(new):
            return []
        return [f"{path}: file {_brief(old)}, recomputed {_brief(new)}"]

    return walk("", document, recomputed)


def _brief(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries" if len(value) > 4 else json.dumps(value, ensure_ascii=False)
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}…"


def sample_runs(
    document: Mapping[str, Any], count: int, wrong: Sequence[str] = ()
) -> list[Document]:
    """The runs to do again: those of the cells that differences name, then others in the order of
    their ids, ``count`` in all.
    """
    doubted = set()
    for line in wrong:
        found = re.match(r"cells\[(\d+)\]", line)
        if found and int(found[1]) < len(document["cells"]):
            cell = document["cells"][int(found[1])]
            doubted.add((cell["setting"], cell["attack"], cell["defense"]))

    def order(run: Document) -> tuple[bool, str]:
        spec = run["spec"]
        place = (
            setting(spec),
            chain_label(spec["attack"], "attack"),
            chain_label(spec["defense"], "defense"),
        )
        return place not in doubted, str(run["id"])

    return sorted(document["runs"], key=order)[: max(0, count)]
