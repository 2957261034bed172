"""Findings from the epipolar test: pose convention, time offset, focal length, extrinsics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dimm_ros.data.recording import Recording
from dimm_ros.doctor.diagnosis import MIN_CLIPS, MIN_PAIRS, Diagnosis, Fault, diagnose
from dimm_ros.doctor.epipolar import EpipolarTest
from dimm_ros.doctor.findings import Finding, ok, problem, unknown, warning
from dimm_ros.doctor.matching import Matches, match_recording
from dimm_ros.geometry.poses import rotation_angle_deg

_CHECKS = ("pose convention", "time of images and poses", "focal length")
_SLIGHT_FOCAL = 0.06  # a smaller error of the focal length is a warning
_ROUGH_PX = 4.0  # at 640 pixels width: poses that fit worse are worth a warning
_TURNS_DEG, _FORWARD = 3.0, 0.9  # what counts as turning, and as moving along the optical axis


@dataclass(frozen=True)
class Geometry:
    """Findings, and the diagnosis behind them where the images allowed one."""

    findings: list[Finding]
    diagnosis: Diagnosis | None


def check_geometry(recording: Recording, progress: Callable[[int, int], object] | None = None) -> Geometry:
    """Match features and judge poses and focal length by them.

    Args:
        recording: all of its frames have poses.
        progress: called with clips of frames done and in all.
    """
    matches = match_recording(recording.frames, progress=progress)
    if len(matches) < MIN_PAIRS or len(np.unique(matches.clip)) < MIN_CLIPS:
        return Geometry(_too_few(matches), None)
    test = EpipolarTest(recording, matches)
    diagnosis = diagnose(test)
    return Geometry(findings_of(diagnosis, test), diagnosis)


def _too_few(matches: Matches) -> list[Finding]:
    if matches.tried < MIN_PAIRS:
        what = f"only {matches.tried} pairs of images with enough features in common"
        cause = "images that are dark, blurred or without texture, or frames that show different places"
        cure = "record slowly, in good light; at least 20 images of one place"
    else:
        what = f"only {len(matches)} of {matches.tried} matched image pairs show parallax"
        cause = "the camera stands still or only turns, so the images say nothing about positions and focal length"
        cure = "move the camera sideways while recording"
    return [unknown(check, f"cannot tell: {what}", cause, cure) for check in _CHECKS]


def findings_of(diagnosis: Diagnosis, test: EpipolarTest) -> list[Finding]:
    """A diagnosis in words."""
    scale = max(0.3, test.image_size / 640)
    faults = {fault.family: fault for fault in diagnosis.faults}
    figures = {"given_px": diagnosis.given_px, "final_px": diagnosis.final_px, "floor_px": diagnosis.floor_px, "pairs": len(test.matches)}
    if not faults and diagnosis.final_px > 2 * _ROUGH_PX * scale and diagnosis.final_px > 8 * diagnosis.floor_px:
        return [_unexplained(diagnosis, figures)] + [
            unknown(check, "cannot tell: the poses do not fit the images at all", "see pose convention", "", **figures) for check in _CHECKS[1:]
        ]
    weak = _why_weak(test)
    result = [_convention(diagnosis, faults.get("convention"), weak, figures), _time(diagnosis, faults.get("time"), test, weak),
              _focal(diagnosis, faults.get("focal"), weak)]
    if "turn" in faults:
        result.append(_turn(faults["turn"]))
    if diagnosis.final_px > _ROUGH_PX * scale and diagnosis.final_px > 5 * diagnosis.floor_px:
        result.append(warning(
            "fit of the poses", f"epipolar error {diagnosis.final_px:.1f} px, though the features themselves agree to {diagnosis.floor_px:.1f} px",
            "drifting or jumpy poses, a rolling shutter, uneven delays, or a lens that the distortion model does not describe",
            "expect errors of that size; a better SLAM, calibration or synchronisation would help", **figures,
        ))
    return result


def _unexplained(diagnosis: Diagnosis, figures: dict) -> Finding:
    return problem(
        _CHECKS[0], f"the poses do not fit the images: epipolar error {diagnosis.given_px:.0f} px (features agree to {diagnosis.floor_px:.1f} px), "
        "and no usual mistake explains it", "poses of another recording, in another order, of another body, or very wrong intrinsics",
        "compare a few poses with the images by hand; check which file belongs to which", **figures,
    )


def _convention(diagnosis: Diagnosis, fault: Fault | None, weak: str, figures: dict) -> Finding:
    check = _CHECKS[0]
    if fault is not None:
        one = fault.state.convention
        also = f", or {' or '.join(name for name in diagnosis.ambiguous if name != 'as given')}" if diagnosis.ambiguous else ""
        return problem(
            check, f"{one.name}{also}: the images fit so, epipolar error {fault.error_px:.1f} px instead of {diagnosis.given_px:.1f} px",
            "the poses were exported in another convention than world_from_camera with optical axes (x right, y down, z forward)", one.cure,
            **figures,
        )
    if diagnosis.ambiguous:
        return unknown(check, f"cannot tell from: {', '.join(diagnosis.ambiguous)}", weak, "turn the camera about all axes while moving sideways",
            **figures)
    return ok(
        check, f"world_from_camera with optical axes, as given: epipolar error {diagnosis.given_px:.1f} px "
        f"(features agree to {diagnosis.floor_px:.1f} px)", **figures,
    )


def _time(diagnosis: Diagnosis, fault: Fault | None, test: EpipolarTest, weak: str) -> Finding:
    check = _CHECKS[1]
    if fault is not None:
        state = diagnosis.state
        frames = state.shift_frames + (state.shift_s / test.period_s if test.period_s else 0.0)
        late = "later" if frames > 0 else "earlier"
        return problem(
            check, f"each image fits the pose of {abs(frames):.1f} frames ({abs(frames) * test.period_s:.3f} s) {late}: "
            f"error {fault.error_px:.1f} px instead of {diagnosis.given_px:.1f} px",
            "stamps of arrival instead of exposure, clocks that disagree, or frames dropped from one of two lists",
            f"{'add' if frames > 0 else 'subtract'} {abs(frames) * test.period_s:.3f} s {'to' if frames > 0 else 'from'} the image stamps, "
            "or pair images and poses by their stamps; use hardware stamps",
            frames=frames, seconds=frames * test.period_s,
        )
    if "time" in diagnosis.blind:
        return unknown(check, f"cannot tell: {diagnosis.blind['time']}", weak, "walk and turn faster for a part of the recording")
    return ok(check, "images and poses belong together")


def _focal(diagnosis: Diagnosis, fault: Fault | None, weak: str) -> Finding:
    check = _CHECKS[2]
    factor, sigma = diagnosis.focal_factor, diagnosis.focal_sigma
    figures = {"factor": factor, "sigma": sigma}
    if fault is None:
        if "focal" in diagnosis.blind:
            return unknown(check, f"cannot tell: {diagnosis.blind['focal']}", weak, "turn the camera while moving sideways", **figures)
        return ok(check, f"as given; the images' own best estimate is {factor:.3f} +- {sigma:.3f} of it", **figures)
    excess = 100 * (1 / factor - 1)
    make = warning if abs(np.log(factor)) < _SLIGHT_FOCAL else problem
    return make(
        check, f"some {abs(excess):.0f} % too {'long' if excess > 0 else 'short'}: {factor:.3f} +- {sigma:.3f} of it fits, "
        f"error {fault.error_px:.1f} px instead of {diagnosis.given_px:.1f} px",
        "intrinsics of another camera (a depth camera's for colour), of another resolution, or a nominal value",
        f"calibrate the camera; until then multiply fx and fy by {factor:.3f}", **figures,
    )


def _turn(fault: Fault) -> Finding:
    turn = np.degrees(fault.state.turn)
    words = " and ".join(
        f"{abs(value):.1f} deg {name[int(value > 0)]}" for value, name in
        zip(turn, (("down", "up"), ("left", "right"), ("anticlockwise", "clockwise"))) if abs(value) >= 0.5 * np.abs(turn).max()
    )
    return problem(
        "mounting of the camera", f"the images fit a camera that is turned by {words} from where the poses say: error {fault.error_px:.1f} px",
        "extrinsics (base to camera) that are wrong or nominal", "measure or calibrate the camera's mounting (hand-eye calibration)",
        rotation_vector_deg=turn.tolist(),
    )


def _why_weak(test: EpipolarTest) -> str:
    """What about the camera's motion keeps the images from telling hypotheses apart."""
    rotation, translation = test.motions(test.world_from_camera)
    turns = float(np.median(rotation_angle_deg(np.broadcast_to(np.eye(3), rotation.shape), rotation)))
    length = np.linalg.norm(translation, axis=1)
    forward = float(np.median(np.abs(translation[:, 2]) / np.maximum(length, 1e-9)))
    reasons = []
    if turns < _TURNS_DEG:
        reasons.append(f"the camera hardly turns (median {turns:.1f} deg between matched images)")
    if forward > _FORWARD:
        reasons.append("it moves along its optical axis")
    parallax = float(np.median(test.matches.parallax_px))
    if parallax < 0.02 * test.image_size:
        reasons.append(f"parallax is small (median {parallax:.0f} px)")
    return ", and ".join(reasons) or "the motion is too uniform"
