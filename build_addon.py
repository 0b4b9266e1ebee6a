# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the Blender add-on: one zip for all platforms, one per platform, and a folder to host them as a repository.

    python build_addon.py              # dist/dreamwright-VERSION.zip, one zip per platform, dist/repository/
    python build_addon.py --lock       # download the wheels of PACKAGES from the package index and pin them again

The universal zip is an extension for Blender 4.2 and later, and a legacy add-on for older versions. The same input
gives the same bytes. Needs Python 3.11 and pip; with Blender as a module (pip install bpy) Blender's own tool also
validates the zips and writes the repository's index. The parts are in tools/addon_build.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tools.addon_build.archive import write_zips
from tools.addon_build.repository import blender_tool, run_tool, write_repository
from tools.addon_build.wheels import LOCK_NAME, BuildError, fetch_wheels, read_lock, write_lock

ROOT = Path(__file__).resolve().parent


def build(root: Path, out: Path, cache: Path) -> tuple[list[Path], bool]:
    """Build everything into `out`; the zips, and whether they were validated. Errors leave `out` unchanged."""
    wheels = fetch_wheels(read_lock(root / LOCK_NAME), cache)
    tool = blender_tool()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as name:
        fresh = Path(name)
        universal, separate = write_zips(root, wheels, fresh)
        if tool:
            for path in (universal, *separate):
                run_tool(tool, "validate", str(path))
            write_repository(tool, fresh / "repository", separate)
        # Replaced as a whole: an index must match its zips.
        shutil.rmtree(out / "repository", ignore_errors=True)
        for path in sorted(fresh.iterdir()):
            path.replace(out / path.name)
    return [out / path.name for path in (universal, *separate)], tool is not None


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(
        prog="build_addon.py", description="Build the Blender add-on's zips and a repository folder to host them."
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("dist"),
        help="folder for the zips; its repository/ is replaced (default: dist)",
    )
    parser.add_argument("--wheels", type=Path, help="cache of downloaded wheels (default: .wheels beside the sources)")
    parser.add_argument(
        "--root",
        type=Path,
        default=ROOT,
        help=f"checkout with blender_addon/, shared/, LICENSE and {LOCK_NAME} (default: this one)",
    )
    parser.add_argument(
        "--lock", action="store_true", help=f"download the wheels again and write {LOCK_NAME}; builds nothing"
    )
    options = parser.parse_args(arguments)
    cache = options.wheels or options.root / ".wheels"
    try:
        if options.lock:
            print(f"{options.root / LOCK_NAME}: {write_lock(options.root / LOCK_NAME, cache)} wheels pinned")
            return 0
        zips, validated = build(options.root, options.out, cache)
    except (BuildError, OSError) as error:
        print(f"build_addon.py: {error}", file=sys.stderr)
        return 1
    for path in zips:
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")
    if validated:
        print(f"{options.out / 'repository'}  validated and indexed by Blender's own tool")
    else:
        print(
            "Not validated, and without repository/: this Python has no Blender. For both: pip install "
            "bpy==4.5.15, then build again"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
