# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages for a machine that has torch and no network: collected here as wheels, installed there beside its own.

    python benchmarks/gpu_wheels.py collect [--python 3.12] [--to .whl] [--mebibytes 32]
    python3 benchmarks/gpu_wheels.py install --target /tmp/dreamwright-site      # there; gpu_session.sh does it

`collect` runs in an environment with the tests' packages (.venv-test), downloads what Dreamwright and its GPU tests
need, except torch, at the versions of constraints.txt, and keeps what fits: first what images with torch seldom have.
`install` leaves alone what the machine has in a version that pyproject.toml allows. Standard library and `packaging`
only, since nothing else is there yet.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
FOLDER, LEFT_OUT = ROOT / ".whl", "left-out.txt"
TESTS = ("pytest", "pytest-timeout", "hypothesis", "psutil")  # what tests/gpu and tests/testing import
# Images with torch have these as a rule, so they are left out first.
USUAL = frozenset({
    "accelerate", "certifi", "charset-normalizer", "filelock", "fsspec", "hf-xet", "huggingface-hub", "idna", "jinja2",
    "networkx", "numpy", "packaging", "pillow", "protobuf", "psutil", "pygments", "pyyaml", "regex", "requests", "rich",
    "safetensors", "scipy", "sentencepiece", "setuptools", "sympy", "tokenizers", "tqdm", "transformers",
    "typing-extensions", "urllib3",
})  # fmt: skip
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (39, 35, 34, 31, 28, 27, 26, 24, 17)), "manylinux2014_x86_64",
    "manylinux1_x86_64",
)  # fmt: skip
MEBIBYTE = 1 << 20


def direct_requirements() -> dict[str, Requirement]:
    """What pyproject.toml asks for without extras, by canonical name."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    requirements = [Requirement(text) for text in declared]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def pins() -> dict[str, str]:
    """Versions in constraints.txt by canonical name."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines) if name}


def needed(python: str) -> dict[str, str]:
    """Name and pinned version of every package but torch and what only torch needs, from this environment's metadata.

    Raises SystemExit for a package that is not pinned, or not installed here.
    """
    environment = {
        **default_environment(), "python_version": python, "python_full_version": f"{python}.0",
        "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": "",
    }  # fmt: skip
    versions, found = pins(), dict[str, str]()
    waiting = [*direct_requirements().values(), *map(Requirement, TESTS)]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == "torch" or name in found or (requirement.marker and not requirement.marker.evaluate(environment)):
            continue
        try:
            waiting += map(Requirement, importlib.metadata.requires(name) or ())
            found[name] = versions[name]
        except (importlib.metadata.PackageNotFoundError, KeyError) as error:
            raise SystemExit(
                f"gpu_wheels.py: {name} is not installed or not in constraints.txt ({error!r}); run it with "
                ".venv-test/bin/python, after bash setup.sh .venv-test -e '.[test]'"
            ) from error
    return found


def chosen(sizes: dict[str, int], most: int) -> list[str]:
    """Names that fit into `most` bytes together: rarely installed packages first, then small before large."""
    kept, total = [], 0
    for name in sorted(sizes, key=lambda name: (name in USUAL, sizes[name], name)):
        if total + sizes[name] <= most:
            kept.append(name)
            total += sizes[name]
    return kept


