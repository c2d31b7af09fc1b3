"""What a trial's process needs, imported while it waits for its first trial.

A local Ray starts a process for each processor before anybody asks for one; they import this
module as they start.
"""

from __future__ import annotations

from backstop.platform import collector

with collector.resting():
    from backstop.platform.sweeps.trials import Trial

__all__ = ["Trial"]
