#!/bin/bash
# A sweep in one Slurm job: Ray's head, its workers and the driver.
#   MLFLOW_TRACKING_URI=http://HOST:5000 sbatch deploy/slurm.sh quickstart --experiment quickstart
# What follows the script's name is what follows `backstop sweep`.
#SBATCH --job-name=backstop
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
# A node that dies does not end the job.
#SBATCH --no-kill
# Five minutes before the time is over the sweep is stopped and the job queued again: the same
# command goes on from there.
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append

set -euo pipefail

# A folder that all nodes see: venv/ with Backstop in it, data/, store/, cache/.
shared=${BACKSTOP_SHARED:-$HOME/backstop}
export PATH=$shared/venv/bin:$PATH
export BACKSTOP_DATA=${BACKSTOP_DATA:-$shared/data}
export BACKSTOP_CACHE=${BACKSTOP_CACHE:-$shared/cache}
: "${MLFLOW_TRACKING_URI:?is the address of an MLflow server that all nodes reach}"
export MLFLOW_TRACKING_URI

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}  # this script runs there
address=$head:$((20000 + SLURM_JOB_ID % 10000))  # two jobs on one node do not meet

# A step for each node, so that one that is lost takes no other with it.
start_ray() {
    local node=$1
    shift
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$SLURM_CPUS_ON_NODE" \
        ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE" "$@" &
}

nodes_alive() {
    python - "$address" 2>/dev/null <<'END' || echo 0
import sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(sum(node["Alive"] for node in ray.nodes()))
END
}

await_nodes() {
    until [ "$(nodes_alive)" -ge "$1" ]; do
        [ "$SECONDS" -lt 900 ] || { echo "fewer than $1 nodes are in $address" >&2; exit 1; }
        sleep 2
    done
}

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
start_ray "$head" --head --port="${address#*:}" --include-dashboard=false
await_nodes 1
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address="$address"
done
await_nodes "${#nodes[@]}"

# The driver. A signal ends bash's `wait`, so it waits again until the sweep has ended.
stopped=
trap 'stopped=for_now; kill -TERM "$driver"' USR1
trap 'stopped=for_good; kill -TERM "$driver"' INT TERM
RAY_ADDRESS=$address backstop sweep "$@" --store "$shared/store" &
driver=$!
code=0
wait "$driver" || code=$?
while kill -0 "$driver" 2>/dev/null; do
    code=0
    wait "$driver" || code=$?
done
if [ "$stopped" = for_now ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