def collect(python: str, folder: Path, most: int) -> None:
    """Download all, keep what fits in an otherwise empty folder, and print both lists with sizes."""
    packages = needed(python)
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--implementation", "cp", "--python-version", python, "-d", temporary,
            *(argument for platform in PLATFORMS for argument in ("--platform", platform)),
            *(f"{name}=={version}" for name, version in sorted(packages.items())),
        ]  # fmt: skip
        if subprocess.run(command).returncode:
            raise SystemExit("gpu_wheels.py: pip could not download every package; its message is above")
        files = {canonicalize_name(parse_wheel_filename(f.name)[0]): f for f in Path(temporary).glob("*.whl")}
        sizes = {name: file.stat().st_size for name, file in files.items()}
        kept = chosen(sizes, most)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.whl"):
            old.unlink()
        for name in kept:
            shutil.copy(files[name], folder)
    reasons = []
    for name in sorted(sizes, key=lambda name: sizes[name]):
        print(f"{sizes[name] / MEBIBYTE:7.2f} MiB  {name} {packages[name]}{'' if name in kept else '  LEFT OUT'}")
        if name not in kept:
            why = "an image with torch has it as a rule" if name in USUAL else "it does not fit"
            reasons.append(f"{name} {packages[name]}: {sizes[name] / MEBIBYTE:.1f} MiB, left out because {why}\n")
    (folder / LEFT_OUT).write_text("".join(reasons))
    total = sum(sizes[name] for name in kept)
    print(f"{total / MEBIBYTE:7.2f} MiB  {len(kept)} of {len(sizes)} wheels in {folder}, of {most / MEBIBYTE:.0f} MiB")
    print("".join(reasons), end="")


def installed(name: str) -> str:
    """The version that this machine has, "" for none."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def install(folder: Path, target: Path) -> None:
    """Install what the machine lacks into `target`, link this checkout there, and name what is still missing.

    Raises SystemExit where pip fails.
    """
    wanted, tags = direct_requirements(), frozenset(sys_tags())
    wheels, brought = [], set()
    for path in sorted(folder.glob("*.whl")):
        name, version, _, wheel_tags = parse_wheel_filename(path.name)
        here = installed(name)
        if here and (name not in wanted or wanted[name].specifier.contains(here, prereleases=True)):
            continue
        if tags.isdisjoint(wheel_tags):
            print(f"{path.name} is not for this Python {sys.version.split()[0]}; collect with --python of its version")
            continue
        wheels.append(str(path))
        brought.add(name)
        print(f"{name} {version}, {f'instead of {here}' if here else 'which is missing here'}")
    target.mkdir(parents=True, exist_ok=True)
    if wheels:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
        options = ["--no-cache-dir", "--disable-pip-version-check", "--upgrade", "--target", str(target)]
        if subprocess.run([*pip, *options, *wheels]).returncode:
            raise SystemExit("gpu_wheels.py: pip could not install the wheels; its message is above")
    if importlib.util.find_spec("dreamwright") is None:
        package = target / "dreamwright"
        package.mkdir(exist_ok=True)
        for part in ("backend", "shared"):
            link = package / part
            link.unlink(missing_ok=True)
            link.symlink_to(ROOT / part)
    left_out = folder / LEFT_OUT
    reasons = dict(line.split(" ", 1) for line in left_out.read_text().splitlines()) if left_out.is_file() else {}
    for name in [*wanted, *reasons]:
        if name not in brought and not installed(name):
            print(f"missing: {name} {reasons.get(name, 'has no wheel here; run gpu_wheels.py collect')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    collecting = commands.add_parser("collect", help="download wheels, where there is a package index")
    collecting.add_argument("--python", default="3.12", help="the other machine's Python (default 3.12)")
    collecting.add_argument("--to", type=Path, default=FOLDER, metavar="DIR", help="default .whl, which git ignores")
    collecting.add_argument("--mebibytes", type=float, default=32.0, help="most that they may weigh (default 32)")
    installing = commands.add_parser("install", help="install them, where there is none")
    installing.add_argument("--wheels", type=Path, default=FOLDER, metavar="DIR", help="default .whl")
    installing.add_argument("--target", type=Path, required=True, metavar="DIR", help="folder for PYTHONPATH")
    options = parser.parse_args()
    if options.command == "collect":
        collect(options.python, options.to, int(options.mebibytes * MEBIBYTE))
    else:
        install(options.wheels, options.target)


if __name__ == "__main__":
    main()
