# SPDX-License-Identifier: GPL-3.0-or-later
"""Every message field and every setting at and beyond its bounds, and paths given as names of models, jobs and tickets.

python -m tests.soak.field_bounds --folder runs/bounds
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dreamwright.backend.config.schema import Config
from dreamwright.backend.config.setting import setting_fields
from dreamwright.backend.server.workers import worker_protocol
from dreamwright.shared import capabilities
from dreamwright.shared.errors import ProtocolError, RequestError
from dreamwright.shared.messages import MESSAGES, CancelJob, FetchChunk, JobReply, JobSummary, SubmitJob, UploadChunk
from dreamwright.shared.schema import from_map, rule_of, short_repr, to_map
from tests.soak.command_line import soak_parser
from tests.testing.in_memory_server import InMemoryServer
from tests.testing.message_strategies import PATHS, probes, valid

RECORDS: tuple[type[Any], ...] = (
    *MESSAGES.values(),
    *worker_protocol.MESSAGE_TYPES.values(),
    JobSummary,
    capabilities.ModelInfo,
    capabilities.PresetInfo,
    capabilities.SettingInfo,
    capabilities.SettingRange,
)


def field_cases() -> Iterator[tuple[type[Any], str, str, Any, bool]]:
    """(record, field, label, value, is allowed) for every field of every message."""
    for kind in dict.fromkeys(RECORDS):
        for field in dataclasses.fields(kind):
            for label, value, fine in probes(rule_of(field)):
                yield kind, field.name, label, value, fine


def field_fault(kind: type[Any], name: str, value: Any, fine: bool) -> str:
    """The fault in the handling of a field value; "" for none."""
    plain = to_map(valid(kind, random.Random(0)))
    try:
        from_map(kind, {**plain, name: value})
    except ProtocolError as error:
        if fine:
            return f"an allowed value is refused: {error}"
        message = str(error)
        if (
            name not in message
            or not ("allowed" in message or "required" in message)
            or len(message) > 1000
            or not message.isprintable()
        ):
            return f"incomplete error message: {message[:200]!r}"
    else:
        if not fine:
            return "a wrong value is accepted"
    return ""


def setting_cases() -> Iterator[tuple[str, str, Any, bool]]:
    """(setting, label, value, is within its bounds) for every setting. Settings without bounds only get wrong types."""
    for name, setting in setting_fields(Config).items():
        if not setting.applies_to("field", "diffusion", "sds", "voxels"):
            continue  # does not apply to the submitted job: a field guided by a diffusion model
        if setting.bounds is not None:
            low, high = setting.bounds
            allowed = [setting.low, setting.high, *([0] if setting.zero else [])]
            whole = setting.kind in ("integer", "integers")
            step = 1 if whole else 1e-6 * max(1.0, abs(high))
            values = {
                "0": 0,
                "-1": -1,
                "min": low,
                "min-1": low - step,
                "max": high,
                "max+1": high + step,
                "1e308": 1e308,
            }
            for label, value in values.items():
                fine = value in allowed or setting.low <= value <= setting.high
                yield name, label, value, fine
                yield name, f"{label} as text", repr(value), fine
            yield from (
                (name, f"{text!r} as text", text, False)
                for text in ("nan", "inf", "-inf", "NaN", "1e999", "", "x", "1;2", "0x10", "None", "[1]", "9" * 400)
            )
            yield name, "a boolean for a number", True, False
            if whole:
                yield name, "a fraction", low + 0.5, False
        elif setting.kind == "choice":
            # The preset fits one method, so others are refused.
            yield from (
                (name, f"{word!r}", word, name != "run.method" or word == "dreamfusion") for word in setting.choices
            )
            yield from (
                (name, label, value, False)
                for label, value in (
                    ("0", 0),
                    ("-1", -1),
                    ("1e308", 1e308),
                    ("a boolean", True),
                    ("an unknown choice", "x" * 1000),
                    ("a path", PATHS[0]),
                )
            )
        elif setting.kind == "switch":
            yield from (
                (name, label, value, fine)
                for label, value, fine in (
                    ("true", True, True),
                    ("2", 2, False),
                    ("-1", -1, False),
                    ("1e308", 1e308, False),
                    ("text", "maybe", False),
                )
            )


def submit_result(in_memory_server: InMemoryServer, **changes: Any) -> str:
    """The result of a submit: "accepted", or the error code and message."""
    try:
        job = in_memory_server.submit(**changes)
    except RequestError as refused:
        return f"{refused.code}: {refused.message}"
    in_memory_server.request(CancelJob(job))
    return "accepted"


def setting_fault(in_memory_server: InMemoryServer, name: str, value: Any, fine: bool) -> str:
    """The fault in the reply to a submit with this setting; "" for none.

    A refusal that names an ordering with another setting ("<=") counts as correct.
    """
    message = submit_result(in_memory_server, settings={name: value})
    if message == "accepted":
        return "" if fine else "a wrong value is accepted"
    if not message.startswith("bad-input: ") or "allowed" not in message or name not in message:
        return f"incomplete error message: {message[:200]}"
    return message if fine and "<=" not in message else ""


def files_under(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.startswith("jobs.sqlite3")}


def name_faults(in_memory_server: InMemoryServer) -> tuple[int, list[str]]:
    """(request count, faults) for paths given as model, preset, mesh, job and ticket."""
    before, faults, count = files_under(in_memory_server.folder.parent), [], 0
    (in_memory_server.folder.parent / "link").symlink_to("/etc")
    before.add("link")
    for path in (
        *PATHS,
        str(in_memory_server.folder.parent / "link"),
        str(in_memory_server.folder),
        "/dev/fd/0",
        "/proc/self/root",
    ):
        for field in ("model", "preset"):
            count += 1
            message = submit_result(in_memory_server, **{field: path})
            if not message.startswith("bad-input: "):
                faults.append(f"{field} {path!r}: {message}")
        for request, code in (
            (SubmitJob("t", "a red mushroom", "", "starter", "refine", 0, {}, 0, mesh=path[:64]), "not-ready"),
            (UploadChunk(path[:64], 9, 0, b"123456789"), "bad-input"),
        ):
            count += 1
            refused = in_memory_server.refusal(request)
            if refused.code != code:
                faults.append(f"mesh {path!r}: {refused}")
        for request in (CancelJob(path[:40]), FetchChunk(path[:40], "mesh", 0, 10)):
            count += 1
            try:
                faults.append(f"job {path!r}: {type(in_memory_server.request(request)).__name__}")
            except RequestError as refused:
                if refused.code != "no-such-job":
                    faults.append(f"job {path!r}: {refused}")
        count += 1
        reply = in_memory_server.request(SubmitJob(path[:64], "a red mushroom", "", "starter", "draft", 0, {}), "ada")
        if isinstance(reply, JobReply):
            in_memory_server.request(CancelJob(reply.job.job))
    made = files_under(in_memory_server.folder.parent) - before
    if made:
        faults.append(f"files were written: {sorted(made)}")
    return count, faults


def main() -> int:
    parser = soak_parser(__doc__)
    folder = parser.parse_args().folder
    in_memory_server = InMemoryServer(folder / "state")
    faults: list[str] = []
    fields, settings, allowed = set(), set(), Counter()
    for kind, name, label, value, fine in field_cases():
        fields.add((kind, name))
        allowed["field values accepted" if fine else "field values refused"] += 1
        fault = field_fault(kind, name, value, fine)
        if fault:
            faults.append(f"{kind.__name__}.{name} {label} ({short_repr(value)}): {fault}")
    for name, label, value, fine in setting_cases():
        settings.add(name)
        allowed["setting values accepted" if fine else "setting values refused"] += 1
        fault = setting_fault(in_memory_server, name, value, fine)
        if fault:
            faults.append(f"{name} {label} ({short_repr(value)}): {fault}")
    names, wrong = name_faults(in_memory_server)
    print(
        json.dumps(
            {
                "fields": len(fields),
                "settings": len(settings),
                **allowed,
                "paths as names": names,
                "faults": faults + wrong,
            },
            indent=1,
            ensure_ascii=True,
        )
    )
    return 1 if faults + wrong else 0


if __name__ == "__main__":
    sys.exit(main())
