# SPDX-License-Identifier: GPL-3.0-or-later
"""`dreamwright models download` and `verify` as a user runs them, in processes of their own, against a hub on loopback."""

from __future__ import annotations

import ast
import errno
import fcntl
import hashlib
import json
import os
import pty
import shutil
import signal
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest
from huggingface_hub import close_session, constants

from dreamwright.backend.cli.main import main
from dreamwright.backend.download_progress import WatchedFile
from dreamwright.backend.registry import BY_NAME
from tests.fake_hub import FRIEND, STRANGER, FakeHub, Repository, command, environment, folder_files, refusing, run_command, safetensors_bytes
from tests.tiny_pipeline import write_pipeline

MB = 2**20
SD = [home.repo_id for home in BY_NAME["sd-1.5"].homes]
SD_COMMIT = BY_NAME["sd-1.5"].homes[0].revision or ""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A real pipeline in half and full precision, with what a repository has beside it and nobody needs."""
    files = folder_files(write_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline", domain=False))
    files["unet/diffusion_pytorch_model.fp16.safetensors"] = files["unet/diffusion_pytorch_model.safetensors"]
    clutter = ("README.md", "unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin", "model.ckpt", "vae_1_0/model.safetensors")
    return {**files, **{name: b"unneeded" for name in clutter}, "unet/diffusion_pytorch_model.non_ema.safetensors": b"unneeded"}


@pytest.fixture
def big(tiny: dict[str, bytes]) -> dict[str, bytes]:
    """The same with a U-Net and a text encoder of some megabytes."""
    large = {"unet/diffusion_pytorch_model.fp16.safetensors": safetensors_bytes(6 * MB), "text_encoder/model.safetensors": safetensors_bytes(2 * MB, 1)}
    return {**tiny, **large}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    yield hub
    hub.close()


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return dict(environment(hub.url, home))


def says(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    """The command refused with exit code 2 and one line that has these texts, and no traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("dreamwright: error:")]
    assert done.returncode == 2 and len(errors) == 1 and "Traceback" not in done.stderr, (done.returncode, done.stdout, done.stderr)
    assert done.stderr.splitlines()[-1] == errors[0]
    for text in texts:
        assert text in errors[0], (text, errors[0])


@pytest.fixture
def here(hub, env, monkeypatch, capsys) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """The command line in this process, which is quicker: for refusals that depend on nothing but what the hub answers."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(Path(env["HF_HOME"]) / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(Path(env["HF_HOME"]) / "token"))
    monkeypatch.setenv("DREAMWRIGHT_MODELS", env["DREAMWRIGHT_MODELS"])
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = main(arguments)
        out, errors = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, out, errors)

    yield call
    close_session()


def models_folder(env: dict[str, str]) -> Path:
    return Path(env["DREAMWRIGHT_MODELS"])


def stop_in_the_middle(hub: FakeHub, env: dict[str, str], name: str, how: int = signal.SIGKILL) -> tuple[int, int, str]:
    """End a download of `big` within its U-Net's weights; returns exit code, bytes of contents that were kept, and stderr."""
    hub.hold_after = 5 * MB
    process = subprocess.Popen(
        command("models", "download", name), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background has it ignored
    )  # fmt: skip
    assert hub.held.wait(60)
    folder = models_folder(env) / name.replace("/", "--")
    deadline = time.monotonic() + 30
    while not any(part.stat().st_size >= MB for part in (folder / ".dreamwright" / "parts").glob("*")):  # what is sent may not be read yet
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    kept = sum(len(content) for path, content in folder_files(folder).items() if not path.startswith(".dreamwright") or "/parts/" in path)
    return process.returncode, kept, errors


def test_a_download_brings_the_needed_files_alone_and_says_who_served_them(hub, env, tiny, tmp_path):
    hub.repositories["tiny/props"] = Repository(tiny)
    done = run_command(env, "models", "download", "tiny/props")
    assert done.returncode == 0, done.stderr
    folder = models_folder(env) / "tiny--props"
    assert "served by tiny/props, revision " + "c" * 40 in done.stdout and str(folder) in done.stdout
    there = {name: content for name, content in folder_files(folder).items() if not name.startswith(".dreamwright")}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in there and "unet/diffusion_pytorch_model.safetensors" not in there
    assert not [name for name in there if name.endswith((".bin", ".ckpt", ".md")) or "non_ema" in name or "vae" in name]
    assert there == {name: tiny[name] for name in there} and sorted(hub.fetched()) == sorted(there)
    hub.reset()
    again = run_command(env, "models", "download", "tiny/props")
    assert again.returncode == 0 and "here already" in again.stdout and hub.requests == []
    verified = run_command(refusing(env, tmp_path / "refuse"), "models", "verify", "tiny/props")
    assert verified.returncode == 0 and f"is sound: {len(there)} files" in verified.stdout and "all with their hash" in verified.stdout
    assert not (tmp_path / "refuse" / "sockets.log").exists()


