# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings that belong to one kind of field: refused with another where they are given, and left out of identities."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamwright.backend.cli.main import main
from dreamwright.backend.config.parsing import apply_settings
from dreamwright.backend.config.presets import PRESETS
from dreamwright.backend.config.usage import check_settings_used, identity_settings
from dreamwright.backend.errors import ConfigError


@pytest.mark.parametrize(
    ("kind", "given", "allowed"),
    [
        ("voxels", "field.hash_levels=4", "hash-grid"),
        ("voxels", "field.normals=finite-difference", "hash-grid"),
        ("voxels", "optimizer.network_rate_multiplier=0.5", "hash-grid"),
        ("voxels", "field.hidden_width=32", "mip-mlp"),
        ("hash-grid", "field.voxel_resolutions=16,32", "voxels"),
        ("hash-grid", "regularizers.smoothness=1", "voxels"),
        ("mip-mlp", "optimizer.color_rate_multiplier=0.7", "voxels and hash-grid"),
    ],
)
def test_a_setting_of_another_kind_of_field_is_refused_where_it_is_given(kind: str, given: str, allowed: str) -> None:
    """The preset's own numbers, those of voxels, are not: `--set field.kind=hash-grid` alone is enough."""
    own = PRESETS["draft"].config
    chosen = apply_settings(own, [f"field.kind={kind}"])
    check_settings_used(chosen, own=own)
    name = given.partition("=")[0]
    with pytest.raises(ConfigError, match=f"^{name} means nothing to field.kind={kind}, but to {allowed}; .*leave it"):
        check_settings_used(apply_settings(chosen, [given]), own=own)
    fitting = apply_settings(chosen, [f"field.kind={allowed.split(' ')[0]}", given])
    check_settings_used(fitting, own=own)


def test_the_command_refuses_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.glb"
    assert main(["generate", "a red mushroom", "--out", str(out), "--set", "field.hash_levels=4"]) == 2
    error = capsys.readouterr().err.strip()
    assert "field.hash_levels means nothing to field.kind=voxels, but to hash-grid" in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_a_run_is_known_by_the_settings_of_its_own_kind_of_field() -> None:
    voxels = identity_settings(PRESETS["draft"].config)
    hashed = identity_settings(apply_settings(PRESETS["draft"].config, ["field.kind=hash-grid"]))
    assert "voxel_resolutions" in voxels["field"] and "hash_levels" not in voxels["field"]
    assert "voxel_resolutions" not in hashed["field"] and "hash_levels" in hashed["field"]
    assert "smoothness" in voxels["regularizers"] and "smoothness" not in hashed["regularizers"]
