# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pair by which the command line is known to servers; Blender has its own."""

from __future__ import annotations

from pathlib import Path

from dreamwright.shared.credentials import KeyPair, load_or_create_key_pair
from dreamwright.shared.private_files import PrivateFileError

from ..errors import ConfigError


def client_folder() -> Path:
    """Folder of this user's key pair."""
    import platformdirs

    return Path(platformdirs.user_data_dir("dreamwright", False)) / "client"


def client_key_pair(folder: Path | None = None) -> KeyPair:
    """This user's key pair, created at the first call in a file that only the user can read. Raises ConfigError."""
    path = (folder or client_folder()) / "keys" / "own.json"
    try:
        return load_or_create_key_pair(path)
    except PrivateFileError as error:
        raise ConfigError(str(error)) from error
    except ValueError as error:
        raise ConfigError(
            f"your key in {path} is damaged ({error}); delete that file to get a new one, and have it allowed again"
        ) from error
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"your key cannot be kept in {path.parent}: {error}; make the folder writable") from error
