"""systemd units and Kubernetes manifests, by the tools of their makers; and what they promise of isolation."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from stamp_deploy.cli import cli

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
MANIFESTS = [
    (path.name, document)
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
WORKLOADS = [(name, document) for name, document in MANIFESTS if "template" in document["spec"]]
KUBERNETES = ("1.30", "1.34")


def commands(unit: Path) -> list[list[str]]:
    """The words of each ExecStart."""
    text = unit.read_text().replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    # the program need not be installed where the unit is checked
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/stamp/bin/stamp-deploy", "/bin/true"))
    done = subprocess.run([tool, "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if unit.name in line], done.stderr


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_calls_options_that_exist(unit: Path) -> None:
    (words,) = commands(unit)
    verbs = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
    help_text = CliRunner().invoke(cli, [*verbs, "--help"]).output
    for option in [word for word in words if word.startswith("-")]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help_text), f"{verbs} has no {option}"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_may_do_little(unit: Path) -> None:
    text = unit.read_text()
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "PrivateTmp=yes", "User=stamp"):
        assert line in text.splitlines(), line


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_the_unit_keeps_its_cache_and_the_guide_makes_the_folders_that_it_writes_to(unit: Path) -> None:
    """systemd does not start a unit of which a writable folder is missing; everything else is read-only."""
    settings: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, _, value = line.partition("=")
        settings.setdefault(key, []).append(value)
    (cache,) = settings["CacheDirectory"]
    assert settings["Environment"] == [f"STAMP_CACHE_DIR=/var/cache/{cache}"]
    guide = (ROOT / "docs" / "guides" / "hospital.md").read_text()
    made = {word for line in re.findall(r"sudo install -d (.*)", guide) for word in line.split()}
    (written,) = settings["ReadWritePaths"]
    assert set(written.split()) <= made
    assert all(str(Path(name.partition(":")[2]).parent) in made for name in settings.get("LoadCredential", []))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(("name", "document"), MANIFESTS, ids=[f"{n}-{d['kind']}" for n, d in MANIFESTS])
def test_kubernetes_accepts_the_manifest(name: str, document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(("name", "document"), WORKLOADS, ids=[name for name, _ in WORKLOADS])
def test_pods_are_confined_and_have_what_they_mount(name: str, document: dict[str, Any]) -> None:
    pod = document["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    rights = container["securityContext"]
    assert rights["readOnlyRootFilesystem"] and not rights["allowPrivilegeEscalation"]
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    read_only = {m["mountPath"] for m in container["volumeMounts"] if m.get("readOnly")}
    assert {"/input", "/bundle"} <= read_only


def test_the_watcher_has_no_network() -> None:
    (policy,) = [d for name, d in MANIFESTS if d["kind"] == "NetworkPolicy" and name == "watch.yaml"]
    (watcher,) = [d for name, d in MANIFESTS if d["kind"] == "Deployment" and name == "watch.yaml"]
    assert policy["spec"] == {
        "podSelector": {"matchLabels": watcher["spec"]["template"]["metadata"]["labels"]},
        "policyTypes": ["Ingress", "Egress"],
    }
