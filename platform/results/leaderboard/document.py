"""The leaderboard's document as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backstop.platform import disk
from backstop.platform.params import BadInput
from backstop.platform.results.figures.names import Json

SCHEMA = 2

Document = dict[str, Any]


def encode_document(document: Json) -> str:
    """The file's text: valid JSON, one line per row, cell and run, so that two files can be
    compared line by line.
    """
    blocks = []
    for key, value in document.items():
        text = _json(value)
        if isinstance(value, list) and value:
            lines = ",\n  ".join(map(_json, value))
            text = f"[\n  {lines}\n ]"
        blocks.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_text(file: Path, content: str) -> Path:
    """Write a text file whole or not at all, with line feeds on every system. Raises BadInput when
    it cannot be written.
    """
    return write_bytes(file, content.encode())


def write_bytes(file: Path, content: bytes) -> Path:
    """Write a file whole or not at all. Raises BadInput when it cannot be written."""
    try:
        disk.write_atomically(file, content)
    except OSError as error:
        raise BadInput(f"{file}: cannot be written: {error.strerror or error}") from None
    return file
