# SPDX-License-Identifier: GPL-3.0-or-later
"""Ground, camera and three lightings around the props of a scene, inside Blender: a Blender scene for each lighting.

The scenes share the props and the ground, so that all three light the same meshes and materials. relit_script.py
imports this file.
"""

from __future__ import annotations

import math
from typing import Any

import bpy

GROUND_ALBEDO = (0.30, 0.27, 0.24)  # linear: a gray that is a little warm
GROUND_REACH_M = 60.0
SUN_TILT_DEG, SUN_TURN_DEG = 54.0, -38.0  # from straight down; about Z: it shines from the front left
SUN_COLOR, SUN_STRENGTH = (1.0, 0.84, 0.66), 7.0
SUN_ANGLE_DEG = 0.8  # wider than the real half degree: the edges of its shadows are a little soft
SUN_SKY = (0.38, 0.55, 0.85)
SUN_SKY_STRENGTH = 0.4
NIGHT_SKY, NIGHT_STRENGTH = (0.10, 0.16, 0.34), 0.12
LAMP_COLOR, LAMP_RADIUS_M = (1.0, 0.56, 0.24), 0.03  # a bulb of about 2700 K
LAMP_WATTS = 16.0
LAMP_ABOVE_M = 1.2  # of the ground, for a scene without a lamp
GLOW = "lamp_glow"  # custom property of a scene: strength of the light that the lampshade gives off
GLOW_STRENGTH = 1.2
SKY_ELEVATION_DEG, SKY_TURN_DEG, SKY_STRENGTH = 12.0, 240.0, 0.3
SKY_MAP = 256  # pixels a side of the map by which the sky's light is sampled
SKY_TYPES = ("MULTIPLE_SCATTERING", "NISHITA", "HOSEK_WILKIE")  # the first that this Blender has


def add_ground(collection: Any) -> Any:
    """A square of Lambertian ground at z = 0."""
    mesh, reach = bpy.data.meshes.new("Ground"), GROUND_REACH_M
    mesh.from_pydata(
        [(-reach, -reach, 0), (reach, -reach, 0), (reach, reach, 0), (-reach, reach, 0)], [], [(0, 1, 2, 3)]
    )
    mesh.materials.append(diffuse("Ground", GROUND_ALBEDO))
    ground = bpy.data.objects.new("Ground", mesh)
    collection.objects.link(ground)
    return ground


def diffuse(name: str, albedo: tuple[float, float, float]) -> Any:
    """A material that is Lambertian and nothing else, of a linear albedo."""
    material = bpy.data.materials.new(name)
    nodes = node_tree(material).nodes
    nodes.clear()
    shader, output = nodes.new("ShaderNodeBsdfDiffuse"), nodes.new("ShaderNodeOutputMaterial")
    shader.inputs["Color"].default_value = (*albedo, 1.0)
    shader.inputs["Roughness"].default_value = 0.0
    material.node_tree.links.new(shader.outputs["BSDF"], output.inputs["Surface"])
    return material


def node_tree(datablock: Any) -> Any:
    """The nodes of a material or world, which Blender before 5.0 has to be asked for."""
    if bpy.app.version < (5, 0, 0):
        datablock.use_nodes = True
    return datablock.node_tree


def add_camera(collection: Any, view: dict[str, Any]) -> Any:
    """The camera of a `framing.View`."""
    data = bpy.data.cameras.new("Camera")
    data.sensor_fit, data.angle = "HORIZONTAL", math.radians(view["field_deg"])
    camera = bpy.data.objects.new("Camera", data)
    camera.location = view["position"]
    tilt, turn = math.radians(view["elevation_deg"]), math.radians(view["azimuth_deg"])
    camera.rotation_euler = (math.pi / 2 - tilt, 0.0, turn)
    collection.objects.link(camera)
    return camera


def add_lightings(shared: Any, camera: Any, lamp: tuple[Any, float], world: str) -> dict[str, Any]:
    """The scenes by lighting: sun, lamp (at night), sky. `shared`: collection of props, ground and camera.

    lamp: the prop, or None, and the share of its height above which its shade is. world: an equirectangular image in
    display sRGB that takes the place of the sky; "" for none.
    """
    scenes = {}
    for name in ("sun", "lamp", "sky"):
        scene = bpy.data.scenes.new(name)
        scene.collection.children.link(shared)
        scene.camera = camera
        scene.unit_settings.system = "METRIC"
        scenes[name] = scene
    _add_sun(scenes["sun"])
    _add_lamp(scenes["lamp"], *lamp)
    scenes["sky"].world = _image_world(world) if world else _sky()
    return scenes


def _add_sun(scene: Any) -> None:
    data = bpy.data.lights.new("Sun", "SUN")
    data.energy, data.angle, data.color = SUN_STRENGTH, math.radians(SUN_ANGLE_DEG), SUN_COLOR
    sun = bpy.data.objects.new("Sun", data)
    sun.rotation_euler = (math.radians(SUN_TILT_DEG), 0.0, math.radians(SUN_TURN_DEG))
    scene.collection.objects.link(sun)
    scene.world = _plain_world("Day", SUN_SKY, SUN_SKY_STRENGTH)


