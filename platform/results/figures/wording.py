"""Numbers in words: percentages, figures over seeds, counts."""

from __future__ import annotations

from backstop.platform.results.figures.names import Json
from backstop.platform.specs.spec import scalar_fields

SPLIT_NUMBERS = ("labels_each", "size_exponent", "input_noise")
UNEVEN = 1.25  # of the sides of an interval, from which on both are told


def percent(value: float | None, digits: int = 1) -> str:
    """A share for people, in percent without the sign; a dash where there is none.

    >>> percent(0.5), percent(-1e-9), percent(None)
    ('50.0', '0.0', '–')
    """
    return "–" if value is None else f"{round(100 * value, digits) + 0:.{digits}f}"


def spread(figure: Json | None) -> str:
    """A mean with the ends of its range or interval in percent: ``91.2 (90.1 to 92.0)``; without
    them where there is a single value.
    """
    if figure is None:
        return "–"
    if figure["low"] == figure["high"]:
        return percent(figure["mean"])
    return f"{percent(figure['mean'])} ({percent(figure['low'])} to {percent(figure['high'])})"


def margin(figure: Json | None) -> str:
    """As :func:`spread`, but a 95 % interval as ``91.2 ±0.9``, and one whose sides differ by more
    than a quarter as ``80.4 -58.9/+19.6``.
    """
    if figure is None or figure["kind"] == "range":
        return spread(figure)
    below, above = figure["mean"] - figure["low"], figure["high"] - figure["mean"]
    if max(below, above) > UNEVEN * min(below, above) and percent(below) != percent(above):
        return f"{percent(figure['mean'])} -{percent(below)}/+{percent(above)}"
    return f"{percent(figure['mean'])} ±{percent((below + above) / 2)}"


def mean_alone(figure: Json | None) -> str:
    """A mean in percent, without the ends of its range or interval."""
    return "–" if figure is None else percent(figure["mean"])


def told(figure: Json | None) -> str:
    """A figure in a sentence of its own: ``91.2 (90.1 to 92.0, range of 3 seeds)``.

    >>> told({"mean": 0.5, "low": 0.25, "high": 0.75, "n": 3, "kind": "range"})
    '50.0 (25.0 to 75.0, range of 3 seeds)'
    """
    if figure is None or figure["low"] == figure["high"]:
        return spread(figure)
    return f"{spread(figure)[:-1]}, {kind_of_ends(figure)})"


def kind_of_ends(figure: Json) -> str:
    """What the ends of a figure are."""
    seeds = plural(figure["n"], "seed")
    if figure["kind"] == "range":
        return f"range of {seeds}"
    return f"95 % interval over {seeds}"


def plural(count: int, noun: str) -> str:
    """``1 seed``, ``2 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def dealt(fields: Json) -> str:
    """How samples are dealt to the clients, by the fields of a spec that say so; one that is not
    written down has its default.

    >>> dealt({"alpha": 0.5}), dealt({"alpha": None, "input_noise": 0.2})
    ('Dirichlet 0.5', 'IID, input noise up to 0.2')
    >>> dealt({"alpha": "labels"}), dealt({"alpha": "sizes", "size_exponent": 2.0})
    ('2 labels each', 'sizes by a power law of exponent 2')
    >>> dealt({"alpha": None, "fake_samples": 80})
    'IID, all to honest clients; malicious ones hold none and claim 80 each'
    """
    alpha = fields["alpha"]
    given = {name: fields.get(name, scalar_fields()[name].default) for name in SPLIT_NUMBERS}
    ways = {
        None: "IID",
        "natural": "natural",
        "shards": "two label shards each",
        "labels": f"{plural(given['labels_each'], 'label')} each",
        "sizes": f"sizes by a power law of exponent {given['size_exponent']:g}",
    }
    way = ways[alpha] if alpha in ways else f"Dirichlet {alpha:g}"  # noqa: SIM401 -- :g of text
    noise = f", input noise up to {given['input_noise']:g}" if given["input_noise"] else ""
    claim = fields.get("fake_samples")
    if claim is None:
        return way + noise
    claimed = "the mean" if claim == "mean" else claim
    return f"{way}{noise}, all to honest clients; malicious ones hold none and claim {claimed} each"