def test_a_killed_download_goes_on_where_it_stopped(hub, env, big):
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    code, kept, _ = stop_in_the_middle(hub, env, "sd-1.5")
    assert code == -signal.SIGKILL and kept > 3 * MB
    assert "half downloaded" in run_command(env, "models").stdout
    says(run_command(env, "models", "verify", "sd-1.5"), "`dreamwright models download sd-1.5`")
    hub.reset()
    done = run_command(env, "models", "download", "sd-1.5")
    assert done.returncode == 0, done.stderr
    whole = sum(file["size"] for file in json.loads((models_folder(env) / "sd-1.5/.dreamwright/download.json").read_text())["files"])
    assert hub.served == whole - kept, "not a byte that was kept comes twice"
    assert any(asked for method, _, asked in hub.requests if method == "GET"), "a range was asked for"
    assert run_command(env, "models", "verify", "sd-1.5").returncode == 0
    folder = models_folder(env) / "sd-1.5"
    assert not (folder / ".dreamwright" / "parts").exists()
    assert hashlib.sha256((folder / "unet/diffusion_pytorch_model.fp16.safetensors").read_bytes()).digest() == hashlib.sha256(
        big["unet/diffusion_pytorch_model.fp16.safetensors"]
    ).digest()


def test_ctrl_c_says_that_the_same_command_goes_on(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    code, _, errors = stop_in_the_middle(hub, env, "tiny/props", signal.SIGINT)
    assert code == 130 and "goes on from here" in errors and "Traceback" not in errors


def test_a_server_that_ignores_ranges_still_gives_a_sound_model(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    stop_in_the_middle(hub, env, "tiny/props")
    hub.reset()
    hub.ranges = False
    assert run_command(env, "models", "download", "tiny/props").returncode == 0
    assert run_command(env, "models", "verify", "tiny/props").returncode == 0


def test_a_mirror_serves_where_the_first_home_is_gone_and_is_named(hub, env, here, tiny):
    hub.repositories[SD[1]] = Repository(tiny)
    done = here("models", "download", "sd-1.5")
    assert done.returncode == 0, done.stderr
    assert f"served by {SD[1]}, a mirror, since {SD[0]} could not" in done.stdout and "no expected revision" in done.stdout
    assert f"{SD[0]} is not on" in done.stderr


def test_a_home_without_the_expected_revision_or_with_a_broken_file_is_passed_over(hub, env, here, tiny):
    hub.repositories[SD[0]] = Repository(tiny, "d" * 40)
    hub.repositories[SD[1]] = Repository(tiny, broken={"text_encoder/config.json"})
    hub.repositories[SD[2]] = Repository(tiny)
    done = here("models", "download", "sd-1.5")
    assert done.returncode == 0 and f"served by {SD[2]}" in done.stdout
    assert f"has no revision '{SD_COMMIT}'" in done.stderr and "answered 500" in done.stderr
    shutil.rmtree(models_folder(env))
    del hub.repositories[SD[1]], hub.repositories[SD[2]]
    says(here("models", "download", "sd-1.5"), f"{SD[0]} has no revision", f"{SD[1]} is not on", "--revision main")
    chosen = here("models", "download", "sd-1.5", "--revision", "main")
    assert chosen.returncode == 0 and f"served by {SD[0]}, revision {'d' * 40}" in chosen.stdout


def test_a_mirror_ends_what_a_vanished_home_began(hub, env, big):
    hub.repositories[SD[0]] = Repository(big, SD_COMMIT)
    stop_in_the_middle(hub, env, "sd-1.5")
    hub.reset()
    del hub.repositories[SD[0]]
    hub.repositories[SD[1]] = Repository(big)
    done = run_command(env, "models", "download", "sd-1.5")
    assert done.returncode == 0 and f"served by {SD[1]}" in done.stdout and hub.served < 6 * MB
    assert run_command(env, "models", "verify", "sd-1.5").returncode == 0


def test_a_gated_model_says_where_to_accept_its_licence_and_comes_with_the_right_token(hub, env, tiny):
    model = BY_NAME["deepfloyd-if-m"]
    repo_id = model.homes[0].repo_id
    hub.repositories[repo_id] = Repository(tiny, gated=True)
    advice = (f"{repo_id} is gated", f"{hub.url}/{repo_id}", "`hf auth login`")
    says(run_command(env, "models", "download", model.name), *advice, "no token is stored")
    assert not models_folder(env).exists() or not any(models_folder(env).iterdir()), "nothing was begun"
    says(run_command({**env, "HF_TOKEN": STRANGER}, "models", "download", model.name), *advice, "has not accepted it")
    assert hub.fetched() and set(hub.fetched()) <= {"model_index.json"} or not hub.fetched()
    done = run_command({**env, "HF_TOKEN": FRIEND}, "models", "download", model.name)
    assert done.returncode == 0 and FRIEND not in done.stdout + done.stderr, done.stderr
    assert f"here: {models_folder(env) / model.name}" in run_command(env, "models").stdout


@pytest.mark.parametrize(
    ("files", "texts"),
    [
        (None, ("someone/thing is not on", "check the name")),
        ({"pytorch_lora_weights.safetensors": b""}, ("is a LoRA (pytorch_lora_weights.safetensors)",)),
        ({"model-Q4.gguf": b""}, ("holds GGUF weights (model-Q4.gguf)",)),
        ({"dreamy_v2.safetensors": b"", "README.md": b""}, ("is a checkpoint in a single file (dreamy_v2.safetensors)",)),
        ({"README.md": b""}, ("has no model_index.json",)),
        ({"model_index.json": b'{"_class_name": "FluxPipeline"}'}, ("is a FluxPipeline; allowed are IFPipeline, StableDiffusionPipeline",)),
        ({"model_index.json": b"{"}, ("model_index.json that cannot be read",)),
        ("pickled", ("only pickled weights of its unet (diffusion_pytorch_model.bin)", ".safetensors")),
        ("shard", ("no weights of its unet",)),
    ],
)
def test_what_is_no_supported_pipeline_is_refused_before_its_weights_are_fetched(hub, env, here, tiny, files, texts):
    if isinstance(files, str):
        kept = {name: content for name, content in tiny.items() if not name.endswith(".safetensors") or name.startswith("text_encoder")}
        if files == "shard":
            del kept["unet/diffusion_pytorch_model.bin"]
            kept["unet/diffusion_pytorch_model-00001-of-00002.safetensors"] = b"half of it"
        files = kept
    if files is not None:
        hub.repositories["someone/thing"] = Repository(files)
    says(here("models", "download", "someone/thing"), "someone/thing", *texts)
    assert set(hub.fetched()) <= {"model_index.json"}
    assert not models_folder(env).exists() or not any(models_folder(env).iterdir())


def test_a_name_that_is_none_is_refused_with_the_known_ones(hub, env, here):
    says(here("models", "download", "sdx"), "unknown model 'sdx'", "sdxl", "owner/name")
    assert hub.requests == []


def test_a_full_disk_is_told_before_any_weight_is_fetched(hub, env, here, tiny, tmp_path):
    weights = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.repositories["tiny/props"] = Repository(tiny, sizes={weights: 10**18})
    says(here("models", "download", "tiny/props", "--to", str(tmp_path / "d")), "GB free", "1000000000.", "another disk with --to")
    assert hub.fetched() == ["model_index.json"]


def test_a_disk_that_fills_up_on_the_way_keeps_what_came(hub, env, here, big, monkeypatch):
    hub.repositories["tiny/props"] = Repository(big)
    write, written = WatchedFile.write, []

    def until_full(self: WatchedFile, data: bytes) -> int:
        written.append(len(data))
        if sum(written) > 5 * MB:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(WatchedFile, "write", until_full)
    says(here("models", "download", "tiny/props"), "is full; free some space", "goes on from here")
    monkeypatch.undo()
    hub.reset()
    assert run_command(env, "models", "download", "tiny/props").returncode == 0 and hub.served < 5 * MB


def test_no_network_and_offline_mode_are_told_in_one_line(hub, env, tiny):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        says(run_command({**env, "HF_ENDPOINT": url}, "models", "download", "sdxl"), f"cannot reach {url}", "check the network")
    hub.repositories["tiny/props"] = Repository(tiny)
    says(run_command({**env, "HF_HUB_OFFLINE": "1"}, "models", "download", "tiny/props"), "HF_HUB_OFFLINE is set; unset it")
    assert hub.requests == []


def test_a_file_damaged_on_its_way_never_gets_into_the_model(hub, env, here, tiny):
    weights = "unet/diffusion_pytorch_model.fp16.safetensors"
    hub.repositories["tiny/props"] = Repository(tiny, spoiled={weights})
    says(here("models", "download", "tiny/props"), weights, "damaged on its way")
    assert not (models_folder(env) / "tiny--props" / weights).exists()
    hub.repositories["tiny/props"] = Repository(tiny)
    hub.reset()
    assert here("models", "download", "tiny/props").returncode == 0 and hub.fetched() == [weights]


def test_verify_names_what_is_damaged_or_missing_and_download_fetches_just_that(hub, env, tiny, tmp_path):
    folder = tmp_path / "elsewhere" / "props"
    hub.repositories["tiny/props"] = Repository(tiny)
    assert run_command(env, "models", "download", "tiny/props", "--to", str(folder)).returncode == 0
    weights, gone = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", folder / "tokenizer" / "tokenizer.json"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    gone.unlink()
    cut = folder / "text_encoder" / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-7])
    hub.reset()
    refused = refusing(env, tmp_path / "refuse")
    done = run_command(refused, "models", "verify", str(folder))
    says(done, "3 faults", f"`dreamwright models download tiny/props --to {folder}`")
    assert "unet/diffusion_pytorch_model.fp16.safetensors: differs from the hub's" in done.stdout
    assert "tokenizer/tokenizer.json: is missing" in done.stdout and "text_encoder/model.safetensors: is cut off" in done.stdout
    assert not Path(refused["SOCKET_LOG"]).exists()
    mended = run_command(env, "models", "download", "tiny/props", "--to", str(folder))
    assert mended.returncode == 0 and len(hub.fetched()) == 3, mended.stderr
    assert run_command(refused, "models", "verify", "tiny/props").returncode == 0, "a model in a folder of the user's choice has its name still"
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert "all with their hash" in run_command(refused, "models", "verify", str(copy)).stdout, "hashes travel with a copy"


