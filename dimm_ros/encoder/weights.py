"""Finding a DINOv2 encoder's weights: explicit path, user's cache, model hub, stand-in; each pinned by SHA-256."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import getproxies

from dimm_ros.config import EncoderConfig
from dimm_ros.encoder import stand_in
from dimm_ros.errors import WeightsError
from dimm_ros.whole_file import written_whole

log = logging.getLogger(__name__)

_HUB_PROBE_SECONDS = 4.0


@dataclass(frozen=True)
class Model:
    """A published encoder: its shape, and where and which its weights are.

    ``sha256`` is the digest of the hub's model.safetensors at ``revision``. Where it is None the hub's own declared
    digest at that immutable revision is the pin.
    """

    dim: int
    layers: int
    heads: int
    registers: int
    repository: str
    revision: str
    sha256: str | None = None


#: The encoders by the name that configuration and maps use.
MODELS = {
    "dinov2-small": Model(
        384,
        12,
        6,
        0,
        "facebook/dinov2-small",
        "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
    ),
    "dinov2-base": Model(768, 12, 12, 0, "facebook/dinov2-base", "f9e44c814b77203eaa57a6bdbbd535f21ede1415"),
    "dinov2-large": Model(
        1024,
        24,
        16,
        0,
        "facebook/dinov2-large",
        "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    ),
    "dinov2-small-registers": Model(
        384, 12, 6, 4, "facebook/dinov2-with-registers-small", "0d9846e56b43a21fa46d7f3f5070f0506a5795a9"
    ),
    "dinov2-base-registers": Model(
        768, 12, 12, 4, "facebook/dinov2-with-registers-base", "a1d738ccfa7ae170945f210395d99dde8adb1805"
    ),
    "dinov2-large-registers": Model(
        1024, 24, 16, 4, "facebook/dinov2-with-registers-large", "e4c89a4e05589de9b3e188688a303d0f3c04d0f3"
    ),
}


@dataclass(frozen=True)
class Weights:
    """A weight file that was found and whose digest was checked.

    Attributes:
        path: a safetensors file with transformers' published parameter names.
        sha256: its digest; a map refuses an encoder whose digest differs.
        origin: where it came from, for the log and the map's header.
    """

    path: Path
    sha256: str
    origin: str


def encoder_config(name: str, base: EncoderConfig) -> EncoderConfig:
    """``base`` for another encoder: the same input size, layers at the same relative depth.

    Raises:
        WeightsError: no such encoder.
    """
    ratio = _model(name).layers / _model(base.name).layers

    def scaled(layers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(round(layer * ratio) for layer in layers)

    return EncoderConfig(
        name=name, input_size=base.input_size, layers=scaled(base.layers), context_layers=scaled(base.context_layers)
    )


def _model(name: str) -> Model:
    if name not in MODELS:
        raise WeightsError(f"Encoder '{name}' is not known; choose one of {', '.join(MODELS)}.")
    return MODELS[name]


def cache_folder() -> Path:
    """Folder of downloaded weights: $DIMM_CACHE, else $XDG_CACHE_HOME/dimm_ros, else ~/.cache/dimm_ros."""
    explicit = os.environ.get("DIMM_CACHE")
    base = Path(explicit) if explicit else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dimm_ros"
    return base / "weights"


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find_weights(name: str, *, path: str | Path | None = None, sha256: str | None = None) -> Weights:
    """The weights of encoder ``name``.

    Args:
        name: a key of MODELS.
        path: an explicit safetensors file, used whatever else there is.
        sha256: the digest a map was trained with; only a file with this digest is accepted.

    Raises:
        WeightsError: nothing was found, or what was found has another digest; the sentence says what was tried.
    """
    model = _model(name)
    if path is not None:
        return _explicit(Path(path), sha256)
    tried: list[str] = []
    for source in (_from_cache, _from_hub, _from_stand_in):
        found = source(name, model, sha256, tried)
        if found is not None:
            # A map that asks for weights has said which, when it was made.
            log.log(logging.DEBUG if sha256 else logging.INFO, "encoder %s: %s", name, found.origin)
            return found
    needed = f" with SHA-256 {sha256[:12]}..., which the map was trained with," if sha256 else ""
    raise WeightsError(
        f"No weights of {name}{needed} were found ({'; '.join(tried)}): connect to the network and run 'dimm weights', "
        f"or give a model.safetensors of {model.repository} with --weights FILE."
    )


def _explicit(path: Path, sha256: str | None) -> Weights:
    if not path.is_file():
        raise WeightsError(f"The weight file {path} does not exist; check --weights.")
    digest = file_sha256(path)
    if sha256 and digest != sha256:
        raise WeightsError(
            f"The map was trained with encoder weights of SHA-256 {sha256[:12]}..., but {path.name} has "
            f"{digest[:12]}...; "
            "use the weights it was trained with, or train the map again."
        )
    log.info("encoder weights: %s (given explicitly, SHA-256 %s...)", path.name, digest[:12])
    return Weights(path, digest, f"explicit file {path.name}")


def _cached_files(name: str) -> tuple[Path, Path]:
    folder = cache_folder() / name
    return folder / "published.safetensors", folder / "stand-in.safetensors"


def _from_cache(name: str, model: Model, sha256: str | None, tried: list[str]) -> Weights | None:
    published, converted = _cached_files(name)
    pins = {published: model.sha256 or _recorded_digest(published), converted: stand_in.CONVERTED_SHA256}
    origins = {
        published: f"published weights of {model.repository} (cache)",
        converted: f"{stand_in.DESCRIPTION} (cache)",
    }
    for file, pin in pins.items():
        if not file.is_file() or (sha256 and pin != sha256):
            continue
        if file_sha256(file) == pin:
            return Weights(file, pin, origins[file])
        log.warning("%s in the cache is damaged (its SHA-256 is not the pinned one); it is fetched again", file.name)
    tried.append(f"cache {cache_folder()}: none")
    return None


def _recorded_digest(published: Path) -> str | None:
    record = published.with_suffix(".sha256")
    return record.read_text().strip() if record.is_file() else None


def _from_hub(name: str, model: Model, sha256: str | None, tried: list[str]) -> Weights | None:
    if sha256 and model.sha256 and sha256 != model.sha256:
        tried.append("model hub: its published weights are not the ones needed")
        return None
    if not _hub_reachable():
        tried.append("model hub: not reachable")
        return None
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        # For files in large-file storage the hub's ETag is their SHA-256.
        url = hf_hub_url(model.repository, "model.safetensors", revision=model.revision)
        declared = (get_hf_file_metadata(url).etag or "").strip('"')
        pin = model.sha256 or declared
        downloaded = Path(hf_hub_download(model.repository, "model.safetensors", revision=model.revision))
    except Exception as error:  # the hub client raises many kinds; each means: not from here
        tried.append(f"model hub: {type(error).__name__}")
        return None
    digest = file_sha256(downloaded)
    if digest != pin or (sha256 and digest != sha256):
        tried.append(f"model hub: its file has SHA-256 {digest[:12]}..., not the pinned {pin[:12]}...")
        return None
    published, _ = _cached_files(name)
    try:
        store(downloaded, published)
        published.with_suffix(".sha256").write_text(digest)
    except OSError as error:
        log.warning("the weights cannot be kept in the cache (%s)", error.strerror)
        published = downloaded
    return Weights(published, digest, f"published weights of {model.repository} (hub)")


def _hub_reachable() -> bool:
    """Whether the hub answers within seconds; the client's own retries would take minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return False
    from huggingface_hub.constants import ENDPOINT

    address = urlparse(ENDPOINT)
    if address.scheme in getproxies():
        return True  # only the proxy knows; the client's own error says so otherwise
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        with socket.create_connection((address.hostname, port), timeout=_HUB_PROBE_SECONDS):
            return True
    except OSError:
        return False


def _from_stand_in(name: str, model: Model, sha256: str | None, tried: list[str]) -> Weights | None:
    if name != stand_in.ENCODER or (sha256 and sha256 != stand_in.CONVERTED_SHA256):
        tried.append("stand-in: is not these weights")
        return None
    _, converted = _cached_files(name)
    try:
        with tempfile.TemporaryDirectory() as folder:
            store(stand_in.fetch(Path(folder)), converted)
    except (WeightsError, ImportError, OSError) as error:
        tried.append(f"stand-in: {error}")
        return None
    digest = file_sha256(converted)
    if digest != stand_in.CONVERTED_SHA256:
        converted.unlink()
        tried.append(
            f"stand-in: converted to SHA-256 {digest[:12]}..., not the pinned {stand_in.CONVERTED_SHA256[:12]}..."
        )
        return None
    return Weights(converted, digest, stand_in.DESCRIPTION)


def store(source: Path, target: Path) -> None:
    """Copy a file whole or not at all."""
    with written_whole(target) as partial:
        shutil.copyfile(source, partial)
