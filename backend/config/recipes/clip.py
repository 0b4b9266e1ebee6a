# SPDX-License-Identifier: GPL-3.0-or-later
"""Recipes of CLIP's guidance: Dream Fields and CLIP-Mesh, as published and for the packaged CLIP."""

from __future__ import annotations

from dataclasses import replace

from ..schema import (
    CameraConfig,
    ClipConfig,
    Config,
    GuidanceConfig,
    OptimizerConfig,
    RefineConfig,
    RegularizerConfig,
    RenderConfig,
    RunConfig,
    ShadingConfig,
    SphereConfig,
    SurfaceConfig,
)
from .recipe import Recipe
from .starter import DRAFT

# Dream Fields as the paper re-implements it: CLIP's loss, its augmentations and its transmittance regularizer on the
# voxel field, albedo only and without view words. "DF" marks numbers of Dream Fields' published code (config_base.py,
# config_hq.py and augment.py of google-research/dreamfields). The defaults of `ClipConfig` and the share of the
# annealing are DF's as well. Not taken over: tracking of the scene's center of mass, and bounding content to a cube.
DREAM_FIELDS_CAMERAS = CameraConfig(
    elevation_min=30.0,  # DF: phi_range
    elevation_max=30.0,
    distance_min=2.0,  # DF: 4, of a cube with edges of 2; ours are half as long
    distance_max=2.0,
    framing="focal",
    focal_min=1.2 * 1111.1111 / 800,  # DF: focal_mult_range of the intrinsics of NeRF's Blender scenes
    focal_max=1.2 * 1111.1111 / 800,
    look_at_std=0.0,
    up_std=0.0,
    position_offset=0.0,
)
DREAM_FIELDS_GUIDANCE = GuidanceConfig(view_dependent=False)  # DF: query_template, one prompt for all views
DREAM_FIELDS_REGULARIZERS = RegularizerConfig(
    orientation_start=0.0,
    orientation_end=0.0,
    opacity_start=0.0,
    opacity_end=0.0,
    transmittance=0.5,  # DF: acc_lam
    target_opacity_start=1.2 * 0.5,  # DF: acc_target0 and acc_target1, times the factor of its focal length
    target_opacity_end=1.2 * 0.1,
)

DREAM_FIELDS_PAPER = Config(
    run=RunConfig(method="dream-fields", steps=10000, views_per_step=1),  # DF: iters; one pose a step
    camera=DREAM_FIELDS_CAMERAS,
    shading=ShadingConfig(albedo_only_share=1.0),
    render=RenderConfig(resolution=252, samples=192),  # DF: render_width (hq), num_samples
    guidance=DREAM_FIELDS_GUIDANCE,
    regularizers=DREAM_FIELDS_REGULARIZERS,
    optimizer=OptimizerConfig(
        kind="adam",
        learning_rate=1e-4,  # DF: lr1, kept to the end
        final_rate=1e-4,  # DF: lr2
        warmup_start=1e-5,  # DF: lr0, its ramp is exponential and ours linear
        warmup_share=1500 / 10000,  # DF: lr_i_split
        beta1=0.9,
        beta2=0.999,
        epsilon=1e-5,  # DF: adam_eps
    ),
)

DREAM_FIELDS = replace(
    DRAFT,
    run=RunConfig(method="dream-fields", steps=500, views_per_step=1, checkpoint_interval=100, preview_interval=25),
    optimizer=replace(DRAFT.optimizer, learning_rate=0.05),
    surface=SurfaceConfig(),
    camera=DREAM_FIELDS_CAMERAS,
    shading=ShadingConfig(albedo_only_share=1.0),
    # DF's ratio of render_width to crop_width for a model of 64 pixels; coarse views as in draft.
    render=replace(DRAFT.render, resolution=72, coarse_resolution=36),
    guidance=DREAM_FIELDS_GUIDANCE,
    regularizers=replace(
        DREAM_FIELDS_REGULARIZERS,
        target_opacity_end=0.25,  # mean of the starter's 16 props from these cameras, which cover 0.15 to 0.41
        smoothness=1e-3,  # draft's, since the loss is a few thousand times smaller than a summed SDS gradient
    ),
)

