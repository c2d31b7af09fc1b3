"""Processes are found in /proc and held by pidfd, which are Linux's."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
