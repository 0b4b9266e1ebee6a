# SPDX-License-Identifier: GPL-3.0-or-later
"""The licenses of everything that Dreamwright imports, from the installed packages' metadata.

    python -m tools.docs.license_list            writes docs/developer/licenses.md
    python -m tools.docs.license_list --check    fails for an incompatible, unknown or unlisted license

A package that is not installed here cannot be judged and keeps its line.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/developer/licenses.md"
NOT_SHIPPED = ("test", "docs", "dev")  # extras that only work on Dreamwright itself needs
# Compatible with GPL-3.0-or-later, by the list of the Free Software Foundation.
ALLOWED = frozenset(
    (
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "GPL-2.0-or-later",
        "GPL-3.0", "GPL-3.0-only", "GPL-3.0-or-later", "HPND", "ISC", "LGPL-2.1-or-later", "LGPL-3.0-or-later", "MIT",
        "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib",
    )
)  # fmt: skip
# What older metadata say instead of an SPDX identifier.
WORDS = (
    (r"^apache( software)?( license)?,?( version)? ?2(\.0)?|^apache software license$|^apache$", "Apache-2.0"),
    (r"^mit( license)?$|^the mit license", "MIT"),
    (r"^(the )?(new |modified |3-clause )?bsd\b(?!.*(original|4-clause))", "BSD-3-Clause"),
    (r"^isc", "ISC"),
    (r"mozilla public license 2\.0|^mpl[- ]2", "MPL-2.0"),
    (r"python software foundation|^psf", "PSF-2.0"),
    (r"^gnu general public license v3|^gpl-?3|^gplv3", "GPL-3.0-or-later"),
    (r"lesser general public license v3", "LGPL-3.0-or-later"),
    (r"historical permission notice", "HPND"),
    (r"unlicense", "Unlicense"),
)
# Read by hand where the metadata name none, or one that needs a reason.
BY_HAND = {
    "bpy": ("GPL-3.0-or-later", "Blender's own module"),
    "nerfacc": ("MIT", "its LICENSE file; the metadata name none"),
    "openexr": ("BSD-3-Clause", "its LICENSE file; the metadata name none"),
}
NVIDIA = "NVIDIA's own"
NVIDIA_REASON = "CUDA libraries that torch brings on machines with an NVIDIA GPU; Dreamwright distributes none of them"


@dataclass(frozen=True)
class License:
    """What a package states; `expression` is SPDX where that is known, else the package's own words."""

    name: str
    expression: str
    note: str = ""

    @property
    def is_allowed(self) -> bool:
        """Whether every license of the expression is on the list, or one of them where the user may choose."""
        if self.expression == NVIDIA:
            return True
        return any(
            all(word.strip("() ").partition(" WITH ")[0] in ALLOWED for word in choice.split(" AND "))
            for choice in self.expression.split(" OR ")
        )


def needed(extras: Iterable[str] | None = None) -> dict[str, Distribution]:
    """Installed packages by name that the project's dependencies, and those of its extras, bring; transitively."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    offered: Mapping[str, list[str]] = project["optional-dependencies"]
    chosen = [name for name in offered if name not in NOT_SHIPPED] if extras is None else list(extras)
    waiting = [*project["dependencies"], *(line for name in chosen for line in offered[name])]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        if name == "dreamwright" or (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = package
        for line in package.requires or ():
            marker = Requirement(line).marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*requirement.extras, "")):
                waiting.append(line)
    return found


def license_of(name: str, package: Distribution) -> License:
    """The license that a package's metadata state."""
    if name in BY_HAND:
        return License(name, *BY_HAND[name])
    if name.startswith("nvidia-"):
        return License(name, NVIDIA, NVIDIA_REASON)
    metadata = package.metadata
    if stated := metadata.get("License-Expression"):
        return License(name, " ".join(stated.split()))
    classified = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if "License ::" in line]
    words = [word for word in classified if word != "OSI Approved"] or [(metadata.get("License") or "").strip()]
    return License(name, " AND ".join(sorted({_spdx(word) for word in words})))


def _spdx(words: str) -> str:
    first = (words.splitlines() or [""])[0].strip()
    for pattern, identifier in WORDS:
        if re.search(pattern, first, re.IGNORECASE):
            return identifier
    return first if first else "none stated"


def listed(text: str) -> dict[str, str]:
    """Licenses by package in the page."""
    rows = (line.split("|") for line in text.splitlines() if line.startswith("| `"))
    return {row[1].strip(" `"): row[2].strip() for row in rows}


def page(licenses: Mapping[str, License], before: Mapping[str, str]) -> str:
    """The page; packages that are not installed here keep the line that they have."""
    lines = [
        "# Licenses of dependencies",
        "",
        "What Dreamwright imports, with its extras, as the packages' metadata state it.",
        "`python -m tools.docs.license_list` writes this page, and `--check` refuses a license that is not known to be",
        "compatible with GPL-3.0-or-later.",
        "",
        "| package | license | note |",
        "| --- | --- | --- |",
    ]
    for name in sorted({*licenses, *before}):
        found = licenses.get(name) or License(name, before[name])
        lines.append(f"| `{name}` | {found.expression} | {found.note} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"


def faults(licenses: Mapping[str, License], before: Mapping[str, str]) -> list[str]:
    """What is wrong, in one line each."""
    found = []
    for name, license in sorted(licenses.items()):
        if not license.is_allowed:
            found.append(
                f"{name} has the license {license.expression!r}, which is not known to be compatible with "
                "GPL-3.0-or-later; choose another package, or add the license to ALLOWED, or read it by hand"
            )
        elif before.get(name) != license.expression:
            found.append(
                f"{name} has the license {license.expression}, the page says {before.get(name, 'nothing')}; run "
                "python -m tools.docs.license_list"
            )
    return found


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail for anything that is not as it must be"
    )
    options = parser.parse_args()
    licenses = {name: license_of(name, package) for name, package in needed().items()}
    before = listed(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    if not options.check:
        PAGE.write_text(page(licenses, before), encoding="utf-8")
        before = listed(PAGE.read_text(encoding="utf-8"))
    found = faults(licenses, before)
    print("\n".join(found) or f"the licenses of {len(licenses)} packages are compatible with GPL-3.0-or-later")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
