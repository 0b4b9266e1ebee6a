# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a Blender: installs the zip as a person would, then runs a test's script.

The script finds the globals ADDON, finish(), registered() and BEFORE, which is registered() without the add-on.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import bpy  # isort: skip
import addon_utils  # isort: skip  (importable only after bpy)

NAME = "dreamwright"


def added_to(menu: type) -> list[Callable[..., None]]:
    """Draw functions that add-ons appended to a menu, panel or header; Blender's own are in the same list."""
    functions = getattr(getattr(menu, "draw", None), "_draw_funcs", ())
    return [function for function in functions if not function.__module__.startswith("bl_ui.")]


def registered() -> dict[str, list[str]]:
    """Everything that an add-on can leave behind in Blender, by kind."""
    owners = [
        getattr(bpy.types, name)
        for name in ("WindowManager", "Scene", "Object", "Mesh", "Material", "Image", "World", "Collection")
    ]
    handlers = {
        name: getattr(bpy.app.handlers, name)
        for name in dir(bpy.app.handlers)
        if isinstance(getattr(bpy.app.handlers, name), list)
    }
    keymaps = getattr(bpy.context.window_manager.keyconfigs.addon, "keymaps", ())
    return {
        "classes": [name for name in dir(bpy.types) if isinstance(getattr(bpy.types, name), type)],
        "properties": [f"{owner.__name__}.{name}" for owner in owners for name in list(owner.bl_rna.properties.keys())],
        "attributes": [f"{owner.__name__}.{name}" for owner in owners for name in vars(owner)],
        "handlers": [
            f"{kind}.{function.__module__}.{function.__qualname__}"
            for kind, functions in handlers.items()
            for function in functions
        ],
        "keys": [f"{keymap.name}.{item.idname}" for keymap in keymaps for item in keymap.keymap_items],
        "menus": [
            f"{menu}.{function.__module__}.{function.__qualname__}"
            for menu in dir(bpy.types)
            for function in added_to(getattr(bpy.types, menu))
        ],
    }


def module_name() -> str:
    """What the add-on's module is called after an installation from the zip."""
    return f"bl_ext.user_default.{NAME}" if bpy.app.version >= (4, 2, 0) else NAME


def install(path: str) -> str:
    """Install and enable a zip or a repository's package, or enable what an earlier run installed; the module."""
    extension, module = bpy.app.version >= (4, 2, 0), module_name()
    if not path:
        addon_utils.enable(module, default_set=True)
    elif path.endswith(".json"):
        bpy.context.preferences.system.use_online_access = True  # Blender asks for it even where the address is a file
        bpy.ops.preferences.extension_repo_add(name="Dreamwright test", remote_url=Path(path).as_uri(), type="REMOTE")
        place = len(bpy.context.preferences.extensions.repos) - 1
        module = f"bl_ext.{bpy.context.preferences.extensions.repos[place].module}.{NAME}"
        bpy.ops.extensions.repo_sync(repo_index=place)
        bpy.ops.extensions.package_install(repo_index=place, pkg_id=NAME, enable_on_install=True)
    elif extension:
        bpy.ops.extensions.package_install_files(repo="user_default", filepath=path, enable_on_install=True)
    else:
        bpy.ops.preferences.addon_install(filepath=path)
        bpy.ops.preferences.addon_enable(module=module)
    # Blender prints what goes wrong while enabling and carries on.
    if module not in bpy.context.preferences.addons or not addon_utils.check(module)[1]:
        raise RuntimeError(f"{module} is not enabled after its installation; Blender's reason is above")
    return module


def finish(status: int = 0) -> None:
    """End this Blender: the way a person closes it where there is a window and all is well, else at once."""
    sys.stdout.flush()
    sys.stderr.flush()
    windows = bpy.context.window_manager.windows
    if status or bpy.app.background or not windows:
        os._exit(status)
    with bpy.context.temp_override(window=windows[0]):
        bpy.ops.wm.quit_blender()


def main() -> None:
    """Install, then run the script. With a window, Blender continues until the script's timers call finish()."""
    bpy.context.preferences.view.show_splash = False  # it would cover the window and take the first click
    try:
        if bpy.app.version >= (4, 2, 0) and "bl_pkg" not in bpy.context.preferences.addons:
            addon_utils.enable(
                "bl_pkg", default_set=True
            )  # Blender as a module leaves the extensions' own add-on out before 5.2
        before = registered()
        by_hand = os.environ.get("DREAMWRIGHT_TEST_BY_HAND") == "1"
        module = module_name() if by_hand else install(os.environ.get("DREAMWRIGHT_TEST_ZIP", ""))
        os.environ["DREAMWRIGHT_TEST_ADDON"] = module
        script = Path(os.environ["DREAMWRIGHT_TEST_SCRIPT"])
        sys.path[:0] = [str(script.parent), str(Path(__file__).parent)]  # for what the scripts share
        given = {"ADDON": module, "BEFORE": before, "registered": registered, "finish": finish}
        runpy.run_path(str(script), init_globals=given, run_name="__main__")
        if not bpy.app.binary_path:
            finish()  # bpy 4.2 as a module, also without add-ons, crashes when its interpreter ends after a glTF import
    except BaseException as error:
        if isinstance(error, SystemExit) and error.code in (None, 0):
            finish(0)
            return
        traceback.print_exc()
        finish(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)


main()
