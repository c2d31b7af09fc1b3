"""The files of deploy/: as far as a machine without Kubernetes, Docker and Slurm can tell."""

from __future__ import annotations

import copy
import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from backstop import __version__
from backstop.platform import cli
from backstop.platform.sweeps.plan import make_plan

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
PAGES = [DEPLOY / "README.md", ROOT / "docs" / "cluster.md"]
COMMAND = re.compile(r"\bbackstop (?:run|sweep|status|leaderboard)\b[^`'\n]*")
IMAGE = f"backstop:{__version__}"
READ = {"MLFLOW_TRACKING_URI", "BACKSTOP_DATA", "BACKSTOP_CACHE", "RAY_ADDRESS", "RAY_AUTH_MODE"}

TEXT = {"type": "string", "minLength": 1}
AMOUNTS = {"type": "object", "minProperties": 1, "additionalProperties": TEXT}  # quantities
POD = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers", "volumes"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "image", "resources"],
                        "additionalProperties": False,
                        "properties": {
                            "name": TEXT | {"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
                            "image": TEXT,
                            "env": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["name", "value"],
                                    "additionalProperties": False,
                                    "properties": {"name": TEXT, "value": TEXT},
                                },
                            },
                            "resources": {
                                "type": "object",
                                "required": ["requests", "limits"],
                                "additionalProperties": False,
                                "properties": {"requests": AMOUNTS, "limits": AMOUNTS},
                            },
                            "volumeMounts": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "required": ["name", "mountPath"],
                                    "properties": {"name": TEXT, "mountPath": TEXT},
                                },
                            },
                        },
                    },
                }
            },
        }
    },
}
GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    "template": POD,
}
COUNT = {"type": "integer", "minimum": 0}
# the fields of KubeRay's RayJob, ray.io/v1, that the file uses; kept by hand
RAY_JOB = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "additionalProperties": False,
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "metadata": {"type": "object", "required": ["name"], "properties": {"name": TEXT}},
        "spec": {
            "type": "object",
            "required": ["entrypoint", "rayClusterSpec"],
            "additionalProperties": False,
            "properties": {
                "entrypoint": TEXT,
                "backoffLimit": COUNT,
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": COUNT,
                "rayClusterSpec": {
                    "type": "object",
                    "required": ["rayVersion", "headGroupSpec", "workerGroupSpecs"],
                    "additionalProperties": False,
                    "properties": {
                        "rayVersion": TEXT,
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["rayStartParams", "template"],
                            "additionalProperties": False,
                            "properties": GROUP,
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["groupName", "replicas", "rayStartParams", "template"],
                                "additionalProperties": False,
                                "properties": GROUP
                                | {
                                    "groupName": TEXT,
                                    "replicas": COUNT,
                                    "minReplicas": COUNT,
                                    "maxReplicas": COUNT,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def loaded(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def pinned(package: str) -> str:
    """The version that constraints.txt gives a package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (version,) = [line.partition("==")[2] for line in lines if line.startswith(f"{package}==")]
    return version


def check_sweep(line: str) -> None:
    """A command line of a sweep is parsed, and its space planned."""
    options = cli.parser().parse_args(shlex.split(line)[1:])
    assert make_plan(options.space, say=lambda _: None).specs


# -- KubeRay ---------------------------------------------------------------------------------------


def pods(job: Any) -> list[Any]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def test_the_ray_job_keeps_to_its_schema() -> None:
    job = loaded("kuberay.yaml")
    jsonschema.validate(job, RAY_JOB)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pinned("ray")
    check_sweep(job["spec"]["entrypoint"])
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_all_pods_of_the_ray_job_are_of_one_image_and_see_the_same_folders() -> None:
    job = loaded("kuberay.yaml")
    store = shlex.split(job["spec"]["entrypoint"])[-1]
    for pod in pods(job):
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        values = {item["name"]: item["value"] for item in container["env"]}
        assert values.keys() <= READ
        assert {"MLFLOW_TRACKING_URI", "BACKSTOP_DATA"} <= values.keys()
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
        for folder in (store, values["BACKSTOP_DATA"], values["BACKSTOP_CACHE"]):
            assert any(Path(folder).is_relative_to(path) for path in mounted)
        names = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names


@pytest.mark.parametrize("wrong", ["a number of cores", "a misspelled field", "no entrypoint"])
def test_the_schema_refuses_what_kubernetes_would(wrong: str) -> None:
    job = copy.deepcopy(loaded("kuberay.yaml"))
    if wrong == "a number of cores":
        pods(job)[0]["containers"][0]["resources"]["limits"]["cpu"] = 2
    elif wrong == "a misspelled field":
        job["spec"]["rayClusterSpec"]["workerGroupSpec"] = []
    else:
        del job["spec"]["entrypoint"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


# -- ray up ----------------------------------------------------------------------------------------


def test_ray_takes_its_cluster_file() -> None:
    config = loaded("ray-up.yaml")
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    (source,) = config["file_mounts"].values()
    assert (ROOT / source / "constraints.txt").is_file(), "it is given in the repository's root"
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    config["head_start_commands"] = []
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(config))


# -- Docker Compose --------------------------------------------------------------------------------


def test_the_services_of_the_compose_file_refer_to_what_there_is() -> None:
    compose = loaded("compose.yaml")
    services, volumes = compose["services"], set(compose["volumes"])
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{name} waits for {needed}"
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in volumes or source.startswith("${DATA"), mount
    mounted = {mount.split(":")[0] for one in services.values() for mount in one.get("volumes", ())}
    assert volumes <= mounted, "no volume without a use"


def test_the_nodes_of_the_compose_file_reach_ray_and_mlflow() -> None:
    services = loaded("compose.yaml")["services"]
    nodes = [services["head"], services["worker"]]
    for node in nodes:
        environment = node["environment"]
        assert environment.keys() <= READ
        host, _, port = environment["RAY_ADDRESS"].partition(":")
        assert host in services
        assert f"--port={port}" in services[host]["entrypoint"]
        scheme, _, server = environment["MLFLOW_TRACKING_URI"].partition("://")
        host, _, port = server.partition(":")
        assert scheme == "http" and host in services
        assert f"--port={port}" in services[host]["entrypoint"]
        (allowed,) = [word for word in services[host]["command"] if "--allowed-hosts" in word]
        assert f"={host}:*" in allowed, "MLflow answers 403 to other names"
        targets = [
            mount.split(":")[-1 if mount.count(":") == 1 else -2] for mount in node["volumes"]
        ]
        assert environment["BACKSTOP_DATA"] in targets
        assert any(Path(environment["BACKSTOP_CACHE"]).is_relative_to(path) for path in targets)
    assert f"--address={nodes[1]['environment']['RAY_ADDRESS']}" in nodes[1]["entrypoint"]
    assert nodes[0]["environment"] == nodes[1]["environment"]


def test_mlflow_and_its_stores_agree_in_the_compose_file() -> None:
    services = loaded("compose.yaml")["services"]
    mlflow = services["mlflow"]
    (database,) = [word for word in mlflow["command"] if "--backend-store-uri" in word]
    found = re.fullmatch(
        r"--backend-store-uri=postgresql://(\w+):(\$\{\w+:\?\})@(\w+)/(\w+)", database
    )
    assert found
    user, password, host, name = found.groups()
    environment = services[host]["environment"]
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == (user, name)
    assert environment["POSTGRES_PASSWORD"] == password
    objects = services["objects"]["environment"]
    assert mlflow["environment"]["AWS_ACCESS_KEY_ID"] == objects["MINIO_ROOT_USER"]
    assert mlflow["environment"]["AWS_SECRET_ACCESS_KEY"] == objects["MINIO_ROOT_PASSWORD"]
    (artifacts,) = [word for word in mlflow["command"] if "--artifacts-destination" in word]
    bucket = artifacts.removeprefix("--artifacts-destination=s3://")
    assert services["bucket"]["entrypoint"][-1] == f"objects/{bucket}"


def test_images_are_pinned_and_name_no_registry() -> None:
    images = [service["image"] for service in loaded("compose.yaml")["services"].values()]
    images += [item["image"] for pod in pods(loaded("kuberay.yaml")) for item in pod["containers"]]
    for image in images:
        name, _, tag = image.partition(":")
        assert tag and tag != "latest", image
        assert "." not in name.split("/")[0], f"{image} names a host"
    ours = {image for image in images if image.startswith("backstop:")}
    assert ours == {IMAGE}
    assert f"docker build -t {IMAGE} " in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_image_has_what_a_cluster_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [re.split(r"[\[<>=]", one)[0] for one in project["optional-dependencies"]["cluster"]]
    assert set(needed) == {"boto3", "psycopg", "ray"}
    for package in needed:
        assert pinned(package)
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "['optional-dependencies']['cluster']" in dockerfile


# -- Slurm -----------------------------------------------------------------------------------------

STUB = """#!/bin/bash
echo "{name} $*" >> "$LOG"
{rest}
"""
STUBS = {
    "srun": "exec sleep 60 < /dev/null > /dev/null 2>&1",
    "scontrol": 'if [ "$1" = show ]; then printf "%s\\\\n" n1 n2 n3; fi',
    # each node that was started is alive
    "python": 'cat > /dev/null; grep -c "^srun" "$LOG"',
    "backstop": 'echo "at $RAY_ADDRESS, $MLFLOW_TRACKING_URI" >> "$LOG"; [ -z "$LONG" ] && exit 3\n'
    "trap 'exit 130' TERM; while :; do sleep 0.1; done",
}


def start_slurm(folder: Path, **more: str) -> subprocess.Popen[str]:
    """The script among stand-ins that write down how they are called."""
    tools = folder / "venv" / "bin"
    tools.mkdir(parents=True)
    for name, rest in STUBS.items():
        (tools / name).write_text(STUB.format(name=name, rest=rest.replace("\\\\n", "\\n")))
        (tools / name).chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"],
        "LOG": str(folder / "log"),
        "LONG": "",
        "BACKSTOP_SHARED": str(folder),
        "MLFLOW_TRACKING_URI": "http://tracking:5000",
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "n[1-3]",
        "SLURM_CPUS_ON_NODE": "8",
        **more,
    }
    line = ["bash", str(DEPLOY / "slurm.sh"), "quickstart", "--seeds", "2"]
    return subprocess.Popen(
        line, env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
    )


def calls(folder: Path) -> list[str]:
    log = folder / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if not line.startswith("python")]


def test_the_slurm_script_starts_head_workers_and_driver_in_this_order(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sh")], check=True)
    with start_slurm(tmp_path) as script:
        _, said = script.communicate(timeout=120)
    assert script.returncode == 3, f"the driver's own exit code\n{said}"
    expand, head, *workers, driver, at = calls(tmp_path)
    assert expand == "scontrol show hostnames n[1-3]"
    step = "srun --overlap --nodes=1 --ntasks=1 --nodelist={} --cpus-per-task=8 ray start --block"
    assert head.startswith(step.format("n1"))
    assert "--head --port=20017" in head
    assert [line.split(" --disable")[0] for line in sorted(workers)] == [
        step.format("n2"),
        step.format("n3"),
    ]
    assert all(line.endswith("--num-cpus=8 --address=n1:20017") for line in workers)
    assert driver == f"backstop sweep quickstart --seeds 2 --store {tmp_path}/store"
    check_sweep(driver)
    assert at == "at n1:20017, http://tracking:5000"


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_slurm_script_stops_the_sweep_and_queues_again_at_the_end_of_its_time(
    tmp_path: Path, number: signal.Signals
) -> None:
    with start_slurm(tmp_path, LONG="yes") as script:
        until = time.monotonic() + 60
        while time.monotonic() < until and not any(line[:3] == "at " for line in calls(tmp_path)):
            time.sleep(0.1)
        time.sleep(0.5)  # for the script to wait
        script.send_signal(number)
        script.communicate(timeout=60)
    assert script.returncode == 130
    again = "scontrol requeue 17" in calls(tmp_path)
    assert again is (number == signal.SIGUSR1)


def test_the_slurm_script_needs_a_tracking_server(tmp_path: Path) -> None:
    with start_slurm(tmp_path, MLFLOW_TRACKING_URI="") as script:
        _, said = script.communicate(timeout=60)
    assert script.returncode == 1
    assert "MLFLOW_TRACKING_URI: is the address of an MLflow server" in said
    assert calls(tmp_path) == []


# -- pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_the_pages_are_right(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    lines = [line.rstrip() for line in COMMAND.findall(text)]
    assert lines
    for line in lines:
        if line.startswith("backstop sweep"):
            check_sweep(line.removesuffix("' --tmux"))
        else:
            cli.parser().parse_args(shlex.split(line)[1:])


def test_every_file_is_on_the_page() -> None:
    page = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for file in DEPLOY.iterdir():
        assert file.name == "README.md" or f"## `{file.name}`" in page
