# SPDX-License-Identifier: GPL-3.0-or-later
"""A log record is an event with fields, and contains no prompt and no secret."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dreamwright.backend.server.monitoring import logging_setup
from dreamwright.backend.server.monitoring.logging_setup import LogFormatter, redact
from dreamwright.backend.server.transport.authorized_keys import KeyFolder
from dreamwright.shared.connection_monitor import CurveCredentials
from dreamwright.shared.credentials import format_key, generate_key_pair
from dreamwright.shared.errors import RequestError
from dreamwright.shared.messages import JobReply, ListJobs
from tests.soak.worker_processes import children
from tests.testing.scripted_worker_server import submit_message
from tests.testing.server_process import server_process
from tests.testing.tiny_model import QUICK, save_tiny_model

MARK = "a marker of zirconium in the moonlight"
KNOWN, NEGATIVE = "a blue mushroom chair", "a white mushroom house"  # of words that the tiny model knows


@pytest.fixture(autouse=True)
def nothing_hidden() -> Iterator[None]:
    yield
    redact()


def line(style: str, level: int, event: str, error: BaseException | None = None, **fields: Any) -> str:
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("room", logging.WARNING, "file.py", 1, event, None, info)
    record.created = 1_700_000_000.25
    vars(record).update(fields)
    return LogFormatter(style, level).format(record)


def as_text(entry: dict[str, Any]) -> str:
    """An entry of a JSON log in the text format."""
    fields = {name: value for name, value in entry.items() if name not in ("time", "level", "logger", "event")}
    record = logging.LogRecord(entry["logger"], logging.INFO, "file.py", 1, entry["event"], None, None)
    vars(record).update(fields)
    return LogFormatter("text", logging.INFO).format(record)


def test_json_line_has_time_event_and_fields() -> None:
    record = json.loads(line("json", logging.INFO, "job submitted", job="j1", attempt=2))
    assert record == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "warning",
        "logger": "room",
        "event": "job submitted",
        "job": "j1",
        "attempt": 2,
    }


def test_text_line_has_time_event_and_fields() -> None:
    written = line("text", logging.INFO, "job\nwaits", job="j1", why='the "disk" is full\n2030-01-01 ERROR forged')
    assert written == (
        '2023-11-14T22:13:20.250Z WARNING room job waits job=j1 why="the \\"disk\\" is full\\n2030-01-01 ERROR forged"'
    )


def failing() -> BaseException:
    try:
        try:
            int(MARK)
        except ValueError as cause:
            raise RuntimeError(f"with {MARK}") from cause
    except RuntimeError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("style", ["text", "json"])
def test_exception_messages_are_logged_at_debug_only(style: str) -> None:
    quiet, loud = (line(style, level, "request failed", failing()) for level in (logging.INFO, logging.DEBUG))
    for written in (quiet, loud):
        assert (
            "ValueError" in written
            and "RuntimeError" in written
            and re.search(r"test_logging\.py:\d+ failing", written)
        )
    assert "zirconium" not in quiet and loud.count(MARK) >= 2


def test_system_errors_are_logged_whole() -> None:
    assert "No space left" in line("text", logging.INFO, "not written", OSError(28, "No space left on device"))


@pytest.mark.parametrize("style", ["text", "json"])
def test_prompts_are_redacted_everywhere(style: str) -> None:
    redact(f' {MARK}\'s "shade" ', "fog and rain")
    written = line(
        style,
        logging.INFO,
        f'odd: {MARK}\'s "shade"',
        None,
        why="no fog and rain today",
        said=repr(f' {MARK}\'s "shade" '),
        job="j1",
    )
    assert (
        "zirconium" not in written
        and "fog" not in written
        and written.count(logging_setup.REDACTED) == 3
        and "j1" in written
    )


def test_workers_inherit_the_log_format(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.open_log("json", "warning", sys.stderr)
    assert (os.environ[logging_setup.FORMAT_VARIABLE], os.environ[logging_setup.LEVEL_VARIABLE]) == ("json", "warning")
    logging_setup.inherit_log()
    logging.getLogger("room").info("not this")
    logging.getLogger("room").warning("this", extra={"job": "j"})
    lines = [json.loads(text) for text in capsys.readouterr().err.splitlines()]
    assert [(entry["event"], entry["job"]) for entry in lines] == [("this", "j")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_real_server_and_workers_log_no_prompt_and_no_secret(tmp_path: Path) -> None:
    """A submit, a refused one, a worker's death, a resumed job and a failed one, in JSON.

    The text format is checked on the same events: each entry of the log is formatted again as text.
    """
    keys, pair = KeyFolder(tmp_path / "state"), generate_key_pair()
    server_pair = keys.create()
    keys.allow("anna", format_key(pair.public), True)  # an admin may name a folder as model
    model = save_tiny_model(tmp_path / "model")
    settings = dict(setting.split("=") for setting in QUICK) | {
        "run.steps": "5000",
        "run.checkpoint_interval": "2",
        "run.threads": "1",
    }
    with (
        server_process(tmp_path, "--encrypt", "--log-format", "json") as server,
        server.connected_client(CurveCredentials(server_pair.public, pair)) as anna,
    ):

        def job(name: str) -> Any:
            return next(job for job in server.request(anna, ListJobs()).jobs if job.job == name)

        for wrong in ({"prompt": MARK}, {"prompt": KNOWN, "settings": {"render.samples": "many"}}):
            refused = server.request(anna, submit_message("r", model=str(model), **wrong))
            assert isinstance(refused, RequestError) and refused.code == "bad-input"
        first = server.request(
            anna, submit_message("a", prompt=KNOWN, negative=NEGATIVE, model=str(model), settings=settings)
        )
        assert isinstance(first, JobReply), first
        server.wait_until(lambda: job(first.job.job).step >= 3, anna)
        (worker,) = children(server.process.pid)
        os.kill(worker, signal.SIGKILL)
        server.wait_until(lambda: job(first.job.job).attempt == 2, anna)
        second = server.request(anna, submit_message("b", prompt=KNOWN, model=str(model), settings=settings))
        worker_log = tmp_path / "state" / "logs" / "worker-cpu.log"
        server.wait_until(
            lambda: worker_log.read_text().count("attempt begins") >= 2 and job(first.job.job).step >= 5, anna
        )
        (model / "unet" / "config.json").write_text("{}")
        worker = children(server.process.pid)[0]
        os.kill(worker, signal.SIGKILL)
        server.wait_until(lambda: job(second.job.job).state == "failed" or job(first.job.job).state == "failed", anna)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0
    logs = {path.name: path.read_text() for path in (tmp_path / "state" / "logs").iterdir()}
    assert "worker-cpu.log" in logs
    logs["output"] = server.output.read_text()
    for word in ("job submitted", "worker exited", "attempt ended", "server stops", "server stopped"):
        assert word in logs["output"], word
    assert logs["worker-cpu.log"].count("attempt begins") >= 2
    entries = {
        name: [json.loads(text) for text in written.splitlines() if text.startswith("{")]
        for name, written in logs.items()
    }
    assert len(entries["output"]) > 5 and len(entries["worker-cpu.log"]) > 2
    logs["as text"] = "\n".join(as_text(entry) for found in entries.values() for entry in found)
    for name, text in logs.items():
        for secret in (
            "zirconium",
            "mushroom",
            server_pair.secret.hex(),
            pair.secret.hex(),
            format_key(server_pair.secret),
            format_key(pair.secret),
        ):
            assert secret not in text, name
    assert {"time", "level", "logger", "event"} <= set.intersection(*(set(entry) for entry in entries["output"]))
    exited = next(entry for entry in entries["output"] if entry["event"] == "worker exited")
    assert (exited["job"], exited["user"], exited["attempt"], exited["device"], exited["status"]) == (
        first.job.job,
        "anna",
        1,
        "cpu",
        -9,
    )
