# SPDX-License-Identifier: GPL-3.0-or-later
"""Time of an optimization step, compared with stable-dreamfusion's `-O2` and nerfstudio's generfacto on one CPU.

    python benchmarks/peers.py --stable-dreamfusion PATH --nerfstudio PATH [--resolutions 32 64] [--rounds 5]

The paths are checkouts of github.com/ashawkey/stable-dreamfusion and github.com/nerfstudio-project/nerfstudio, or of
one of the two; their code is imported from there. Packages that they import and do not use in a step may be missing:
the tables say which were replaced by stubs (`peers_stubs.py`).

Every contender has its own process. They take turns, A B C A B C, so that other load on the machine affects all alike.
The ratio of two is the median over the rounds of the ratio within a round. Prints Markdown for docs/results/results.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from checkout import commit

from dreamwright.backend.models.memory_estimate import free_bytes

FIRST = "ours, as shipped"
OURS = (
    FIRST,
    "ours, at its start",
    "ours, hash grid",
    "ours, dense voxels",
    "ours, dense MLP",
    "ours, dense hash grid",
)
PEERS = {
    "stable-dreamfusion": ("stable-dreamfusion -O2",),
    "nerfstudio": ("generfacto, 96 samples", "generfacto, its own samples"),
}
# The contenders of ours whose work is nearest to a peer's.
NEAREST = (
    ("stable-dreamfusion -O2", "ours, dense MLP"),
    ("generfacto, 96 samples", "ours, dense voxels"),
    ("generfacto, 96 samples", "ours, dense hash grid"),
)
RESERVED_BYTES = 1_000_000_000  # left to other processes
PARTS, POINTS = ("rendering", "guidance", "backward", "optimizer"), "points"


@dataclass(frozen=True)
class TurnTimes:
    """Mean seconds of a step by part, points queried, processor seconds, and the process's peak memory in bytes."""

    parts: dict[str, float]
    points: float
    processor: float
    peak: int

    @property
    def whole(self) -> float:
        return sum(self.parts.values())

    @property
    def unguided(self) -> float:
        """Seconds of the step without the guidance."""
        return self.whole - self.parts["guidance"]