def test_a_folder_with_other_things_or_another_model_is_left_alone(hub, env, here, tiny, tmp_path):
    hub.repositories["tiny/props"] = hub.repositories["tiny/other"] = Repository(tiny)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "novel.txt").write_text("draft")
    says(here("models", "download", "tiny/props", "--to", str(mine)), "holds other files")
    assert [path.name for path in mine.iterdir()] == ["novel.txt"]
    assert here("models", "download", "tiny/props", "--to", str(tmp_path / "props")).returncode == 0
    says(here("models", "download", "tiny/other", "--to", str(tmp_path / "props")), "holds tiny/props")


def test_another_revision_replaces_the_old_files(hub, env, here, tiny):
    hub.repositories["tiny/props"] = Repository(tiny)
    assert here("models", "download", "tiny/props").returncode == 0
    fresh = {name: content for name, content in tiny.items() if ".fp16." not in name}
    hub.repositories["tiny/props"] = Repository(fresh, "e" * 40)
    hub.reset()
    done = here("models", "download", "tiny/props", "--revision", "e" * 40)
    assert done.returncode == 0, done.stderr
    folder = models_folder(env) / "tiny--props"
    assert [file.name for file in (folder / "unet").glob("*.safetensors")] == ["diffusion_pytorch_model.safetensors"]
    assert hub.fetched() == ["unet/diffusion_pytorch_model.safetensors"], "what is the same is kept"


