# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators that submit a prompt: from the panel, or from the object that an earlier prompt made."""

from typing import Any

import bpy
from bpy.props import BoolProperty, IntProperty, StringProperty

from . import addon_state, checks, labels, provenance, server_settings, variations
from .shared.limits import SEED_LARGEST
from .wording import say


class DREAMWRIGHT_OT_generate(bpy.types.Operator):
    """Submit the prompt to the server."""

    bl_idname = "dreamwright.generate"
    bl_label = "Generate"
    bl_description = "Generate a prop from the prompt"
    bl_options = {"REGISTER"}

    prompt: StringProperty(
        name="Prompt", description="What to generate; empty: the panel's prompt", options={"SKIP_SAVE"}
    )
    count: IntProperty(
        name="Variations",
        description="How many props with different seeds; the panel's number unless it is given",
        default=1,
        options={"SKIP_SAVE"},
    )
    again: BoolProperty(
        name="Again",
        description="Use the next seed, for another prop of the same prompt; with variations the seeds after theirs",
        default=False,
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only while connected."""
        return checks.allow(cls, checks.offline_fault())

    @classmethod
    def description(cls, context: Any, properties: Any) -> str:
        """The button of the next seed says so."""
        return say("Generate with the next seed, for another prop") if properties.again else cls.bl_description

    def execute(self, context: Any) -> set[str]:
        """Submit a job with the panel's settings."""
        mine = addon_state.properties()
        prompt = labels.clean_prompt(self.prompt or mine.prompt)
        if not prompt:
            self.report({"ERROR"}, "The prompt is empty; type what to generate, for example: a red mushroom")
            return {"CANCELLED"}
        count = self.count if self.properties.is_property_set("count") else mine.variations
        if fault := variations.count_fault(count):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        if self.again:
            mine.seed = variations.variation_seeds(mine.seed, count + 1)[-1]
        return {"FINISHED"} if submit(self, prompt, count) else {"CANCELLED"}


def submit(operator: Any, prompt: str, count: int = 1) -> bool:
    """Submit a prompt with the panel's settings, with `count` seeds; False after `operator` has reported a fault."""
    mine, session = addon_state.properties(), addon_state.session()
    if not mine.model_name or not mine.preset_name:
        operator.report({"ERROR"}, say("The server has not sent its capabilities yet; try again in a moment"))
        return False
    if fault := labels.vocabulary_fault(session.capabilities, mine.model_name, prompt):
        operator.report({"ERROR"}, fault)
        return False
    negative = labels.clean_prompt(mine.negative)
    try:
        settings = server_settings.collect(session.capabilities, mine)
        variations.submit_variations(
            session, count, prompt, negative, mine.model_name, mine.preset_name, mine.seed, settings
        )
    except ValueError as error:  # also ProtocolError
        operator.report({"ERROR"}, str(error))
        return False
    return True


class DREAMWRIGHT_OT_generate_again(bpy.types.Operator):
    """Generate the active object's prompt again."""

    bl_idname = "dreamwright.generate_again"
    bl_label = "Generate Again"
    bl_description = "Use the prompt and settings that made the active object, with the next seed, and generate"
    bl_options = {"REGISTER"}

    same_seed: BoolProperty(
        name="Same Seed", description="Keep the seed, for the same prop again", default=False, options={"SKIP_SAVE"}
    )
    only_fill: BoolProperty(
        name="Only Fill in", description="Fill in the panel without generating", default=False, options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context: Any) -> bool:
        """Only for an object that was generated from a prompt."""
        is_known = provenance.request_of(context.active_object) is not None
        return checks.allow(cls, "" if is_known else provenance.NOT_GENERATED)

    def execute(self, context: Any) -> set[str]:
        """Fill in the panel and generate."""
        request = provenance.request_of(context.active_object)
        if request is None:
            self.report({"ERROR"}, say(provenance.NOT_GENERATED))
            return {"CANCELLED"}
        unknown = self._fill_panel(request)
        if unknown and addon_state.session().capabilities is not None:
            self.report(
                {"WARNING"}, say("This server has no control for {names}; left out", names=", ".join(unknown[:5]))
            )
        if self.only_fill:
            return {"FINISHED"}
        if not addon_state.session().is_online:
            self.report({"ERROR"}, say("The panel is filled in; connect to a server to generate"))
            return {"CANCELLED"}
        return {"FINISHED"} if submit(self, request.prompt) else {"CANCELLED"}

    def _fill_panel(self, request: provenance.Request) -> list[str]:
        """Set the panel's properties; names of settings that the server does not have."""
        mine = addon_state.properties()
        mine.prompt, mine.negative = request.prompt, request.negative
        mine.model_name, mine.preset_name = request.model, request.preset
        mine.seed = max(0, request.seed + (0 if self.same_seed else 1)) % (SEED_LARGEST + 1)
        for name, field in (("mesh.height_m", "height_m"), ("mesh.triangles", "triangles")):
            if isinstance(request.settings.get(name), (int, float)):
                setattr(mine, field, request.settings[name])
        mine.loras = str(request.settings.get(server_settings.LORAS, ""))
        size = request.settings.get(server_settings.TEXTURE, 0)
        mine.color_as = "IMAGE" if isinstance(size, int) and size > 0 else "VERTICES"
        if mine.color_as == "IMAGE":
            mine.texture_size = size
        capabilities = addon_state.session().capabilities
        return server_settings.apply(capabilities, server_settings.choice_of(mine), request.settings)


register, unregister = bpy.utils.register_classes_factory((DREAMWRIGHT_OT_generate, DREAMWRIGHT_OT_generate_again))