def peak_memory() -> int:
    """Peak resident bytes of this process since `reset_peak`."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def reset_peak() -> None:
    """Reset the peak to the current resident memory (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def wait_for_memory(needed: int, patience: float) -> None:
    """Wait until that many bytes are available. Raises RuntimeError after `patience` seconds."""
    until = time.monotonic() + patience
    while (there := free_bytes("cpu") or 0) < needed:
        if time.monotonic() > until:
            raise RuntimeError(
                f"{there / 1e9:.1f} GB are available, {needed / 1e9:.1f} GB are needed; end other programs first"
            )
        time.sleep(1)


def resident_memory(process: BaseProcess) -> int:
    """Resident bytes of a contender's process, which it need not allocate again in its next turn."""
    with open(f"/proc/{process.pid}/statm", encoding="ascii") as numbers:
        return os.sysconf("SC_PAGE_SIZE") * int(numbers.read().split()[1])


def work(
    pipe: Connection, name: str, resolution: int, warm: int, threads: int, memory_gb: float, checkouts: dict[str, Path]
) -> None:
    """Process of a contender: build it, send its description, then time a turn for each request; None ends it."""
    sys.stdout = sys.stderr  # the peers print while they build
    limit = int(memory_gb * 1e9)
    resource.setrlimit(
        resource.RLIMIT_DATA, (limit, limit)
    )  # an error in this process instead of the kernel's out-of-memory killer
    try:
        import torch
        from peers_contenders import build
        from peers_workload import SharedGuidance, workload

        torch.set_num_threads(threads)
        # Libraries and the 2D model are loaded first: memory that follows is the contender's.
        _ = SharedGuidance(workload(resolution)).bank
        reset_peak()
        idle = peak_memory()
        contender = build(name, resolution, warm, checkouts)
        contender.step()  # allocations, caches
        peak = peak_memory() - idle
        standins = sorted(name for finder in getattr(contender, "finders", ()) for name in finder.roots())
        reset_peak()
        pipe.send(
            {
                "about": contender.about,
                "samples": contender.samples,
                "parameters": contender.parameters,
                "standins": standins,
                "peak": peak,
            }
        )
        while pipe.recv() is not None:
            started, means = time.process_time(), dict.fromkeys((*PARTS, POINTS), 0.0)
            for _ in range(contender.turn):
                for part, amount in contender.step().items():
                    means[part] += amount / contender.turn
            points, processor_time = means.pop(POINTS), (time.process_time() - started) / contender.turn
            pipe.send(TurnTimes(means, points, processor_time, peak_memory() - idle))
    except Exception as error:  # sent to the main process, which ends the run
        pipe.send(
            error if isinstance(error, (ValueError, OSError)) else RuntimeError(f"{type(error).__name__}: {error}")
        )
        raise


def answer(pipe: Connection, name: str) -> Any:
    """Receive from a contender's process. Raises RuntimeError with its error."""
    try:
        message = pipe.recv()
    except EOFError as error:
        raise RuntimeError(
            f"{name} ended without an answer; it may have run out of memory; try smaller --resolutions"
        ) from error
    if isinstance(message, Exception):
        raise RuntimeError(f"{name} failed: {message}; see the lines above") from message
    return message


def compare(
    names: list[str], resolution: int, options: argparse.Namespace
) -> tuple[dict[str, dict[str, Any]], dict[str, list[TurnTimes]]]:
    """Description of each contender, and its turns in the order of the rounds."""
    context = multiprocessing.get_context("spawn")
    pipes, workers, about = {}, {}, {}
    try:
        for name in names:
            pipes[name], theirs = context.Pipe()
            arguments = (theirs, name, resolution, options.warm, options.threads, options.memory_gb, options.checkouts)
            workers[name] = context.Process(target=work, args=arguments, daemon=True)
            workers[name].start()
            theirs.close()
            about[name] = answer(pipes[name], name)  # one builds at a time
        turns: dict[str, list[TurnTimes]] = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                wait_for_memory(about[name]["peak"] - resident_memory(workers[name]) + RESERVED_BYTES, options.patience)
                pipes[name].send("go")
                turns[name].append(answer(pipes[name], name))
        for pipe in pipes.values():
            pipe.send(None)
        return about, turns
    finally:
        for process in workers.values():
            process.join(timeout=5)
            if process.is_alive():
                process.terminate()


def ratio(theirs: list[float], ours: list[float]) -> str:
    """Median over the rounds of their time over ours, and the range."""
    each = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f"{statistics.median(each):.1f} ({each[0]:.1f}-{each[-1]:.1f})"


def table(resolution: int, about: dict[str, dict[str, Any]], turns: dict[str, list[TurnTimes]]) -> str:
    """Markdown table with a row for each contender; ratios are to our preset as shipped."""
    ours = turns[FIRST]
    lines = [
        f"{resolution} x {resolution} rays; medians of {len(ours)} rounds; ratios to *{FIRST}* with their range:",
        "",
        (
            "| contender | samples a ray | field's weights | step, ms | rendering | guidance | backward | optimizer "
            "| ratio with guidance | without | of processor time | points, thousands | us a point | peak memory, MB |"
        ),
        "| --- " * 14 + "|",
    ]
    for name, theirs in turns.items():
        median = {part: 1e3 * statistics.median(t.parts[part] for t in theirs) for part in PARTS}
        whole = 1e3 * statistics.median(t.whole for t in theirs)
        lines.append(
            f"| {name} | {about[name]['samples']} | {about[name]['parameters']:,} | {whole:.0f} | "
            + " | ".join(f"{median[part]:.0f}" for part in PARTS)
            + f" | {ratio([t.whole for t in theirs], [t.whole for t in ours])}"
            + f" | {ratio([t.unguided for t in theirs], [t.unguided for t in ours])}"
            + f" | {ratio([t.processor for t in theirs], [t.processor for t in ours])}"
            + f" | {statistics.median(t.points for t in theirs) / 1e3:.0f}"
            + f" | {1e6 * statistics.median(t.unguided / t.points for t in theirs):.0f}"
            + f" | {max(t.peak for t in theirs) / 1e6:.0f} |"
        )
    lines.append("")
    for name, near in NEAREST:
        if name in turns and near in turns:
            times = ratio([t.unguided for t in turns[name]], [t.unguided for t in turns[near]])
            each = ratio([t.unguided / t.points for t in turns[name]], [t.unguided / t.points for t in turns[near]])
            lines.append(
                f"- *{name}* takes {times} times as long as *{near}* without guidance, {each} times as long a point"
            )
    return "\n".join(lines)


def checkouts(options: argparse.Namespace) -> dict[str, Path]:
    """The named checkouts. Raises SystemExit for a folder that is not one."""
    found = {}
    for peer, given, inside in (
        ("stable-dreamfusion", options.stable_dreamfusion, "nerf/network.py"),
        ("nerfstudio", options.nerfstudio, "nerfstudio/models/generfacto.py"),
    ):
        if given is None:
            continue
        if not (given / inside).is_file():
            raise SystemExit(f"peers.py: {given} has no {inside}; needed is a checkout of {peer}; give its top folder")
        found[peer] = given.resolve()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stable-dreamfusion", type=Path, metavar="PATH", help="a checkout of it")
    parser.add_argument("--nerfstudio", type=Path, metavar="PATH", help="a checkout of it")
    parser.add_argument("--resolutions", type=int, nargs="*", default=[32, 64], help="pixels a side of the one view")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument(
        "--warm", type=int, default=150, help="steps that ours takes before it is timed, so that there is a shape"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-gb", type=float, default=16.0, help="data memory that one contender may take")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds to wait for memory before giving up")
    parser.add_argument(
        "--return-heap",
        action="store_true",
        help="glibc's default: freed memory goes back at once; less memory, kind to ours",
    )
    parser.add_argument("--only", nargs="*", help="contenders to time, by name; ours as shipped is always among them")
    options = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("peers.py: peak memory is read from /proc, which this machine lacks; run it on Linux")
    if options.rounds < 1 or options.threads < 1 or not options.resolutions:
        raise SystemExit(
            "peers.py: --rounds and --threads must be 1 or more, and --resolutions must name one; change them"
        )
    options.checkouts = checkouts(options)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # for the contenders' processes
    if not options.return_heap:
        # Otherwise large tensors are mapped and zeroed each time: half the time of contenders with many of them.
        os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = str(2**34)
    names = [*OURS, *(name for peer in options.checkouts for name in PEERS[peer])]
    if options.only is not None:
        unknown = set(options.only) - set(names)
        if unknown:
            raise SystemExit(
                f"peers.py: unknown contenders {sorted(unknown)}; allowed are {names}; a peer also needs its path"
            )
        names = [name for name in names if name == FIRST or name in options.only]
    print(f"## Time of a step compared with peers, commit {commit()}, {options.threads} thread(s) of {processor()}, "
          f"load {os.getloadavg()[0]:.1f} before the start; "
          f"glibc {'returns' if options.return_heap else 'keeps'} freed memory\n")  # fmt: skip
    for resolution in options.resolutions:
        try:
            about, turns = compare(names, resolution, options)
        except RuntimeError as error:
            raise SystemExit(f"peers.py: {resolution} x {resolution}: {error}") from error
        print(table(resolution, about, turns) + "\n", flush=True)
    for name, what in about.items():
        replaced = f"; empty modules for {', '.join(what['standins'])}" if what["standins"] else ""
        print(f"- *{name}*: {what['about']}{replaced}")
    print(f"- load {os.getloadavg()[0]:.1f} at the end")


def processor() -> str:
    """The processor's name from /proc/cpuinfo."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