def test_two_downloads_into_one_folder_do_not_meet(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    hub.hold_after = 5 * MB
    first = subprocess.Popen(command("models", "download", "tiny/props"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert hub.held.wait(60)
        says(run_command(env, "models", "download", "tiny/props"), "another download is writing to")
    finally:
        first.kill()
        first.wait()


def test_the_bar_shows_bytes_rate_and_time_left(hub, env, big):
    hub.repositories["tiny/props"] = Repository(big)
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(command("models", "download", "tiny/props"), env=env, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while block := os.read(master, 65536):
            shown += block
    except OSError:
        pass  # Linux ends a terminal whose last process is gone with an error
    os.close(master)
    assert process.wait(60) == 0
    assert b"tiny/props:" in shown and b"100%" in shown and b"B/s" in shown and b"<" in shown


def test_the_token_goes_to_the_hub_and_not_to_where_its_large_files_lie(hub, here, tiny, monkeypatch):
    store = FakeHub()
    try:
        hub.repositories["tiny/props"] = store.repositories["tiny/props"] = Repository(tiny)
        hub.store = store
        monkeypatch.setenv("HF_TOKEN", FRIEND)
        assert here("models", "download", "tiny/props").returncode == 0
        assert sorted(store.fetched()) == ["text_encoder/model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"]
        assert f"Bearer {FRIEND}" in hub.tokens and set(store.tokens) == {""}
    finally:
        store.close()


@pytest.mark.slow
def test_a_model_runs_by_its_name_with_every_socket_refused(hub, env, tiny, tmp_path):
    """A whole run, its processes included, with the hub within reach and offline mode not asked for."""
    hub.repositories["tiny/props"] = Repository(tiny)
    assert run_command(env, "models", "download", "tiny/props").returncode == 0
    hub.reset()
    refused = refusing(env, tmp_path / "refuse")
    small = (
        "run.steps=1", "guidance.view_dependent=false", "render.resolution=8", "render.samples=8", "render.occupancy_resolution=8",
        "field.voxel_resolutions=6", "mesh.resolution=16",
    )  # fmt: skip
    settings = [part for setting in small for part in ("--set", setting)]
    asked = ("a red mushroom", "--model", "tiny/props")
    run = run_command(refused, "generate", *asked, "--out", str(tmp_path / "m.glb"), "--device", "cpu", *settings, cwd=tmp_path)
    assert run.returncode in (0, 1) and "Traceback" not in run.stderr and "1/1" in run.stderr + run.stdout, run.stderr
    absent = run_command(refused, "sample", "a red mushroom", "--model", "nobody/nothing", "--out", str(tmp_path / "x.png"))
    says(absent, "models download nobody/nothing")
    assert run_command(refused, "models").returncode == 0
    assert run_command(refused, "doctor").returncode == 0
    log = Path(refused["SOCKET_LOG"])
    assert hub.requests == [] and not log.exists(), log.read_text() if log.exists() else hub.requests


def test_the_socket_that_refuses_would_be_noticed(hub, env, tiny, tmp_path):
    hub.repositories["tiny/props"] = Repository(tiny)
    refused = refusing(env, tmp_path / "refuse")
    says(run_command(refused, "models", "download", "tiny/props"), "cannot reach")
    assert Path(refused["SOCKET_LOG"]).read_text() and hub.requests == []


def test_only_the_download_module_can_use_the_hub():
    """No other module of the backend or of what is shared imports a way to the web."""
    root = Path(__file__).resolve().parents[1]
    webs = ("requests", "urllib.request", "urllib3", "httpx", "httpx2", "http.client", "aiohttp", "hf_xet")
    harmless = {"constants"}  # of huggingface_hub
    found = set()
    for path in [*(root / "backend").rglob("*.py"), *(root / "shared").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                module, names = node.module or "", {alias.name for alias in node.names}
                if module in webs or (module.split(".")[0] == "huggingface_hub" and not (module == "huggingface_hub" and names <= harmless)):
                    found.add(path.relative_to(root).as_posix())
            elif isinstance(node, ast.Import) and any(alias.name in webs or alias.name.startswith("huggingface_hub") for alias in node.names):
                found.add(path.relative_to(root).as_posix())
    assert found == {"backend/downloads.py"}


def test_the_record_is_plain_json_with_sizes_and_hashes(hub, env, here, tiny):
    hub.repositories["tiny/props"] = Repository(tiny)
    assert here("models", "download", "tiny/props").returncode == 0
    record = json.loads((models_folder(env) / "tiny--props" / ".dreamwright" / "download.json").read_text())
    assert record["repo_id"] == "tiny/props" and record["revision"] == "c" * 40 and record["asked"] == "main" and record["complete"]
    for file in record["files"]:
        assert file["size"] == len(tiny[file["path"]]) and (file["sha256"] == hashlib.sha256(tiny[file["path"]]).hexdigest() or file["git_sha1"])
