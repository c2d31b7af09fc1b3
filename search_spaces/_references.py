"""What stands in every space that ranks defenses, between which a method has to show what it is
worth: undefended FedAvg, and a server that never moves the model. Neither gets a rank.
"""

from __future__ import annotations

REFERENCES = ("fedavg", "frozen")
