"""Several maps at once: an image is localized in the one that it shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dimm_ros.config import AcceptanceConfig, EncoderConfig, SolverConfig
from dimm_ros.encoder.dinov2 import Encoder, Tokens, choose_device
from dimm_ros.errors import MapError
from dimm_ros.geometry.camera import Camera
from dimm_ros.localizer import Estimate, Localizer
from dimm_ros.scene_map import SceneMap

#: What 'dimm map' calls its files, and may be left out where a map is named.
SUFFIX = ".dimm"


def find_map(entry: str, folder: str | Path = "") -> Path:
    """The file that a name or path means.

    Args:
        entry: a path, "~" for the home folder; or a name, to which ``.dimm`` may be missing.
        folder: what a relative path or a name is relative to; empty is the working directory.

    Raises:
        MapError: there is no such file, or it cannot be read.
    """
    try:
        path = Path(folder).expanduser() / Path(entry).expanduser()
        for candidate in (path, path.with_name(path.name + SUFFIX)):
            if candidate.is_file():
                return candidate.resolve()
        if path.is_dir():
            raise MapError(f"The map {path.resolve()} is a folder; name the file that 'dimm map' wrote.")
        raise MapError(
            f"The map {path.resolve()} does not exist; correct the path, or make the map with 'dimm map BAG_OR_FOLDER "
            f"-o {path.name}'."
        )
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: no home folder; ValueError: no name
        raise MapError(f"The map '{entry}' cannot be looked for ({error}); correct its path.") from error


class SharedEncoder:
    """An encoder that answers the same input a second time from memory: one forward serves all maps made with it.

    Args:
        encoder: the encoder; everything but ``encode`` is its own.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._answered: list[tuple[Tensor, Tokens]] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._encoder, name)

    def encode(self, images: Tensor) -> Tokens:
        """As ``Encoder.encode``."""
        for known, tokens in self._answered:
            if known.shape == images.shape and torch.equal(known, images):
                return tokens
        tokens = self._encoder.encode(images)
        self._answered.append((images, tokens))
        return tokens

    def forget(self) -> None:
        """Drop the inputs and their tokens: those to come are others."""
        self._answered.clear()


#: Encoders by what a map's header asks for.
Encoders = dict[tuple[EncoderConfig, str], SharedEncoder]


def open_map(
    entry: str,
    *,
    folder: str | Path = "",
    device: str = "auto",
    weights: str | Path | None = None,
    solver: SolverConfig | None = None,
    acceptance: AcceptanceConfig | None = None,
    encoders: Encoders | None = None,
    **backend: str,
) -> Localizer:
    """As ``Localizer.open``, for a name or path (see ``find_map``); an encoder that is among ``encoders`` is not loaded
    again.

    Raises:
        MapError, WeightsError, InputError: as ``find_map`` and ``Localizer.open``.
    """
    if backend.get("backend", "torch") != "torch":  # a network of its own for each map
        return Localizer.open(
            find_map(entry, folder), device=device, weights=weights, solver=solver, acceptance=acceptance, **backend
        )
    encoders = {} if encoders is None else encoders
    scene_map = SceneMap.load(find_map(entry, folder), choose_device(device))
    header = scene_map.header
    key = header.encoder, header.encoder_sha256
    if key not in encoders:
        encoders[key] = SharedEncoder(
            Encoder.open(header.encoder, device=device, weights=weights, sha256=header.encoder_sha256)
        )
    return Localizer(scene_map, encoders[key], solver, acceptance).with_warning()


