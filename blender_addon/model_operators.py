# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators on one model of the server: download it to the server, stop that, open the page of its license."""

from typing import TYPE_CHECKING, Any

import bpy
from bpy.props import StringProperty

from . import addon_state, addresses, checks, compat, labels, model_labels, model_rows
from .shared.capabilities import ModelInfo
from .wording import mark, say

if TYPE_CHECKING:
    from bpy.types import Operator as _Base
else:
    _Base = object  # Blender registers every subclass of Operator, so a mix-in must not be one

PANEL = "dreamwright_models_panel"  # in the context of the panel's buttons only, which act on the selected model
NOT_SELECTED = mark("Select a model in the list first")
WIDTH = 420  # pixels of the dialog
COLUMNS = 64  # characters of a line in it


class ModelOperator(_Base):
    """Mix-in for an operator on one model: the selected one, or the one that a script names."""

    bl_options = {"REGISTER"}
    needs_connection = True

    model: StringProperty(name="Model", description="Name of the model; empty: the selected one", options={"SKIP_SAVE"})

    @classmethod
    def poll(cls, context: Any) -> bool:
        """In the panel the selected model decides; a script may name any model, which `execute` checks."""
        fault = checks.offline_fault() if cls.needs_connection else ""
        if not fault and addon_state.session().capabilities is None:
            fault = say("The server has not sent its list of models yet")
        if not fault and hasattr(context, PANEL):
            selected = model_rows.active_model()
            fault = say(NOT_SELECTED) if selected is None else cls.fault(selected)
        return checks.allow(cls, fault)

    @classmethod
    def fault(cls, info: ModelInfo) -> str:
        """Why the operator cannot run on this model, as a sentence; "" when it can."""
        raise NotImplementedError

    def target(self) -> ModelInfo | None:
        """The named model, else the selected one."""
        if self.model:
            return labels.model_info(addon_state.session().capabilities, self.model)
        return model_rows.active_model()

    def execute(self, context: Any) -> set[str]:
        """Run on the model, or report why not."""
        info = self.target()
        if info is None:
            unknown = say("The server has no model {model}; see the list of models", model=self.model)
            self.report({"ERROR"}, unknown if self.model else say(NOT_SELECTED))
            return {"CANCELLED"}
        if fault := self.fault(info):
            self.report({"ERROR"}, fault)
            return {"CANCELLED"}
        return self.run(info)

    def run(self, info: ModelInfo) -> set[str]:
        """Run on a model without fault."""
        raise NotImplementedError


class DREAMWRIGHT_OT_download_model(ModelOperator, bpy.types.Operator):
    """Have the server download a model."""

    bl_idname = "dreamwright.download_model"
    bl_label = "Download"
    bl_description = "Download the model from the Hugging Face hub to the server, or continue a stopped download"

    @classmethod
    def fault(cls, info: ModelInfo) -> str:
        """The server says who may download what; a server on this machine uses its network, as Blender allows."""
        session = addon_state.session()
        if (active := session.models.active) is not None:
            return say("The server is downloading {model}; stop that first, or wait for its end", model=active.model)
        if not info.can_download:
            fault = info.download_fault or say("The server does not offer to download this model")
            return fault[:1].upper() + fault[1:]
        return compat.online_fault(mark("to download models")) if addresses.is_local(session.address) else ""

    def invoke(self, context: Any, event: Any) -> set[str]:
        """Ask. The model's name is stored: the selection may change before it is confirmed."""
        info = self.target()
        if info is not None and not self.fault(info):
            self.model = info.name
            addon_state.session().models.refresh()  # the free disk as it is now
            return context.window_manager.invoke_props_dialog(self, width=WIDTH)
        return self.execute(context)

    def draw(self, context: Any) -> None:
        """Draw what is downloaded where, how large it is, and under which license."""
        info, session = self.target(), addon_state.session()
        if info is None or session.capabilities is None:
            return
        is_local = addresses.is_local(session.address)
        where = say("on this machine") if is_local else say("at {address}", address=session.address)
        for text in model_labels.confirmation(info, where, session.capabilities.models_free_bytes):
            for line in labels.wrapped(text, COLUMNS):
                self.layout.label(text=line, translate=False)
        if info.license_url:
            self.layout.operator("dreamwright.open_license", icon="URL").model = info.name

    def run(self, info: ModelInfo) -> set[str]:
        """Send the request; later ticks show the progress."""
        addon_state.session().models.download(info.name)
        return {"FINISHED"}


class DREAMWRIGHT_OT_stop_model_download(ModelOperator, bpy.types.Operator):
    """Stop the download of a model."""

    bl_idname = "dreamwright.stop_model_download"
    bl_label = "Stop"
    bl_description = "Stop the download; the server keeps what it received, and Download continues from there"

    @classmethod
    def fault(cls, info: ModelInfo) -> str:
        """Only while it is under way."""
        download = addon_state.session().models.downloads.get(info.name)
        return "" if download is not None and download.is_active else say("The server is not downloading this model")

    def run(self, info: ModelInfo) -> set[str]:
        """Send the request."""
        addon_state.session().models.stop(info.name)
        return {"FINISHED"}


class DREAMWRIGHT_OT_open_license(ModelOperator, bpy.types.Operator):
    """Open the page of a model's license."""

    bl_idname = "dreamwright.open_license"
    bl_label = "License Page"
    bl_description = "Open the page that states the model's license in a web browser"
    needs_connection = False

    @classmethod
    def fault(cls, info: ModelInfo) -> str:
        """A server may send any text as the address; only web pages are opened."""
        return "" if info.license_url.startswith("https://") else say("No page with this model's license is known")

    def run(self, info: ModelInfo) -> set[str]:
        """Open it."""
        return bpy.ops.wm.url_open(url=info.license_url)


register, unregister = bpy.utils.register_classes_factory(
    (DREAMWRIGHT_OT_download_model, DREAMWRIGHT_OT_stop_model_download, DREAMWRIGHT_OT_open_license)
)
