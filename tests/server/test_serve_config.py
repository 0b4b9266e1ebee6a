# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration file of `dreamwright serve`: the same options as the command line, refused in one line with file
and line, and read again on SIGHUP without a stop.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import re
import signal
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.cli.main import build_parser, main
from dreamwright.backend.cli.serve_file import ServeConfiguration, example_text, read_config_file
from dreamwright.backend.cli.serve_options import BY_NAME, OPTIONS
from dreamwright.backend.errors import ConfigError
from dreamwright.backend.server.app import Server
from dreamwright.backend.server.policy import Policy, policy_option, policy_settings
from dreamwright.shared.messages import GetCapabilities
from tests.testing.scripted_worker_server import ScriptedRunner
from tests.testing.server_process import server_process

ROOT = Path(__file__).parents[2]
ABOUT_THE_FILE = {"help", "config", "check_config", "example_config"}


def serve_parser() -> argparse.ArgumentParser:
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return commands.choices["serve"]


def written(folder: Path, text: str) -> Path:
    path = folder / "dreamwright.toml"
    path.write_text(text, encoding="utf-8")
    return path


def configured(path: Path | None, *arguments: str) -> ServeConfiguration:
    before = [] if path is None else ["--config", str(path)]
    return ServeConfiguration(build_parser().parse_args(["serve", *before, *arguments]))


def test_the_file_has_every_option_of_the_command_line() -> None:
    actions = {action.dest: action for action in serve_parser()._actions if action.dest not in ABOUT_THE_FILE}
    assert set(actions) == {option.key for option in OPTIONS}
    for option in OPTIONS:
        assert f"--{option.name}" in actions[option.key].option_strings
        assert actions[option.key].default is None, "a default of argparse would hide the file's value"
    assert {policy_option(limit.key).removeprefix("--") for limit in policy_settings()} <= set(BY_NAME)
    assert all(option.is_allowed(option.default) for option in OPTIONS if option.default is not None)


def test_the_example_is_up_to_date_and_valid(tmp_path: Path) -> None:
    """To write it again: dreamwright serve --example-config > docs/operator/examples/dreamwright.toml"""
    text = example_text()
    assert (ROOT / "docs/operator/examples/dreamwright.toml").read_text(encoding="utf-8") == text
    assert read_config_file(written(tmp_path, text)) == {}, "every option is commented out"
    uncommented = re.sub(rf"(?m)^# ({'|'.join(BY_NAME)}) = ", r"\1 = ", text)
    assert set(read_config_file(written(tmp_path, uncommented))) == set(BY_NAME)


def test_the_command_line_goes_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        'keep-gb = 7\njobs-per-user = 9\ndevice = ["cpu"]\nstate = "here"\nencrypt = true\nquiet = true\ngrace = 5\n',
    )
    options = configured(path).options
    assert (options.keep_gb, options.jobs_per_user, options.device, options.encrypt) == (7.0, 9, ["cpu"], True)
    assert isinstance(options.keep_gb, float) and options.state == tmp_path / "here"
    assert options.keep_days == Policy().keep_days and options.address == BY_NAME["address"].default
    options = configured(path, "--keep-gb", "8", "--no-encrypt", "--device", "cuda:1", "--state", "there").options
    assert (options.keep_gb, options.jobs_per_user, options.device, options.encrypt) == (8.0, 9, ["cuda:1"], False)
    assert options.state == Path("there") and options.quiet
    assert not configured(path, "--log-level", "debug").options.quiet
    assert configured(None).options.jobs_total == Policy().jobs_total


