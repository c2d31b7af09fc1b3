"""How unequal the clients of each setting are, as a table."""

from __future__ import annotations

from typing import NamedTuple

from backstop.platform.results.figures.names import Json, part_label, task_names
from backstop.platform.results.figures.wording import dealt

SPLIT_HEADS = ("setting", "clients", "in a round", "dealt", "labels", "sizes", "inputs")
SPLIT_NOTE = (
    "In the mean over the seeds. Labels: the share of a client's samples that would need another"
    " label for its labels to be those of all clients, in the mean over clients. Sizes: the samples"
    " of the largest client over those of the smallest. Inputs: how far means and standard"
    " deviations of a client's inputs are from those of all, in standard deviations, in the mean"
    " over clients. Labels and inputs are not 0 where samples are dealt at random."
)


class SplitLine(NamedTuple):
    """A line of the table, in the order of :data:`SPLIT_HEADS`."""

    setting: str
    clients: str
    per_round: str
    dealt: str
    labels: str
    sizes: str
    inputs: str


def split_lines(document: Json) -> list[SplitLine]:
    """A line for each setting whose runs tell it."""
    titles = {board["setting"]: board["title"] for board in document["boards"]}
    names = task_names(document) | titles
    lines = []
    for setting, figures in document.get("splits", {}).items():
        fields = document["settings"].get(setting)
        if fields is None:
            continue
        line = SplitLine(
            setting=str(names.get(setting, part_label(fields["dataset"]))),
            clients=str(fields["clients"]),
            per_round=str(fields["per_round"]),
            dealt=dealt(fields),
            labels=f"{figures['label_skew']:.2f}",
            sizes=f"{figures['size_ratio']:.3g}",
            inputs="–" if figures["input_skew"] is None else f"{figures['input_skew']:.2f}",
        )
        lines.append(line)
    return lines