class Atlas:
    """Maps that are loaded together; one of them is current.

    Args:
        localizers: one for each map, with different names.
        entries: what each was called when it was opened.
        encoders: the encoders that they share.

    Attributes:
        localizers: one for each map.
        current: the one that images are localized in first.
    """

    def __init__(
        self, localizers: Sequence[Localizer], entries: Sequence[str] = (), encoders: Encoders | None = None
    ) -> None:
        names = [localizer.name for localizer in localizers]
        if not names:
            raise MapError("No map is given; name a file that 'dimm map' wrote.")
        for name in names:
            if names.count(name) > 1:
                raise MapError(f"Two of the maps are called '{name}'; build one of them again with another --name.")
        self.localizers, self.current = tuple(localizers), localizers[0]
        self._entries, self.encoders = tuple(entries) or tuple(names), {} if encoders is None else encoders

    @classmethod
    def open(
        cls,
        entries: Sequence[str],
        *,
        start: str = "",
        opener: Callable[..., Localizer] = open_map,
        encoders: Encoders | None = None,
        **options,
    ) -> Atlas:
        """Load maps.

        Args:
            entries: names or paths, see ``find_map``.
            start: the current one, by its name or entry; a map that is not among the entries is loaded, too.
            opener: called as ``open_map``.
            encoders: loaded before; those that no map needs any more are left out of the atlas.
            options: of ``open_map``.

        Raises:
            MapError, WeightsError: one of the maps cannot be used.
        """
        encoders = dict(encoders or {})
        opened = [opener(entry, encoders=encoders, **options) for entry in entries]
        entries = list(entries)
        if start and start not in entries and start not in [localizer.name for localizer in opened]:
            opened.insert(0, opener(start, encoders=encoders, **options))
            entries.insert(0, start)
        used = {id(getattr(localizer, "encoder", None)) for localizer in opened}
        atlas = cls(opened, entries, {key: encoder for key, encoder in encoders.items() if id(encoder) in used})
        if start:
            atlas.select(start)
        return atlas

    @property
    def names(self) -> tuple[str, ...]:
        """The maps' names."""
        return tuple(localizer.name for localizer in self.localizers)

    def select(self, name: str) -> bool:
        """Make the map of a name or entry the current one; returns whether there is one."""
        for localizer, entry in zip(self.localizers, self._entries, strict=True):
            if name in (localizer.name, entry):
                self.current = localizer
                return True
        return False

    def set_rules(self, solver: SolverConfig, acceptance: AcceptanceConfig) -> None:
        """Give all maps other thresholds."""
        for localizer in self.localizers:
            localizer.solver, localizer.acceptance = solver, acceptance

    def warm_up(self, camera: Camera) -> None:
        """As ``Localizer.warm_up``, for all maps."""
        for localizer in self.localizers:
            localizer.warm_up(camera)

    def localize(
        self, estimate: Callable[[Localizer], Estimate], *, search: bool = False
    ) -> tuple[Localizer, Estimate]:
        """The map that images show, and the pose in it.

        The current map is asked first and, where it accepts, alone: two maps of places that look alike do not take
        turns. Otherwise the others are asked as well, and the one with the most landmarks is taken, or the largest
        share of rays where none has any. The current map does not change; see ``select``.

        Args:
            estimate: called with a localizer, such as ``lambda localizer: localizer.localize(image, camera)``.
            search: ask all maps at once, since nothing is known of where the camera is.

        Returns:
            The localizer and its estimate, the current map's when none accepts; the estimate has the time of all.
        """
        try:
            first = estimate(self.current)
            if len(self.localizers) == 1 or (first.accepted and not search):
                return self.current, first
            answers = [
                (self.current, first),
                *((other, estimate(other)) for other in self.localizers if other is not self.current),
            ]
        finally:
            for encoder in self.encoders.values():
                encoder.forget()
        accepted = [answer for answer in answers if answer[1].accepted]
        if accepted:
            localizer, best = max(accepted, key=lambda answer: (answer[1].landmarks, answer[1].inlier_ratio))
        else:
            localizer, best = (
                self.current,
                replace(first, reason=f"{first.reason} No other of the {len(answers)} maps accepts it."),
            )
        spent = [answer.stage_ms for _, answer in answers]
        return localizer, replace(
            best, stage_ms={stage: sum(ms.get(stage, 0.0) for ms in spent) for stage in first.stage_ms}
        )
