"""MLflow's own pages on a store."""

from __future__ import annotations

import os
import subprocess
import sys

from backstop.platform.params import BadInput
from backstop.platform.results.tracking.store import QUIET, Store, check_exists
from backstop.platform.results.tracking.view import CHARTS, view_addresses


def serve_ui(store: Store, port: int) -> int:
    """MLflow's own pages on the store, until interrupted: its exit code. A server has its own,
    whose address is said.
    """
    if store.uri.startswith(("http://", "https://")):
        print(f"the tracking server's own pages: {store.uri}", file=sys.stderr)
        _print_addresses(store, store.uri)
        return 0
    check_exists(store)
    server = f"http://127.0.0.1:{port}"
    print(f"{server} shows {store.uri}; Ctrl-C ends it", file=sys.stderr)
    _print_addresses(store, server)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store.uri]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    # one worker and no job runners: the defaults start eleven processes for a single reader
    environment = {
        **QUIET,
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    try:
        return subprocess.call([*command, "--workers", "1"], env=environment)
    except KeyboardInterrupt:
        return 130


def _print_addresses(store: Store, server: str) -> None:
    """Where the experiments are shown with the columns and charts that compare their runs."""
    try:
        addresses = view_addresses(store, server)
    except BadInput as error:  # MLflow's own pages may still say what there is
        print(f"backstop: {error}", file=sys.stderr)
        return
    for name, address in addresses.items():
        print(f"  {name}: {address}", file=sys.stderr)
        print(f"  {name}, charts: {address}{CHARTS}", file=sys.stderr)
