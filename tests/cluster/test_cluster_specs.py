"""The cluster specs: what their readers accept, what the jobs ask of them, and who may do what."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from liftgs_platform import finetune, pretrain
from liftgs_platform import spec as job_specs
from liftgs_platform.label_scale import PoolSpec
from liftgs_platform.pseudolabel import Spec
from liftgs_platform.training import WorkerConfig

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
CLOUDS = ("aws", "gcp")
SPECS = (*CLOUDS, "kuberay")


@dataclass(frozen=True)
class NodeType:
    """What one node offers to Ray, and how many of them there may be."""

    name: str
    cpus: float
    gpus: float
    most: int

    def holds(self, cpus: float, gpus: float) -> bool:
        return self.cpus >= cpus and self.gpus >= gpus


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return found


def ray_cluster() -> dict[str, Any]:
    spec: dict[str, Any] = read("kuberay/raycluster.yaml")["spec"]
    return spec


def node_types(spec: str) -> list[NodeType]:
    """The workers' types; no head computes."""
    if spec == "kuberay":
        groups = [(g, g["template"]["spec"]["containers"][0]["resources"]) for g in ray_cluster()["workerGroupSpecs"]]
        return [
            NodeType(
                group["groupName"],
                float(resources["limits"]["cpu"]),
                float(resources["limits"].get("nvidia.com/gpu", 0)),
                group["maxReplicas"],
            )
            for group, resources in groups
        ]
    config = read(f"{spec}.yaml")
    return [
        NodeType(name, kind["resources"]["CPU"], kind["resources"].get("GPU", 0), kind["max_workers"])
        for name, kind in config["available_node_types"].items()
        if name != config["head_node_type"]
    ]


def pools(scale: str) -> dict[str, PoolSpec]:
    return job_specs.load(ROOT / "jobs" / "pseudolabel.yaml", [f"scale={scale}"], Spec).scale.layout


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("scale", ["gpu", "cluster"])
def test_an_actor_of_every_pool_fits_on_some_node(spec: str, scale: str) -> None:
    for name, pool in pools(scale).items():
        assert any(node.holds(pool.num_cpus, pool.num_gpus) for node in node_types(spec)), name


@pytest.mark.parametrize("spec", SPECS)
def test_a_training_worker_fits_on_a_gpu_node(spec: str) -> None:
    jobs = ROOT / "jobs"
    pretraining = job_specs.load(jobs / "pretrain.yaml", ["model=base"], pretrain.Spec).worker
    finetuning = job_specs.load(jobs / "finetune.yaml", ["finetuning=base", "model.start="], finetune.Spec).worker
    assert pretraining.gpus == finetuning.gpus == 1
    for worker in (WorkerConfig(gpus=1), pretraining, finetuning):
        assert any(node.holds(worker.cpus, worker.gpus) for node in node_types(spec))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("scale", ["gpu", "cluster"])
def test_the_smallest_pools_fit_on_the_nodes_that_there_may_be(spec: str, scale: str) -> None:
    free = [[node.cpus, node.gpus] for node in node_types(spec) for _ in range(node.most)]
    actors = [(pool.num_gpus, pool.num_cpus) for pool in pools(scale).values() for _ in range(pool.min)]
    for gpus, cpus in sorted(actors, reverse=True):
        place = next((node for node in free if node[0] >= cpus and node[1] >= gpus), None)
        assert place is not None, (cpus, gpus)
        place[0] -= cpus
        place[1] -= gpus


@pytest.mark.parametrize("spec", SPECS)
def test_loading_and_committing_at_full_width_fit_on_the_cpu_nodes(spec: str) -> None:
    asked = sum(pool.max * pool.num_cpus for pool in pools("cluster").values() if pool.max and not pool.num_gpus)
    assert sum(node.cpus * node.most for node in node_types(spec) if not node.gpus) >= asked


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_accepts_what_ray_up_reads(cloud: str) -> None:
    config = check(read(f"{cloud}.yaml"))
    assert config["docker"]["container_name"]
    # Not Ray's defaults, which would install another Ray in the image.
    assert config["setup_commands"] == config["head_setup_commands"] == config["worker_setup_commands"] == []
    workers = [kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]]
    assert config["max_workers"] == sum(kind["max_workers"] for kind in workers)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_mistyped_key_is_seen(cloud: str) -> None:
    config = read(f"{cloud}.yaml")
    config["available_node_types"]["gpu"]["max_wokers"] = 1
    with pytest.raises(jsonschema.ValidationError):
        check(config)


