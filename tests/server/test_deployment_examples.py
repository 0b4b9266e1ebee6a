# SPDX-License-Identifier: GPL-3.0-or-later
"""The container, compose and systemd examples: their files exist, their options are valid, and the container's very
commands are run here, without its engine, in a network namespace where its fixed ports are free.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamwright.backend.cli.main import build_parser
from dreamwright.backend.cli.serve_file import ServeConfiguration, read_config_file
from tests.testing.network_namespaces import NetworkNamespace
from tests.testing.serve_command import MAIN

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "operator" / "examples"
CONFIG = "/etc/dreamwright/server.toml"
INSTRUCTIONS = {"FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
                "ENTRYPOINT", "CMD"}  # fmt: skip
LIMIT_S = 240.0  # for a server to start on a busy machine


def dockerfile() -> list[tuple[str, str]]:
    """The instructions and their arguments, with continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (EXAMPLES / "Dockerfile").read_text(encoding="utf-8")).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def only(name: str) -> str:
    (found,) = (arguments for instruction, arguments in dockerfile() if instruction == name)
    return found


def test_the_dockerfile_copies_all_that_the_package_needs(tmp_path: Path) -> None:
    assert {instruction for instruction, _ in dockerfile()} <= INSTRUCTIONS
    copied = set()
    for arguments in (arguments for instruction, arguments in dockerfile() if instruction == "COPY"):
        *sources, target = arguments.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            if target != CONFIG:
                copied.add(source)
                assert target in (source, "./"), "files stay where they are in a checkout"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    folders = {
        name.removeprefix("dreamwright.").replace(".", "/") for name in re.findall(r'"(dreamwright\.\S+)",', project)
    }
    for folder in folders:
        assert any(folder == source or folder.startswith(f"{source}/") for source in copied), folder
    assert {"pyproject.toml", "constraints.txt", "LICENSE", "README.md"} <= copied
    done = subprocess.run(["sh", "-n", "-c", only("RUN")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_build_takes_pytorch_without_cuda_for_a_cpu_only(tmp_path: Path) -> None:
    """The RUN line itself, with stand-ins for the programs that it calls."""
    calls = tmp_path / "calls"
    for name in ("pip", "useradd"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {shlex.quote(str(calls))}\n')
        program.chmod(0o755)
    seen = {}
    for device in ("cpu", "cuda"):
        calls.unlink(missing_ok=True)
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DEVICE": device}
        assert subprocess.run(["sh", "-c", only("RUN")], env=environment).returncode == 0
        seen[device] = calls.read_text().splitlines()
    assert len(seen["cpu"]) == 3 and seen["cpu"][1:] == seen["cuda"] and "whl/cpu torch" in seen["cpu"][0]


def test_the_options_of_every_example_are_valid() -> None:
    options = read_config_file(EXAMPLES / "server.toml")
    assert options["address"].endswith(":" + only("EXPOSE")) and options["metrics"] in only("HEALTHCHECK")
    service = (EXAMPLES / "dreamwright.service").read_text(encoding="utf-8")
    started = [shlex.split(line) for line in re.findall(r"(?m)^ExecStart=\S+/dreamwright (.*)$", service)]
    compose: Any = yaml.safe_load((EXAMPLES / "compose.yaml").read_text(encoding="utf-8"))
    started += [server["command"] for server in compose["services"].values()]
    started.append(json.loads(only("CMD")))
    assert len(started) == 4
    for command in started:
        parsed = build_parser().parse_args([word.replace(CONFIG, str(EXAMPLES / "server.toml")) for word in command])
        assert parsed.config == EXAMPLES / "server.toml"
        ServeConfiguration(parsed)
    for seconds in (
        re.findall(r"TimeoutStopSec=(\d+)", service)[0],
        *(server["stop_grace_period"].removesuffix("s") for server in compose["services"].values()),
    ):
        assert float(seconds) >= options["grace"] + 30, "the service manager must wait longer than the grace"


def test_compose_builds_what_there_is_and_shares_one_volume() -> None:
    compose: Any = yaml.safe_load((EXAMPLES / "compose.yaml").read_text(encoding="utf-8"))
    assert set(compose) == {"x-server", "services", "volumes"}
    known = {"restart", "command", "ports", "volumes", "stop_grace_period", "mem_limit", "pids_limit", "cap_drop",
             "security_opt", "read_only", "tmpfs", "profiles", "image", "build", "deploy"}  # fmt: skip
    for name, server in compose["services"].items():
        assert set(server) <= known
        assert (
            EXAMPLES / server["build"]["context"] / server["build"]["dockerfile"]
        ).resolve() == EXAMPLES / "Dockerfile"
        assert server["profiles"] == [server["build"]["args"]["DEVICE"]] == [name.removeprefix("server-")]
        (volume, mounted), (file, inside, mode) = (entry.split(":") for entry in server["volumes"])
        assert volume in compose["volumes"] and mounted == only("VOLUME") and mode == "ro"
        assert (EXAMPLES / file).is_file() and inside == CONFIG
        assert server["ports"] == [f"{only('EXPOSE')}:{only('EXPOSE')}"], "the metrics' port is not published"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: apt install systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "dreamwright.service"
    program = "/opt/dreamwright/.venv/bin/dreamwright"
    unit.write_text((EXAMPLES / "dreamwright.service").read_text(encoding="utf-8").replace(program, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0 and "dreamwright.service" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_the_containers_commands_run(tmp_path: Path) -> None:
    """Key creation, the start command, the health check, a reload and the stop signal, with the container's ports."""
    try:
        network = NetworkNamespace("unshare", "--user", "--map-root-user", "--net")
        network.ip("link set lo up")
    except OSError as error:
        pytest.skip(f"this machine lets no second network be made ({error})")
    program = [sys.executable, *MAIN]
    state = ["--state", str(tmp_path / "server")]
    config = tmp_path / "server.toml"
    shutil.copy(EXAMPLES / "server.toml", config)
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    assert json.loads(only("ENTRYPOINT")) == ["dreamwright"]
    start = [word.replace(CONFIG, str(config)) for word in json.loads(only("CMD"))]
    check = json.loads(only("HEALTHCHECK").partition("CMD")[2])
    assert check[0] == "python"
    server = None
    try:
        subprocess.run([*program, "keys", "create", *state], check=True, env=environment, capture_output=True)
        output = tmp_path / "output.txt"
        with output.open("wb") as file:
            server = subprocess.Popen(
                network.command(*program, *start, *state, "--device", "cpu", "--reached-as", "gpu-box"),
                stdout=file, stderr=file, env=environment,
            )  # fmt: skip

        def wait_until(condition: Any) -> None:
            end = time.monotonic() + LIMIT_S
            while not condition():
                assert server is not None and server.poll() is None and time.monotonic() < end, output.read_text()
                time.sleep(0.1)

        health = network.command(sys.executable, *check[1:])
        wait_until(lambda: subprocess.run(health, capture_output=True, timeout=LIMIT_S).returncode == 0)
        assert "dreamwright://gpu-box:47630/v1/dwkey_" in output.read_text()
        config.write_text(config.read_text().replace("jobs-per-user = 60", "jobs-per-user = 61"))
        server.send_signal(signal.SIGHUP)
        wait_until(lambda: '"configuration read again", "options": "jobs-per-user"' in output.read_text())
        server.send_signal(getattr(signal, only("STOPSIGNAL")))
        assert server.wait(LIMIT_S) == 0, output.read_text()
        assert subprocess.run(health, capture_output=True, timeout=LIMIT_S).returncode != 0
    finally:
        if server is not None and server.poll() is None:
            server.kill()
            server.wait()
        network.end()
