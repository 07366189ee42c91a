"""The image and the services of compose.yaml, held against what the CLI, the settings and the specification know."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import check_jsonschema.builtin_schemas
import jsonschema
import pytest
import typer
import yaml
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_settings_fields

from config.settings import CHECKOUT, ROLES, load_settings
from services.cli import app
from services.executor.executor import END_SECONDS
from services.operations.role import AGAIN_SECONDS

INTERPOLATED = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|AUTH")
COMPOSE: Mapping[str, Any] = yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("sluice:")}
MORE: Mapping[str, Mapping[str, Any]] = {
    name: service
    for file in ("compose.small.yaml", "deploy/compose.prefect.yaml")
    for name, service in yaml.safe_load((CHECKOUT / file).read_text(encoding="utf-8"))["services"].items()
    if name not in SERVICES
}
"""What the other files add to compose.yaml."""
DOCKERFILE = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")


def filled(value: Any) -> str:
    """A value as compose passes it on, with ``given`` for what its .env must hold."""

    def fill(match: re.Match[str]) -> str:
        return match["rest"] if match["how"] == "-" else "given"

    return INTERPOLATED.sub(fill, str(value))


def check_sluice(arguments: list[str]) -> None:
    """Fail unless the CLI takes these arguments; nothing is run."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("sluice", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, arguments = command.resolve_command(context, list(arguments))
        context = command.make_context(name, list(arguments), parent=context)


def sluice_commands() -> Iterator[tuple[str, list[str]]]:
    for name, service in OURS.items():
        if "entrypoint" not in service:
            yield name, service["command"]
        test = service.get("healthcheck", {}).get("test", [])
        if test[1:2] == ["sluice"]:
            yield f"health of {name}", test[2:]
    for text in re.findall(r"(?:CMD|ENTRYPOINT) (\[.*\])", DOCKERFILE):
        words = json.loads(text)
        if words[0] == "sluice" and len(words) > 1:
            yield "image", words[1:]


