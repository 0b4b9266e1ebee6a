# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings: declared once with everything known about them, and what is derived from that.

To add a setting, write one field in the dataclass of its section (`run_settings`, `field_settings`, `render_settings`,
`guidance_settings`, `mesh_settings`; `schema.Config` joins them):

    samples: int = setting(128, (4, 2048), unit="samples a ray", panel=True, help="Points along a ray.")

Everything else is derived from that line:

- `setting.setting_fields(schema) -> {name: Setting}`: the metadata of every setting (bounds, unit, label, help).
- `parsing.apply_settings`, `config_from_mapping`, `validate`: typed and bounded values from text or JSON;
  `parsing.setting_bounds()`: the ranges; `setting.check_section(values, name)`: one section on its own.
- `usage.identity_settings(config, scene, initial_field) -> dict`: what a resumed run must share (its fingerprint).
- `usage.check_settings_used(config, scene, own)`: refuses a setting that this kind of run does not read. `scene` is
  "field", "sphere" or "mesh"; None is the scene of `run.method`. `own` are the defaults, such as `presets.REFINE`.
- `usage.resumable_memory_settings()`, `usage.memory_settings()`: settings that lower memory, with and without effect on
  the identity.
- `usage.duration_settings(config, scene) -> dict`: the settings that change how long a run takes.
- `backend/server/offered_settings.py`: the controls that clients draw.
- `tools/docs/settings_table.py`: docs/user/settings.md.

`presets` holds named configurations, `schedules` functions of the run's progress.
"""
