# SPDX-License-Identifier: GPL-3.0-or-later
"""nerfacc's CUDA source for grid traversal, compiled for the CPU as plain C++ with a few definitions.

This tests the GPU path against nerfacc on machines without a GPU.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import nerfacc
import torch
from nerfacc.data_specs import RaySamples
from torch import Tensor

SOURCE = Path(nerfacc.__file__).parent / "cuda" / "csrc"
EMPTY_HEADERS = (
    "torch/extension.h",
    "ATen/NumericUtils.h",
    "ATen/cuda/CUDAContext.h",
    "ATen/cuda/CUDAGeneratorImpl.h",
    "ATen/cuda/CUDAGraphsUtils.cuh",
    "c10/util/MaybeOwned.h",
    "curand.h",
    "curand_kernel.h",
    "curand_philox4x32_x.h",
    "cuda_runtime.h",
    "include/utils_cuda.cuh",
)
SHIM = """
#include <math.h>
#include <stdint.h>
#include <algorithm>
#include <tuple>
using std::min; using std::max;
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define __CUDACC__
#define __global__
#define __device__
#define __host__
struct Index { int x, y, z; };
static Index blockIdx{0, 0, 0}, threadIdx{0, 0, 0}, blockDim{1, 1, 1}, gridDim{1, 1, 1};
#define VECTORS(T, S) struct T##2 { S x, y; }; struct T##3 { S x, y, z; }; struct T##4 { S x, y, z, w; }; \\
  inline T##2 make_##T##2(S x, S y) { return {x, y}; } inline T##3 make_##T##3(S x, S y, S z) { return {x, y, z}; } \\
  inline T##4 make_##T##4(S x, S y, S z, S w) { return {x, y, z, w}; }
VECTORS(float, float) VECTORS(int, int) VECTORS(uint, unsigned int)
struct Column {  // as much of a tensor as the kernel's constructor looks at
  void* data = nullptr; int64_t size_ = 0;
  bool defined() const { return data; }
  int dim() const { return 1; }
  int64_t numel() const { return size_; }
  int64_t size(int) const { return size_; }
  template <typename T> T* data_ptr() const { return static_cast<T*>(data); }
};
struct RaySegmentsSpec { Column vals, chunk_starts, chunk_cnts, ray_indices, is_left, is_right, is_valid; };
namespace torch { using Tensor = Column; }
"""
CALL = """
extern "C" void traverse(int rays, float* origins, float* directions, int n, bool* cells, float* box, bool* hits,
                         float* t_sorted, int64_t* t_indices, float* near_planes, float* far_planes, float step,
                         bool first, int64_t total, int64_t* starts, int64_t* counts, float* vals,
                         int64_t* ray_indices, bool* valid) {
  RaySegmentsSpec none, samples;
  samples.chunk_cnts = {counts, rays}; samples.chunk_starts = {starts, rays};
  samples.vals = {vals, total}; samples.ray_indices = {ray_indices, total}; samples.is_valid = {valid, total};
  device::traverse_grids_kernel(rays, origins, directions, nullptr, 1, make_int3(n, n, n), cells, box, hits, t_sorted,
                                t_indices, near_planes, far_planes, step, 0.0f, -1, first,
                                device::PackedRaySegmentsSpec(none), device::PackedRaySegmentsSpec(samples), nullptr);
}
"""


def compiler() -> str | None:
    """A C++ compiler, None where there is none."""
    return shutil.which("g++") or shutil.which("clang++")


class HostKernel:
    """Replaces `nerfacc.grid.traverse_grids` for one grid with tensors on the CPU."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(SOURCE / "include", folder / "include")
        for name in EMPTY_HEADERS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("#pragma once\n")
        (folder / "include" / "data_spec.hpp").write_text("#pragma once\n")
        kernels = (
            (SOURCE / "grid.cu").read_text().partition("std::tuple<RaySegmentsSpec")[0]
        )  # what follows launches them
        (folder / "grid.cpp").write_text(SHIM + kernels + CALL)
        library = folder / "grid.so"
        command = [
            compiler(),
            "-O1",
            "-w",
            "-shared",
            "-fPIC",
            f"-I{folder}",
            "-o",
            str(library),
            str(folder / "grid.cpp"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:2000]
        self._traverse = ctypes.CDLL(str(library)).traverse

    def __call__(
        self,
        origins: Tensor,
        directions: Tensor,
        cells: Tensor,
        box: Tensor,
        near_planes: Tensor,
        far_planes: Tensor,
        step_size: float,
    ) -> tuple[None, RaySamples, None]:
        rays = len(origins)
        t_min, t_max, hits = nerfacc.grid._ray_aabb_intersect(origins, directions, box)
        t_sorted, t_indices = torch.sort(torch.cat([t_min, t_max], dim=-1), dim=-1)
        inputs = [
            t.contiguous()
            for t in (origins, directions, cells, box, hits, t_sorted, t_indices, near_planes, far_planes)
        ]
        counts = torch.zeros(rays, dtype=torch.int64)

        def call(first: bool, total: int, starts: Tensor, vals: Tensor, ray: Tensor, valid: Tensor) -> None:
            o, d, c, b, h, s, i, n, f = (ctypes.c_void_p(t.data_ptr()) for t in inputs)
            outputs = (ctypes.c_void_p(t.data_ptr()) for t in (starts, counts, vals, ray, valid))
            self._traverse(
                rays,
                o,
                d,
                cells.shape[1],
                c,
                b,
                h,
                s,
                i,
                n,
                f,
                ctypes.c_float(step_size),
                ctypes.c_bool(first),
                ctypes.c_int64(total),
                *outputs,
            )

        spare = torch.zeros(1, dtype=torch.int64)
        call(True, 0, spare, spare, spare, spare)
        total = int(counts.sum())
        vals, ray, valid = (
            torch.zeros(total),
            torch.zeros(total, dtype=torch.int64),
            torch.zeros(total, dtype=torch.bool),
        )
        call(False, total, torch.cumsum(counts, 0) - counts, vals, ray, valid)
        assert bool(valid.all())
        return None, RaySamples(vals=vals, ray_indices=ray), None
