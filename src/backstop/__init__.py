"""Backstop: every federated backdoor attack against every defense, as a leaderboard anyone can
regenerate.
"""

__version__ = "0.1.0"