# A sphere for the starter's CLIP: the numbers were tried on four props (docs/results/methods.md).
CLIP_MESH = Config(
    run=RunConfig(method="clip-mesh", steps=400, views_per_step=8, checkpoint_interval=50, preview_interval=20),
    camera=replace(DRAFT.camera, elevation_min=0.0, elevation_max=50.0),
    shading=ShadingConfig(
        albedo_only_share=0.0,
        shaded_probability=0.8,
        textureless_probability=0.3,  # at 0.5 shapes grow no better, and colors come late
        ambient=0.2,
        ambient_max=0.55,
    ),
    render=RenderConfig(resolution=72),  # as dream-fields
    guidance=GuidanceConfig(view_dependent=False),
    clip=ClipConfig(crops=1),  # more views instead
    refine=RefineConfig(
        strength=1.0,
        reach=1.0,  # twice the prop's radius, so nothing is out of reach
        color_stiffness=3.0,  # at 1, colors are finer than the model's pixels
        position_rate=0.025,  # at 0.03, with half of the weights below, parts grow through each other
        color_rate=0.03,
        laplacian=0.05,  # all weights against a loss between -1 and 1
        edges=0.02,
        normals=0.05,
        crease=180.0,
        supersampling=1,
    ),
    sphere=SphereConfig(laplacian_end=0.005, outside=10.0),
)

# CLIP-Mesh. "CM" marks numbers of its published configuration (configs/paper.yml of NasirKhalid24/CLIP-Mesh), whose
# sphere has radius 1; ours has half of that. Left out: its diffusion prior of image embeddings, and its texture and
# normal maps.
CLIP_MESH_PAPER = Config(
    run=RunConfig(method="clip-mesh", steps=5000, views_per_step=25),  # CM: epochs, batch_size
    camera=CameraConfig(
        elevation_min=0.0,
        elevation_max=30.0,  # CM: 90 degrees times Beta(1, 5), whose mean is 15 degrees as well
        uniform_angle_share=1.0,
        distance_min=2.5,
        distance_max=6.0,  # CM: dist_min 5, dist_max 12
        focal_min=0.5,  # CM: fov_max 90 degrees
        focal_max=1.866,  # CM: fov_min 30 degrees
        look_at_std=0.577,  # CM: aug_loc, uniform in -2 .. 2, which has this deviation in our units
        up_std=0.0,
        position_offset=0.0,
    ),
    shading=ShadingConfig(
        albedo_only_share=0.0,
        shaded_probability=1.0,  # CM: bsdf diffuse
        textureless_probability=0.5,  # CM: half of the views, for shape_imgs_frac of the steps
    ),
    render=RenderConfig(resolution=512),  # CM: train_res
    guidance=GuidanceConfig(view_dependent=False),  # CM: text_prompt as it is
    clip=ClipConfig(crops=1, crop_share=1.0),  # CM: whole images, each before one random background
    refine=RefineConfig(
        strength=1.0,
        reach=1.0,
        # Spreads a push over 4 edges: one edge of CM's control mesh of 1,280 faces, whose limit surface it renders.
        stiffness=16.0,
        position_rate=0.005,  # CM: lr 0.01, in units of its radius; to a tenth in 5,000 steps, as ours
        color_rate=0.01,  # CM: lr
        laplacian=3.1,  # CM: laplacian_weight 30 on the control mesh, the same penalty of a smooth displacement
        edges=0.0,
        crease=180.0,
        supersampling=1,
    ),
    sphere=SphereConfig(
        subdivisions=5,  # 10,242 vertices, for colors at about the pixels of a view; CM has a texture of 512
        radius=0.5,  # CM: unit
        textureless_share=0.5,  # CM: shape_imgs_frac
        laplacian_end=0.062,  # CM: laplacian_min 0.6, as above
        laplacian_share=0.31,  # CM's decay is a Gaussian of the step; linear here, with the same half
    ),
)

RECIPES = (
    Recipe(
        "clip",
        "dream-fields",
        "CLIP guides instead of diffusion: Dream Fields' loss on draft's field, minutes on a CPU",
        DREAM_FIELDS,
        "Dream Fields (Jain et al. 2022), for the packaged CLIP",
    ),
    Recipe(
        "clip",
        "dream-fields-paper",
        "Dream Fields' published numbers on the paper's field: 10,000 steps of 252 pixels",
        DREAM_FIELDS_PAPER,
        "Dream Fields (Jain et al. 2022)",
    ),
    Recipe(
        "clip",
        "clip-mesh",
        "CLIP guides a sphere's vertices and colors: minutes on a CPU",
        CLIP_MESH,
        "CLIP-Mesh (Khalid et al. 2022), for the packaged CLIP",
    ),
    Recipe(
        "clip",
        "clip-mesh-paper",
        "CLIP-Mesh's published numbers, as far as they fit a mesh with vertex colors: 5,000 steps of 25 views",
        CLIP_MESH_PAPER,
        "CLIP-Mesh (Khalid et al. 2022)",
    ),
)