FAULTS: dict[str, tuple[str, Sequence[str]]] = {
    "an unknown key": ("\n# c\njobs-per-usr = 3", ("line 3", '"jobs-per-usr"', "did you mean jobs-per-user?")),
    "an underscore": ("keep_gb = 3", ("line 1", "did you mean keep-gb?")),
    "a table": ("[limits]\nkeep-gb = 3", ("line 1", '"limits"', "--example-config")),
    "a text for a number": ('keep-gb = "many"', ("line 1", "keep-gb", '"many"', "a number from 0.001 to 1000000")),
    "a fraction for a whole number": ("jobs-total = 1.5", ("jobs-total is 1.5", "a whole number from 1 to 10000")),
    "a switch for a number": ("grace = true", ("grace is true", "a number from 0 to 3600")),
    "a number for a switch": ("encrypt = 1", ("encrypt is 1", "true or false")),
    "out of range": (
        "address = 'tcp://127.0.0.1:1'\njobs-per-user = 0",
        ("line 2", "jobs-per-user is 0", "1 to 10000"),
    ),
    "not a number": ("keep-gb = nan", ("keep-gb is NaN", "0.001 to 1000000")),
    "another word": ('"log-level" = "loud"', ("line 1", '"debug", "info", "warning", "error"')),
    "one text for a list": ('device = "cpu"', ("device is", '["one", "two"]')),
    "a list of numbers": ("device = [1]", ("device is [1]",)),
    "a control character": (r'reached-as = "a\u0000b"', ("reached-as", "text in")),
    "a date": ("metrics = 2026-12-01", ("metrics is", "text in")),
    "a long value": (f'metrics = ["{"x" * 500}"]', ("...",)),
    "broken TOML": ("keep-gb = [1", ("not valid TOML", "correct it")),
    "a key twice": ("keep-gb = 1\nkeep-gb = 2", ("not valid TOML", "Cannot overwrite")),
    "nested too deeply": ("a = " + "[" * 100_000, ("not valid TOML",)),
    "too large": ("#" + "x" * 1_000_001, ("1000000 bytes",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, words = FAULTS[fault]
    path = written(tmp_path, text)
    assert main(["serve", "--config", str(path), "--state", str(tmp_path / "state")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and len(line) < 400 and str(path) in line
    assert all(word in line for word in words), line
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("fault", ["missing", "folder", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_refused(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "dreamwright.toml"
    if fault == "folder":
        path.mkdir()
    elif fault == "not UTF-8":
        path.write_bytes(b'reached-as = "\xff"')
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_config_file(path)


def test_check_config_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, f"state = {json.dumps(str(tmp_path / 'state'))}\n")
    assert main(["serve", "--config", str(path), "--check-config"]) == 0
    assert "valid" in capsys.readouterr().out and not (tmp_path / "state").exists()
    for wrong in ('address = "nowhere"', 'metrics = "1.2.3.4:99999"'):
        assert main(["serve", "--config", str(written(tmp_path, wrong)), "--check-config"]) == 2


def test_reading_again_takes_what_is_safe_and_names_the_rest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "keep-gb = 7\n")
    configuration = configured(path, "--jobs-total", "40")
    applied: list[argparse.Namespace] = []
    with caplog.at_level(logging.INFO):
        written(tmp_path, 'keep-gb = 8\njobs-total = 50\ngrace = 9\naddress = "tcp://127.0.0.1:1"\n')
        configuration.reload(applied.append)
    assert applied[-1].keep_gb == 8.0 and applied[-1].jobs_total == 40, "the command line stays in force"
    assert applied[-1].grace == 30.0 and configuration.options is applied[-1]
    named = {record.getMessage(): getattr(record, "options", "") for record in caplog.records}
    assert named == {
        "configuration read again": "keep-gb",
        "changed options take effect at the next start": "address grace",
    }
    for broken in ("keep-gb = [", "keep-gb = 0"):
        caplog.clear()
        written(tmp_path, broken)
        configuration.reload(applied.append)
        assert len(applied) == 1 and configuration.options.keep_gb == 8.0
        (record,) = caplog.records
        assert record.levelno == logging.ERROR and str(path) in record.why


def test_every_part_of_a_server_follows_the_new_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamwright.backend.server.app.LocalRunner", ScriptedRunner)
    before, after = Policy(jobs_per_user=3), Policy(jobs_per_user=4)
    gone = weakref.ref(before)
    server = Server("tcp://127.0.0.1:*", tmp_path, ("cpu",), policy=before)
    try:
        server.use_policy(after)
        del before
        gc.collect()
        assert gone() is None, f"these still have the old limits: {gc.get_referrers(gone())}"
    finally:
        server.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_running_server_reads_its_file_again_on_sighup(tmp_path: Path) -> None:
    path = written(tmp_path, "jobs-per-user = 3\n")

    def stated(client: Any) -> int:
        bounds = server.request(client, GetCapabilities()).bounds
        return int(bounds["jobs_per_user"])

    with (
        server_process(tmp_path, "--config", str(path), module="tests.testing.server_process") as server,
        server.connected_client() as client,
    ):
        assert stated(client) == 3
        written(tmp_path, "jobs-per-user = [")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: server.wrote("configuration not read again"), client)
        assert stated(client) == 3
        written(tmp_path, "jobs-per-user = 5\ngrace = 1\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait_until(lambda: server.wrote("changed options take effect at the next start"), client)
        assert stated(client) == 5 and server.process.poll() is None