def _add_lamp(scene: Any, lamp: Any, shade_begins: float) -> None:
    """A bulb inside the lampshade, which it shines through: light linking takes the lamp off its shadows."""
    data = bpy.data.lights.new("Bulb", "POINT")
    data.energy, data.color, data.shadow_soft_size = LAMP_WATTS, LAMP_COLOR, LAMP_RADIUS_M
    bulb = bpy.data.objects.new("Bulb", data)
    scene.collection.objects.link(bulb)
    scene.world = _plain_world("Night", NIGHT_SKY, NIGHT_STRENGTH)
    if lamp is None:
        bulb.location = (0.0, 0.0, LAMP_ABOVE_M)
        return
    low, high = (limit([point[2] for point in lamp.bound_box]) for limit in (min, max))
    shade = low + (shade_begins + 1.0) / 2 * (high - low)
    bulb.location = lamp.matrix_world @ _center(lamp, shade)
    blockers = bpy.data.collections.new("Not in the bulb's shadows")
    blockers.objects.link(lamp)
    blockers.collection_objects[0].light_linking.link_state = "EXCLUDE"
    bulb.light_linking.blocker_collection = blockers
    _let_shade_glow(lamp, shade_begins)
    scene[GLOW] = GLOW_STRENGTH


def _center(lamp: Any, z: float) -> Any:
    middle = [sum(point[axis] for point in lamp.bound_box) / 8 for axis in range(2)]
    return type(lamp.location)((*middle, z))


def _let_shade_glow(lamp: Any, shade_begins: float) -> None:
    """Let the upper part of the lamp give off light of its albedo, as strong as the scene's property says (0: none)."""
    tree = lamp.data.materials[0].node_tree
    nodes, links = tree.nodes, tree.links
    principled = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
    coordinates, parts, above = (
        nodes.new(kind) for kind in ("ShaderNodeTexCoord", "ShaderNodeSeparateXYZ", "ShaderNodeMath")
    )
    strength, product = nodes.new("ShaderNodeAttribute"), nodes.new("ShaderNodeMath")
    strength.attribute_type, strength.attribute_name = "VIEW_LAYER", GLOW
    above.operation, above.inputs[1].default_value = "GREATER_THAN", shade_begins
    product.operation = "MULTIPLY"
    links.new(coordinates.outputs["Generated"], parts.inputs[0])
    links.new(parts.outputs["Z"], above.inputs[0])
    links.new(above.outputs[0], product.inputs[0])
    links.new(strength.outputs["Fac"], product.inputs[1])
    links.new(product.outputs[0], principled.inputs["Emission Strength"])
    links.new(principled.inputs["Base Color"].links[0].from_socket, principled.inputs["Emission Color"])
    for place, node in enumerate((coordinates, parts, above, strength, product)):
        node.location = (principled.location.x - 1000 + 180 * place, principled.location.y - 480)


def _plain_world(name: str, color: tuple[float, float, float], strength: float) -> Any:
    world = bpy.data.worlds.new(name)
    background = _background(world)
    background.inputs["Color"].default_value = (*color, 1.0)
    background.inputs["Strength"].default_value = strength
    return world


def _sky() -> Any:
    """A world of Blender's sky without the disc of the sun, which stands behind the camera at the right."""
    world = bpy.data.worlds.new("Sky")
    background = _background(world)
    sky = world.node_tree.nodes.new("ShaderNodeTexSky")
    known = [item.identifier for item in sky.bl_rna.properties["sky_type"].enum_items]
    sky.sky_type = next(kind for kind in SKY_TYPES if kind in known)
    if hasattr(sky, "sun_disc"):
        sky.sun_disc = False
        sky.sun_elevation, sky.sun_rotation = math.radians(SKY_ELEVATION_DEG), math.radians(SKY_TURN_DEG)
    sky.location = (background.location.x - 220, background.location.y)
    world.node_tree.links.new(sky.outputs["Color"], background.inputs["Color"])
    background.inputs["Strength"].default_value = SKY_STRENGTH
    _sample_coarsely(world)
    return world


def _image_world(path: str) -> Any:
    """A world of an image of all directions, which is packed into the file."""
    world = bpy.data.worlds.new("Learned background")
    background = _background(world)
    texture = world.node_tree.nodes.new("ShaderNodeTexEnvironment")
    texture.image = bpy.data.images.load(path)
    texture.image.colorspace_settings.name = "sRGB"
    texture.image.pack()
    texture.location = (background.location.x - 300, background.location.y)
    world.node_tree.links.new(texture.outputs["Color"], background.inputs["Color"])
    _sample_coarsely(world)
    return world


def _sample_coarsely(world: Any) -> None:
    """Sample light from a smooth world by a small map: by itself Cycles makes a large one, most of a small render."""
    world.cycles.sampling_method, world.cycles.sample_map_resolution = "MANUAL", SKY_MAP


def _background(world: Any) -> Any:
    nodes = node_tree(world).nodes
    found = next((node for node in nodes if node.type == "BACKGROUND"), None)
    if found is None:
        found, output = nodes.new("ShaderNodeBackground"), nodes.new("ShaderNodeOutputWorld")
        world.node_tree.links.new(found.outputs["Background"], output.inputs["Surface"])
    return found
