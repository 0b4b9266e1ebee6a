# SPDX-License-Identifier: GPL-3.0-or-later
"""The largest of everything that may cross the wire. Both sides enforce them; the server states them."""

from __future__ import annotations

PROTOCOL_VERSION = 5  # differs: the two sides do not talk, and say so

REQUEST_BYTES = 64 * 1024  # a message from a client, which only ever asks
REPLY_BYTES = 8 * 1024 * 1024  # a message from the server
ENCRYPTION_OVERHEAD_BYTES = 64  # that a frame grows by, at most, when it is encrypted: 33 by CurveZMQ
CHUNK_BYTES = 256 * 1024  # of one piece of a fetched file
CHUNKS_IN_FLIGHT = 10  # pieces that a client asks for ahead: 2.5 MB, as the ZeroMQ guide advises
PREVIEWS_IN_FLIGHT = 2  # unseen preview pictures that the server keeps on the way to one client
PREVIEW_PIXELS = 4 * 1024 * 1024  # of one preview picture
FILE_BYTES = 1024**3  # of a fetched file
MESH_VERTICES, MESH_FACES = (
    200_000,
    400_000,
)  # of a mesh that is sent to be refined; with more, a step on a CPU takes many seconds
UPLOAD_BYTES = (
    12 * 1024 * 1024
)  # of such a mesh's file: 36 bytes a vertex and 12 a face are 12.0 million, and half a megabyte for the rest
UPLOAD_PIECE_BYTES = 60 * 1024  # of one piece of it: a request, with what is around it
UPLOAD_PIECES_IN_FLIGHT = 4  # pieces that a client sends ahead: 240 kB, which 1 Mbit/s carries within the time-out
TEXTURE_SMALLEST, TEXTURE_LARGEST = 64, 4096  # texels a side of a mesh's picture

PROMPT_CHARACTERS = 1000
SETTINGS = 200  # settings in one request
NAME_CHARACTERS = 200  # a model, preset or setting name, or a path as a model
VALUE_CHARACTERS = 1000  # a setting's value as text
MESSAGE_CHARACTERS = 4000  # an error's or a warning's text
JOBS_LISTED = 500  # jobs in one reply
JOB_CHARACTERS = 40  # a job's name
TICKET_CHARACTERS = 64  # a ticket, or the name of an installation of the client
OWNER_CHARACTERS = 200  # a user's name
SEED_LARGEST = 2**31 - 1  # of a job
PRIORITY_LOWEST, PRIORITY_HIGHEST = -10, 10  # of a job; 0 is usual, more than 0 is an admin's to give

HEARTBEAT_S = 1.0  # a client with nothing else to say greets this often
HEARTBEAT_LIVENESS = 4  # missed signs of life after which the other side counts as gone
REQUEST_TIMEOUT_S = 5.0  # before a request is sent again
REQUEST_ATTEMPTS = 3  # sendings before it is given up
LARGEST = 2**53  # of any counter: exact in every language's double
