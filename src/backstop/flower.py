"""Backstop inside Flower: a strategy with any chain of defenses, and malicious clients.

    from backstop.flower import Defended, malicious

    strategy = Defended("norm_clip(norm=1)+median", FedAvg(fraction_train=0.5))
    attack = malicious("badnets+model_replacement(strength=5)", share=0.2)
    app = ClientApp(mods=[attack])

docs/flower.md has a whole app.
"""

from __future__ import annotations

try:
    import flwr.serverapp.strategy as _flower
except ImportError as error:
    raise ImportError(
        f"backstop.flower needs Flower's message API, flwr 1.42 or later ({error}):"
        " pip install 'flwr>=1.42,<2'"
    ) from error

from backstop.platform.library.poisoning import poisoned_data as poisoned
from backstop.platform.stacks.flower_classic import DefendedClassic
from backstop.platform.stacks.flower_mod import Malicious, malicious
from backstop.platform.stacks.flower_strategy import DefendedStrategy as Defended

del _flower
__all__ = ["Defended", "DefendedClassic", "Malicious", "malicious", "poisoned"]