@pytest.mark.parametrize(
    "name", ["compose.yaml", "deploy/compose.valkey.yaml", "deploy/compose.prefect.yaml", "compose.small.yaml"]
)
def test_a_compose_file_follows_the_compose_specification(name: str) -> None:
    vendor = Path(check_jsonschema.builtin_schemas.__file__).parent / "vendor"
    schema = json.loads((vendor / "compose-spec.json").read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    found = yaml.safe_load((CHECKOUT / name).read_text(encoding="utf-8"))
    assert [error.message for error in validator.iter_errors(found)] == []
    assert set(found["services"]) <= {*SERVICES, *MORE}


def test_each_network_in_which_prefect_is_found_has_all_of_its_api_processes() -> None:
    """The engine answers from the first network that has the name: the roles would never reach those of another."""
    aliases = {name: options["aliases"] for name, options in MORE["prefect-more"]["networks"].items()}
    assert aliases == {name: ["prefect"] for name in SERVICES["prefect"]["networks"]}


def test_every_role_is_a_service_and_so_are_the_deployments() -> None:
    commands = [service.get("command") for service in OURS.values()]
    for role in ROLES:
        assert ["run", role] in commands
    assert ["deploy"] in commands


@pytest.mark.parametrize(("where", "arguments"), list(sluice_commands()))
def test_every_command_is_one_that_the_cli_has(where: str, arguments: list[str]) -> None:
    check_sluice(arguments)


def test_a_command_that_the_cli_has_not_is_noticed() -> None:
    for arguments in (["run", "nonsense"], ["nonsense"], ["status", "--nonsense"]):
        with pytest.raises(Exception, match=r"No such|is not one of"):
            check_sluice(arguments)


def test_the_prefect_server_is_started_with_options_that_it_has() -> None:
    options, *command = SERVICES["prefect"]["command"]
    assert set(json.loads(filled(options))) == {"allowed_hosts", "tickets"}
    usage = subprocess.run(
        [sys.executable, "-m", "services.local.prefect_server", "--help"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    for option in (word for word in command if word.startswith("--")):
        assert option in usage


@pytest.mark.parametrize("name", [name for name in OURS if name != "prefect"])
def test_the_settings_take_every_variable_of_a_service(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("SLUICE_")]:
        monkeypatch.delenv(variable)
    for variable, value in OURS[name]["environment"].items():
        monkeypatch.setenv(variable, filled(value))
    settings = load_settings()
    assert settings.env == "production"
    assert settings.redis.password == "given"
    assert str(settings.prefect_api_url) == "http://prefect:4200/api"


def test_the_container_for_a_small_machine_is_told_what_the_settings_take(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("SLUICE_") or name == "PREFECT_API_URL"]:
        monkeypatch.delenv(variable)
    for variable, value in MORE["sluice"]["environment"].items():
        monkeypatch.setenv(variable, filled(value))
    settings = load_settings()
    assert (settings.prefect_api_url, settings.prefect_host) == (None, "0.0.0.0")
    assert settings.redis.username == "sluice-operator"
    assert settings.executor.stop_seconds + END_SECONDS + AGAIN_SECONDS < float(
        MORE["sluice"]["stop_grace_period"].removesuffix("s")
    )
    check_sluice(MORE["sluice"]["command"])


def test_every_variable_of_prefect_is_one_that_prefect_knows() -> None:
    known = set(_get_settings_fields(PrefectSettings))
    given = {name for service in OURS.values() for name in service["environment"]}
    given |= set(re.findall(r"\b(PREFECT_[A-Z_]+)=", DOCKERFILE))
    unknown = {name for name in given if name.startswith("PREFECT_")} - known
    assert not unknown


def test_no_secret_stands_in_the_file_and_a_missing_one_stops_the_start() -> None:
    found = 0
    for service in SERVICES.values():
        for variable, value in service["environment"].items():
            assert not re.search(r"://[^/]*:[^/]*@", str(value)), "a URL with a password in it"
            if SECRET.search(variable):
                found += 1
                match = INTERPOLATED.fullmatch(str(value))
                assert match is not None, variable
                assert match["how"] == "?", variable
                assert ".env" in match["rest"]
    assert found >= 4


@pytest.mark.parametrize("name", [*SERVICES, *MORE])
def test_every_service_is_hardened_watched_and_restarted(name: str) -> None:
    service = {**SERVICES, **MORE}[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert service["restart"] in {"unless-stopped", "on-failure:5"}
    assert service["logging"]["options"]["max-file"]
    # That of the image is a role's. `up --wait` fails where a service that goes on running has none.
    assert service["healthcheck"].get("test") or name == "deploy"


def test_one_service_builds_the_image_and_all_of_ours_start_after_it() -> None:
    """Each service with a `build` of its own would have it built once more, and be made anew by every `up --build`."""
    assert [name for name, service in SERVICES.items() if "build" in service] == ["deploy"]
    assert {service["image"] for service in OURS.values()} == {SERVICES["deploy"]["image"]}


def test_the_init_process_of_a_container_may_pass_signals_on() -> None:
    """One that is root's, without CAP_KILL, cannot signal a server that has become another user."""
    for name, service in SERVICES.items():
        becomes_another = "SETUID" in service.get("cap_add", [])
        assert service["init"] is not becomes_another, name


def test_only_the_loopback_of_the_host_is_listened_on_unless_someone_says_otherwise() -> None:
    published = [filled(port) for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert COMPOSE["networks"]["backend"]["internal"] is True


def test_what_services_name_is_declared() -> None:
    for service in SERVICES.values():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        named = {volume.split(":")[0] for volume in service.get("volumes", []) if volume[0] not in "./$"}
        assert named <= set(COMPOSE["volumes"])
        for other, condition in service.get("depends_on", {}).items():
            assert SERVICES[other]["healthcheck"].get("test") or condition["condition"].endswith("successfully")


def test_the_image_installs_locked_packages_and_runs_as_nobody_in_particular() -> None:
    assert "--require-hashes --no-deps -r requirements/service.txt" in DOCKERFILE
    stages = DOCKERFILE.split("\nFROM ")
    assert "USER 10001:10001" in stages[-1]
    assert "HEALTHCHECK" in stages[-1]
    assert 'ENTRYPOINT ["sluice"]' in stages[-1]
    assert "pip install" not in stages[-1]


def test_no_installation_resolves_anything() -> None:
    """pip 23 resolves a name locked with an extra to its newest version, for which no hash is locked."""
    for name in ("Makefile", "Dockerfile"):
        text = (CHECKOUT / name).read_text(encoding="utf-8")
        installing = [line for line in text.splitlines() if "pip install" in line]
        assert installing, name
        assert all("--require-hashes --no-deps" in line for line in installing), name


def test_the_image_gets_every_package_of_the_application_and_nothing_else() -> None:
    copied = {line.split()[1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line}
    allowed = {
        line[1:] for line in (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"
    }
    assert {path.split("/")[0] for path in copied} == allowed
    assert all((CHECKOUT / path).exists() for path in copied)


def test_what_the_image_leaves_out_is_there_to_be_left_out() -> None:
    """A name that fits nothing would be one that a new version of a package has given up."""
    spec = importlib.util.spec_from_file_location("slim", CHECKOUT / "requirements" / "slim.py")
    assert spec is not None
    assert spec.loader is not None
    slim = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slim)
    packages = Path(sysconfig.get_path("purelib"))
    patterns = [*slim.LEFT_OUT, *(f"{name.removesuffix('.*')}*" for name in slim.WITH_DEBUGGING)]
    assert [pattern for pattern in patterns if next(packages.glob(pattern), None) is None] == []


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="this is no Debian")
def test_the_bill_of_materials_of_the_image_has_every_package_of_its_base_with_a_licence() -> None:
    """As the Dockerfile writes it, here of this machine."""
    command = [sys.executable, str(CHECKOUT / "requirements" / "debian.py")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    asked = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev} ${Package} ${Version}\n"]
    installed = [
        line.split() for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    ]
    listed = {(one["name"], one["version"]) for one in found if one["purl"].startswith("pkg:deb/")}
    assert listed == {(name, version) for status, name, version in installed if status == "ii"}
    assert all(licence["license"]["name"] for one in found for licence in one["licenses"])
    assert all(one["licenses"] for one in found)
    assert len({one["bom-ref"] for one in found}) == len(found)
    before, _, after = DOCKERFILE.partition("apt-get install")
    assert "requirements/debian.py > build/base.json" in before
    assert "requirements/audit.py --offline" in after


def test_the_bill_of_materials_takes_in_what_is_known_of_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = CHECKOUT / "requirements" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec is not None
    assert spec.loader is not None
    audit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(audit)
    (tmp_path / "base.json").write_text('[{"name": "libc6", "version": "2.36", "purl": "pkg:deb/debian/libc6@2.36"}]')
    bill = {"bomFormat": "CycloneDX", "components": [{"name": "redis", "purl": "pkg:pypi/redis@8"}]}
    monkeypatch.setattr(audit, "BUILD", tmp_path)
    monkeypatch.setattr(audit, "_output", lambda _: (tmp_path / "sbom.json").write_text(json.dumps(bill)))
    audit.bill_of_materials()
    assert [one["name"] for one in json.loads((tmp_path / "sbom.json").read_text())["components"]] == ["redis", "libc6"]
