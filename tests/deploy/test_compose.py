"""The compose file: accepted by the Compose specification, confined, and its commands exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from compose_spec import ComposeSpecification

from stamp_deploy.cli import cli

DOCKER = Path(__file__).resolve().parents[2] / "deploy" / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("stamp-deploy")}


def test_it_follows_the_specification() -> None:
    found = ComposeSpecification(**COMPOSE)
    assert set(found.services) == {"archive", "archive-watch", "view", "folder-watch"}


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_confined(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
    assert service["security_opt"] == ["no-new-privileges:true"] and "privileged" not in service
    assert all(mount.startswith("./") for mount in service["volumes"])


@pytest.mark.parametrize("name", OURS)
def test_the_commands_and_their_options_exist(name: str) -> None:
    words = shlex.split(OURS[name]["command"])
    verb = words[: 2 if words[0] == "dicomweb" else 1]
    text = CliRunner().invoke(cli, [*verb, "--help"]).output
    for option in [word for word in words if word.startswith("-")]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), f"{verb} has no {option}"
    mounted = {mount.split(":")[1] for mount in OURS[name]["volumes"]} | {"/run/secrets"}
    for path in [word for word in words if word.startswith("/")]:
        assert any(path.startswith(folder) for folder in mounted), path


def test_ports_are_published_to_this_machine_alone() -> None:
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_archive_has_no_password_in_its_files() -> None:
    settings = json.loads((DOCKER / "orthanc.json").read_text())
    assert settings["RegisteredUsers"] == {"stamp": "${STAMP_ARCHIVE_PASSWORD}"} and settings["AuthenticationEnabled"]
    assert (DOCKER / "example.env").read_text().count("STAMP_ARCHIVE_PASSWORD=change-this") == 1
