# SPDX-License-Identifier: GPL-3.0-or-later
"""Every number a run depends on: one frozen dataclass per part, one line per field with its default, unit and reason.

The defaults are the paper's (Poole et al. 2022, section 3 and appendix A.2); `presets.py` says where other presets
differ. Lengths are in scene units (the prop fits a sphere of radius 0.5), angles in degrees, times `t` in [0, 1],
"share" means a share of the run's steps in [0, 1], colors are display sRGB in [0, 1].
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CameraConfig:
    elevation_min: float = -10.0  # degrees; a little below the horizon, so that undersides are seen
    elevation_max: float = 90.0  # degrees
    uniform_angle_share: float = 0.5  # probability of sampling elevation uniformly in angle, else uniformly in area
    distance_min: float = 1.0  # scene units from the origin
    distance_max: float = 1.5  # scene units from the origin
    framing: Literal["focal", "fill"] = (
        "focal"  # "fill": focal follows distance so that a radius-0.5 prop fills that share
    )
    focal_min: float = 0.7  # focal length as a multiple of the image width (framing "focal")
    focal_max: float = 1.35  # focal length as a multiple of the image width (framing "focal")
    fill_min: float = 0.55  # share of the image width that a radius-0.5 sphere covers (framing "fill")
    fill_max: float = 0.9  # share of the image width that a radius-0.5 sphere covers (framing "fill")
    look_at_std: float = 0.4472135954999579  # scene units; sqrt(.2): the paper's N(0, .2 I) read as a covariance
    up_std: float = 0.1414213562373095  # sqrt(.02): the paper's N(0, .02 I) read as a covariance
    position_offset: float = 0.1  # scene units; uniform in (-offset, offset) on each axis
    stratified_azimuth: bool = False  # True: the views of one step are spread evenly around the object


@dataclass(frozen=True)
class LightConfig:
    direction_std: float = 1.0  # light direction ~ N(camera position, std^2 I), so it is usually on the camera's side
    distance_min: float = 0.8  # scene units, norm of the light position
    distance_max: float = 1.5  # scene units, norm of the light position


@dataclass(frozen=True)
class ShadingConfig:
    albedo_only_share: float = 1000 / 15000  # share of the run that is ambient-only (l_a = 1, l_rho = 0)
    shaded_probability: float = 0.75  # afterwards, probability of diffuse shading
    textureless_probability: float = 0.5  # when shaded, probability of rho = 1
    ambient: float = 0.1  # l_a when shaded
    ambient_max: float = 0.1  # above `ambient`: l_a is uniform between them and l_rho = 1 - l_a
    diffuse: float = 0.9  # l_rho when shaded


@dataclass(frozen=True)
class FieldConfig:
    kind: Literal["mip-mlp", "voxels"] = (
        "mip-mlp"  # "mip-mlp": the paper's; "voxels": multi-resolution grids, fast on a CPU
    )
    bounding_radius: float = 1.4  # scene units; the field is queried inside this sphere only
    density_activation: Literal["exp", "softplus"] = "exp"  # raw tau -> density
    density_bias: Literal["gaussian", "linear"] = "gaussian"  # "gaussian": eq 9; "linear": scale * (1 - r / width)
    density_bias_scale: float = 5.0  # lambda_tau
    density_bias_width: float = 0.2  # sigma_tau, scene units
    density_bias_fade_share: float = 0.0  # share of the run over which the bias fades to zero; 0: never fades
    encoding_levels: int = 8  # L: frequencies 2^0 .. 2^(L-1) (mip-mlp)
    covariance_start: float = 5e-2  # lambda_Sigma at the start (eq 8; mip-mlp)
    covariance_end: float = 2e-3  # lambda_Sigma once annealed
    covariance_share: float = 5000 / 15000  # share of the run over which lambda_Sigma anneals linearly
    hidden_width: int = 128  # units of each ResNet block (mip-mlp)
    hidden_blocks: int = 5  # ResNet blocks (mip-mlp)
    voxel_resolutions: tuple[int, ...] = (16, 32, 64)  # cells a side of each summed grid (voxels)
    density_scale: float = 1.0  # multiplies the activated density (voxels: a prop is opaque within a few cells)


@dataclass(frozen=True)
class BackgroundConfig:
    kind: Literal["mlp", "constant"] = (
        "mlp"  # "mlp": second MLP on the encoded ray direction; "constant": one learned color
    )
    encoding_levels: int = 4  # frequencies of the ray direction's encoding
    hidden_width: int = 64  # units of its hidden layers
    random_probability: float = (
        0.0  # share of views on a random plain color, so that field and background cannot collude
    )
    random_kind: Literal["color", "grey"] = "color"  # what that color is: any, or a grey
    random_min: float = 0.0  # smallest channel or grey level of it, display sRGB
    random_max: float = 1.0  # largest
    random_any_share: float = (
        0.0  # share of those that are any color at all instead: before greys alone, grey parts are lost
    )


@dataclass(frozen=True)
class RenderConfig:
    resolution: int = 64  # pixels a side of a training view
    coarse_resolution: int = 0  # of the first views, enlarged before they are judged; 0, or no fewer: none are
    coarse_share: float = 0.5  # share of the run with coarse views: its high noise hides what they lack
    samples: int = 128  # samples a ray
    stratified: bool = True  # jitter the samples inside their bins while training
    occupancy_resolution: int = 0  # cells a side of the occupancy grid that masks samples; 0: no masking
    occupancy_threshold: float = 0.01  # alpha of one sample step below which a cell counts as empty
    occupancy_interval: int = 8  # steps between updates of the occupancy grid
    early_stop_transmittance: float = 1e-3  # samples behind this transmittance get no color lookup
    marching: Literal["auto", "dense", "nerfacc"] = (
        "auto"  # "nerfacc": its CUDA kernels; "auto": those where they run, else dense
    )


@dataclass(frozen=True)
class GuidanceConfig:
    omega: float = 100.0  # eps = (1 + omega) eps_c - omega eps_u; diffusers' guidance_scale is 1 + omega
    t_min: float = 0.02  # lowest diffusion time
    t_max: float = 0.98  # highest diffusion time at the start
    t_max_end: float = 0.98  # highest diffusion time at the end; lower anneals it linearly over the whole run
    weighting: Literal["sigma2", "uniform"] = "sigma2"  # w(t) = sigma_t^2 or 1
    view_dependent: bool = True  # append "front view" and so on by camera
    overhead_elevation: float = 60.0  # degrees above which the view is "overhead view"
    view_words: Literal["four", "eight", "sixteen"] = (
        "four"  # front, side, back, overhead; "front left view"; "front left overhead view"
    )
    textureless_words: str = ""  # appended to the prompt of textureless renders (models trained with such captions)
    negative_prompt: str = ""  # the "unconditional" prompt
    opposite_weight: float = (
        0.0  # of the prompt with `prompts.opposite_words` as a perpendicular negative (Perp-Neg); 0: none
    )
    gradient_clip: float = 0.0  # largest norm of one view's image gradient; 0: no clipping


@dataclass(frozen=True)
class ClipConfig:
    """Numbers of Dream Fields (Jain et al. 2022), as its published code sets them; of use to CLIP guidance only."""

    crops: int = 8  # random crops a view, each before a background of its own
    crop_share: float = 224 / 252  # side of a crop, as a share of the view's
    backgrounds: bool = True  # noise, checkerboards and Fourier textures behind the crops; False: white


@dataclass(frozen=True)
class ModelConfig:
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = (
        "auto"  # of the network; "auto": float16 on a GPU, else float32
    )
    image_size: int = 0  # pixels a side that a latent model is shown; 0: its own; smaller is faster and sees less
    compile: Literal["off", "default", "reduce-overhead"] = (
        "off"  # torch.compile of the network; the last with CUDA graphs; minutes at the start
    )
    channels_last: bool = (
        False  # images in memory pixel by pixel, which a GPU's half-precision convolutions like (models with a U-Net)
    )
    attention_slicing: bool = False  # attention head by head: less memory, slower (models with a U-Net)
    vae_tiling: bool = False  # the VAE works on overlapping tiles: less memory, faint differences at their seams
    offload: Literal["off", "blocks", "leaves"] = (
        "off"  # the network waits in main memory and visits the GPU block by block, or layer by layer: slower
    )
    vae_recompute: bool = (
        False  # the VAE encoder's activations are computed again on the way back, view by view: less memory, slower
    )


@dataclass(frozen=True)
class TextConfig:
    process: Literal["auto", "own", "same"] = (
        "auto"  # where text encoders run; "auto": in a process of their own from 500 MB on
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"  # "auto": the run's, or the CPU where they do not fit there
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = (
        "auto"  # "auto": the network's on its device, float32 on the CPU
    )
    cache: bool = True  # keep embeddings in the user's cache folder: a prompt known there needs no encoder


@dataclass(frozen=True)
class RegularizerConfig:
    orientation_start: float = 1e-4  # weight of eq 10 at the start
    orientation_end: float = 1e-2  # weight of eq 10 once annealed
    orientation_share: float = 5000 / 15000  # share of the run over which it anneals linearly
    opacity_start: float = 1e-3  # weight of sqrt((sum w)^2 + .01) at the start
    opacity_end: float = 1e-3  # weight at the end
    opacity_share: float = 5000 / 15000  # share of the run over which it anneals linearly
    entropy_end: float = 0.0  # weight of the binary entropy of each ray's opacity, ramped over the second half
    smoothness: float = 0.0  # weight of the field's own smoothness penalty (voxels: total variation)
    transmittance: float = (
        0.0  # weight of Dream Fields' -min(1 - target opacity, mean transmittance) of a view; theirs is 0.5
    )
    target_opacity_start: float = (
        0.5  # mean opacity of a view beneath which it pushes no further; at the start, in Dream Fields
    )
    target_opacity_end: float = 0.1  # once annealed, the same
    target_opacity_share: float = 500 / 10000  # share of the run over which it anneals exponentially, the same


@dataclass(frozen=True)
class OptimizerConfig:
    kind: Literal["shampoo", "adam"] = "shampoo"  # Distributed Shampoo as in the paper, or Adam
    learning_rate: float = 1e-4  # peak learning rate of the field
    color_rate_multiplier: float = 1.0  # the voxel field's albedo grids learn at learning_rate times this
    background_rate_multiplier: float = 1.0  # the background learns at learning_rate times this
    warmup_start: float = 1e-9  # learning rate at step 0, as an absolute number
    warmup_share: float = 3000 / 15000  # share of the run with linear warm-up
    final_rate: float = 1e-6  # learning rate at the end of the cosine decay, as an absolute number
    beta1: float = 0.9  # first-moment decay
    beta2: float = 0.9  # second-moment decay
    epsilon: float = 1e-6  # Shampoo's or Adam's epsilon
    block_size: int = 128  # Shampoo's block size
    exponent_override: int = 2  # Shampoo's inverse-root override


@dataclass(frozen=True)
class MeshConfig:
    resolution: int = 128  # marching-cubes cells a side
    triangles: int = 20000  # triangle budget after decimation
    threshold: float = 0.0  # density of the surface; 0: chosen from the rendered opacity
    closing: float = 0.0  # scene units; pits and cracks narrower than twice this are filled; 0: none are
    smoothing: int = 0  # rounds of Taubin's filter on the decimated mesh, which take lumps of a few edges' length
    texture: int = 0  # texels a side of the albedo picture, 64 to 4096; 0: vertex colors
    height_m: float = 1.0  # metres, the exported prop's real height


@dataclass(frozen=True)
class RefineConfig:  # of `dreamwright refine`, in scene units after the mesh was scaled to radius 0.5, and of clip-mesh's sphere
    strength: float = (
        0.5  # 0: nothing changes; bounds and rates below are multiplied by it, and the noise's range grows with it
    )
    positions: bool = True  # move the vertices
    colors: bool = True  # change the vertices' colors
    reach: float = 0.25  # scene units that a vertex may move at strength 1
    color_reach: float = 1.0  # by which a channel (display sRGB) may change at strength 1
    stiffness: float = (
        20.0  # lambda of x = (I + lambda L)^-1 u: over how many edges, about its root, a push on a vertex spreads
    )
    color_stiffness: float = 1.0  # the same of colors
    position_rate: float = 0.012  # scene units a step at strength 1, at the start
    color_rate: float = 0.12  # display sRGB a step at strength 1, at the start
    laplacian: float = (
        300.0  # weight of how far a vertex moves away from its neighbors' mean move, in squared edge lengths
    )
    edges: float = 300.0  # weight of the squared relative change of the edges' lengths
    crease: float = 45.0  # degrees between faces above which their edge is shaded sharp
    supersampling: int = 2  # samples a side of each pixel


@dataclass(frozen=True)
class SphereConfig:  # of clip-mesh alone, which begins from a sphere; `refine` above says how its vertices move
    subdivisions: int = 4  # of an icosahedron: 10 * 4^n + 2 vertices, so 2,562
    radius: float = 0.35  # scene units, at the start
    patchiness: float = 0.25  # deviation of the random colors at the start, display sRGB; 0: grey, which a model may take for clay and leave
    patch_stiffness: float = 10.0  # over how many edges, about its root, these colors are smoothed
    clay_share: float = 0.5  # share of the run in which views may be textureless; all show colors afterwards
    laplacian_end: float = (
        1.0  # what refine.laplacian goes to: stiff at first, so that the whole moves before its parts
    )
    laplacian_share: float = 0.5  # share of the run over which it goes there
    normals: float = 0.0  # weight of 1 - cos between the normals of neighboring faces
    outside: float = (
        0.0  # weight of the mean squared distance of vertices outside of radius 0.5, which the cameras frame
    )


@dataclass(frozen=True)
class RunConfig:
    method: Literal["dreamfusion", "dream-fields", "clip-mesh"] = (
        "dreamfusion"  # what guides what: a diffusion model's score a field, CLIP's cosine a field, or a mesh
    )
    steps: int = 15000  # optimization steps
    views_per_step: int = 4  # cameras a step
    seed: int = 0  # of the field, the cameras, the lights and the noise
    checkpoint_interval: int = 500  # steps between checkpoints
    preview_interval: int = 100  # steps between preview pictures
    max_restarts: int = 2  # restarts from another seed when a run goes empty or diverges
    threads: int = 0  # CPU threads; 0: torch's own choice
    views_at_once: int = (
        0  # of a step's views, rendered and judged together; 0: all; fewer take less memory and give the same step
    )
    refine_share: float = (
        0.5  # share of the schedules that a run skips which begins from another run's field: less keeps less of it
    )
    ignore_memory: bool = False  # start even when the estimate says that it cannot fit


@dataclass(frozen=True)
class Config:
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    camera: CameraConfig = dataclasses.field(default_factory=CameraConfig)
    light: LightConfig = dataclasses.field(default_factory=LightConfig)
    shading: ShadingConfig = dataclasses.field(default_factory=ShadingConfig)
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    background: BackgroundConfig = dataclasses.field(default_factory=BackgroundConfig)
    render: RenderConfig = dataclasses.field(default_factory=RenderConfig)
    guidance: GuidanceConfig = dataclasses.field(default_factory=GuidanceConfig)
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    text: TextConfig = dataclasses.field(default_factory=TextConfig)
    regularizers: RegularizerConfig = dataclasses.field(default_factory=RegularizerConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    sphere: SphereConfig = dataclasses.field(default_factory=SphereConfig)