def check(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` does, before it asks the cloud anything."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ec2_accepts_the_nodes() -> None:
    botocore = pytest.importorskip("botocore.session", reason="needs botocore, which s3fs brings")
    from botocore.validate import ParamValidator

    request = botocore.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for kind in read("aws.yaml")["available_node_types"].values():
        wanted = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        assert not ParamValidator().validate(wanted, request).has_errors()
        assert ParamValidator().validate({**wanted, "InstanceTyp": "x"}, request).has_errors()


def test_heads_stay_and_workers_are_spot() -> None:
    for cloud, is_spot in (("aws", "InstanceMarketOptions"), ("gcp", "scheduling")):
        config = read(f"{cloud}.yaml")
        for name, kind in config["available_node_types"].items():
            assert (is_spot in kind["node_config"]) == (name != config["head_node_type"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_node_asks_for_the_token_and_has_it(cloud: str) -> None:
    config = read(f"{cloud}.yaml")
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = (line for line in commands if "ray start" in line)
        assert "RAY_AUTH_MODE=token ray start" in start
    # Where Ray looks for it, in the home of the image's user.
    assert config["file_mounts"] == {"/home/liftgs/.ray/auth_token": "~/.ray/auth_token"}
    assert "ENV HOME=/home/liftgs " in (CLUSTER / "Containerfile").read_text()
    assert "--dashboard-host=127.0.0.1" in " ".join(config["head_start_ray_commands"])


def test_no_node_may_more_than_it_must() -> None:
    kinds = read("aws.yaml")["available_node_types"]
    profiles = {name: kind["node_config"]["IamInstanceProfile"]["Name"] for name, kind in kinds.items()}
    assert profiles == {"head": "liftgs-ray-head", "cpu": "liftgs-ray-worker", "gpu": "liftgs-ray-worker"}
    assert all(kind["node_config"]["MetadataOptions"]["HttpTokens"] == "required" for kind in kinds.values())
    for name in ("cpu", "gpu"):
        (account,) = read("gcp.yaml")["available_node_types"][name]["node_config"]["serviceAccounts"]
        assert account["email"].startswith("liftgs-ray-worker@")


def templates() -> Iterator[tuple[str, dict[str, Any]]]:
    """The pods that KubeRay makes: name, template."""
    spec = ray_cluster()
    yield "head", spec["headGroupSpec"]["template"]
    for group in spec["workerGroupSpecs"]:
        yield group["groupName"], group["template"]


def test_kuberay_makes_a_token_and_scales_the_cluster() -> None:
    spec = ray_cluster()
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # KubeRay hands these to a command line, and refuses what is not a string.
    params = [spec["headGroupSpec"]["rayStartParams"], *(group["rayStartParams"] for group in spec["workerGroupSpecs"])]
    assert all(isinstance(value, str) for param in params for value in param.values())


@pytest.mark.parametrize(("name", "template"), templates(), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_are_promised_what_they_use(name: str, template: dict[str, Any]) -> None:
    pod = template["spec"]
    assert "restartPolicy" not in pod, "the autoscaler's version 2 replaces pods, and KubeRay refuses one that restarts"
    (container,) = pod["containers"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    # Ray's objects live in shared memory: 30 % of the memory, and a container's own /dev/shm has 64 MB.
    (mount,) = container["volumeMounts"]
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == mount["name"])
    assert mount["mountPath"] == "/dev/shm"
    assert volume["emptyDir"]["medium"] == "Memory"
    shared, memory = gibibytes(volume["emptyDir"]["sizeLimit"]), gibibytes(resources["limits"]["memory"])
    assert 0.3 * memory <= shared <= 0.5 * memory


def gibibytes(quantity: str) -> float:
    return float(quantity.removesuffix("Gi"))


@pytest.mark.parametrize(("name", "template"), templates(), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_may_little(name: str, template: dict[str, Any]) -> None:
    pod = template["spec"]
    assert pod["serviceAccountName"] == ("liftgs-head" if name == "head" else "liftgs-worker")
    assert pod.get("automountServiceAccountToken", True) == (name == "head"), "only the head speaks with Kubernetes"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"USER {pod['securityContext']['runAsUser']}:" in (CLUSTER / "Containerfile").read_text()
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    accounts = list(yaml.safe_load_all((CLUSTER / "kuberay" / "accounts.yaml").read_text()))
    assert pod["serviceAccountName"] in {account["metadata"]["name"] for account in accounts}


def test_gpu_pods_go_where_gpus_and_spot_nodes_are() -> None:
    pods = dict(templates())
    tolerated = {name: {t["key"] for t in pod["spec"].get("tolerations", ())} for name, pod in pods.items()}
    assert tolerated["head"] == set(), "the head does not stand on a spot node"
    assert "nvidia.com/gpu" in tolerated["gpu"]
    assert "cloud.google.com/gke-spot" in tolerated["gpu"] & tolerated["cpu"]


def test_the_ray_job_is_our_job_on_the_same_cluster() -> None:
    job = read("kuberay/rayjob.yaml")["spec"]
    assert job["rayClusterSpec"] == ray_cluster()
    file, *overrides = job["entrypoint"].split()
    assert file.startswith("/opt/liftgs/jobs/")
    spec = job_specs.load(ROOT / Path(file).relative_to("/opt/liftgs"), overrides, Spec)
    assert spec.scale.layout == pools("cluster")
    assert spec.caption.python == "/opt/vllm/bin/python"
    assert f"vllm_env --package vllm {Path(spec.caption.python).parents[1]}" in (CLUSTER / "Containerfile").read_text()
    assert job["shutdownAfterJobFinishes"] is True


def test_one_image_and_one_ray_everywhere() -> None:
    from importlib.metadata import version

    texts = {file: file.read_text() for file in CLUSTER.rglob("*.yaml")}
    images = {image for text in texts.values() for image in re.findall(r"image: (\S+)", text)}
    assert images == {f"registry.example.com/liftgs:{version('liftgs')}"}
    assert f"ARG RAY={ray_cluster()['rayVersion']}\n" in (CLUSTER / "Containerfile").read_text()


def test_no_secret_is_in_a_spec() -> None:
    def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from strings(inner, str(name))
        elif isinstance(value, list):
            for inner in value:
                yield from strings(inner, key)
        else:
            yield key, str(value)

    files = sorted(CLUSTER.rglob("*.yaml"))
    assert len(files) == 5
    for file in files:
        for document in yaml.safe_load_all(file.read_text()):
            for key, value in strings(document):
                assert not re.search(r"(?i)passw|secret|credential|access_?key|private_key", key), f"{file}: {key}"
                assert not re.search(r"AKIA|BEGIN .*PRIVATE|[0-9a-f]{32}", value), f"{file}: {key}"


@pytest.mark.parametrize(("name", "template"), templates(), ids=lambda value: value if isinstance(value, str) else "")
def test_kubernetes_accepts_the_pods(name: str, template: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **template}
    validator.validate(pod, validator.latest_version(), strict=True)
    pod["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(validator.ValidationError):
        validator.validate(pod, validator.latest_version(), strict=True)


@pytest.mark.parametrize(("file", "crd"), [("raycluster", "rayclusters"), ("rayjob", "rayjobs")])
def test_kuberay_knows_every_field(file: str, crd: str) -> None:
    """By the definitions that KubeRay publishes: `KUBERAY_CRDS` is a checkout's ray-operator/config/crd/bases."""
    if "KUBERAY_CRDS" not in os.environ:
        pytest.skip("needs KubeRay's definitions, in the folder KUBERAY_CRDS")
    text = (Path(os.environ["KUBERAY_CRDS"]) / f"ray.io_{crd}.yaml").read_text()
    definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # half a minute without C
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    schema = version["schema"]["openAPIV3Schema"]
    resource = read(f"kuberay/{file}.yaml")
    jsonschema.validate(resource, schema)
    assert list(unknown(resource, schema)) == []
    resource["spec"]["rayVersoin"] = "2"
    assert list(unknown(resource, schema)) == ["spec.rayVersoin"]


def unknown(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Fields that Kubernetes would drop without a word."""
    if isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from unknown(inner, schema["properties"][name], f"{path}.{name}".lstrip("."))
            else:
                yield f"{path}.{name}".lstrip(".")
    elif isinstance(value, list):
        for inner in value:
            yield from unknown(inner, schema.get("items", {}), path)
