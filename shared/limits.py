# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes and times of the protocol. Both sides enforce them; the server reports them in its capabilities."""

from __future__ import annotations

PROTOCOL_VERSION = 8  # sides of different versions refuse each other with a message

REQUEST_BYTES = 64 * 1024  # of a message from a client
REPLY_BYTES = 8 * 1024 * 1024  # of a message from the server
ENCRYPTION_OVERHEAD_BYTES = 64  # at most, per frame; CurveZMQ adds 33 bytes
CHUNK_BYTES = 256 * 1024  # of one chunk of a download
CHUNKS_IN_FLIGHT = 10  # requested ahead by a client: 2.5 MB, credit-based as in the ZeroMQ guide
PREVIEWS_IN_FLIGHT = 2  # unacknowledged preview frames per client
PREVIEW_PIXELS = 4 * 1024 * 1024  # of one preview frame
LIVE_MESHES_IN_FLIGHT = 2  # unacknowledged live meshes per client
LIVE_MESH_TRIANGLES, LIVE_MESH_VERTICES = 10_000, 30_000  # of one live mesh; no corner is shared at worst
LIVE_MESH_BYTES = 384 * 1024  # of its compressed data: 330 kB unpacked, and what zlib adds where nothing compresses
FILE_BYTES = 1024**3  # of a download
MESH_VERTICES, MESH_FACES = 200_000, 400_000  # of an uploaded mesh; a step on a CPU takes many seconds with more
UPLOAD_BYTES = 12 * 1024 * 1024  # of its file: 36 bytes per vertex, 12 per face, and half a megabyte for the rest
UPLOAD_PIECE_BYTES = 60 * 1024  # of one chunk of it, so that the request stays within REQUEST_BYTES
UPLOAD_PIECES_IN_FLIGHT = 4  # sent ahead by a client: 240 kB, which 1 Mbit/s carries within the time-out
TEXTURE_SMALLEST, TEXTURE_LARGEST = 64, 4096  # texels per side of a mesh's texture
TRIANGLES_SMALLEST, TRIANGLES_LARGEST = 16, 5_000_000  # triangle budget of a finished mesh
HEIGHT_M_SMALLEST, HEIGHT_M_LARGEST = 0.001, 10_000.0  # height of a finished prop, meters

PROMPT_CHARACTERS = 1000
SETTINGS = 200  # settings in one request
NAME_CHARACTERS = 200  # a model, preset or setting name, or a path as a model
VALUE_CHARACTERS = 1000  # a textual setting value
MESSAGE_CHARACTERS = 4000  # an error or a warning
JOBS_LISTED = 500  # jobs in one reply
MODELS = 100  # models that a server describes
JOB_CHARACTERS = 40  # a job id
GROUP_CHARACTERS = 40  # the id of a group of jobs, made by the client
TICKET_CHARACTERS = 64  # a ticket, or the id of a client installation
OWNER_CHARACTERS = 200  # a user's name
SEED_LARGEST = 2**31 - 1  # of a job
VARIATIONS_LARGEST = 16  # jobs of one group: a contact sheet of 4 x 4
PRIORITY_LOWEST, PRIORITY_HIGHEST = -10, 10  # of a job; 0 is the default, only admins may set more

HEARTBEAT_S = 1.0  # an idle client greets the server this often
HEARTBEAT_LIVENESS = 4  # missed heartbeats after which the other side counts as gone
REQUEST_TIMEOUT_S = 5.0  # before a request is sent again
REQUEST_ATTEMPTS = 3  # before the request fails with RequestTimeout
LARGEST = 2**53  # of any counter: exact as a double in any language
