"""Findings from the epipolar test: pose convention, time offset, focal length, lens, extrinsics, unit of the poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dimm_ros.config import LIKELY_DISTANCE_M
from dimm_ros.data.recording import Recording
from dimm_ros.doctor.diagnosis import MIN_CLIPS, MIN_PAIRS, Diagnosis, RecordingFault, Search, diagnose, lens_name
from dimm_ros.doctor.epipolar import EpipolarTest
from dimm_ros.doctor.findings import Finding, ok, problem, two_digits, unknown, warning
from dimm_ros.doctor.matching import Matches, match_recording
from dimm_ros.errors import DataError
from dimm_ros.geometry.poses import rotation_angle_deg
from dimm_ros.progress import StepCallback

_CHECKS = ("pose convention", "time of images and poses", "focal length")
_SLIGHT_FOCAL = 0.06  # a smaller error of the focal length is a warning
#: Errors at 640 pixels width, with their ratio to the features' own, from which the fit of the poses is worth a
#: warning: rough, or conspicuous because the features agree so well.
_ROUGH = ((4.0, 5.0), (1.0, 7.0))
_MISFIT_PX = 8.0  # at 640 pixels width: poses that fit worse do not fit at all
_OTHER_UNIT = 1.4  # factor by which distances by poses and by depth images differ when their units do
_DEPTH_FRAMES, _DEPTH_POINTS = 30, 50  # whose depth images are read; points that are compared, at least
_TURNS_DEG, _FORWARD = 3.0, 0.9  # what counts as turning, and as moving along the optical axis


@dataclass(frozen=True)
class Geometry:
    """Findings, and the diagnosis behind them where the images allowed one.

    Attributes:
        findings: of the epipolar test.
        diagnosis: None where the images allowed none.
        metres: of one unit of the poses, as depth images tell; None without them.
    """

    findings: list[Finding]
    diagnosis: Diagnosis | None
    metres: float | None = None

    @property
    def seen(self) -> float | None:
        """Median distance of what is seen, in the poses' unit; None where unknown."""
        return self.diagnosis.seen if self.diagnosis is not None and np.isfinite(self.diagnosis.seen) else None


def check_geometry(recording: Recording, progress: StepCallback | None = None) -> Geometry:
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
    metres = _metres(recording, test, diagnosis)
    found = findings_of(diagnosis, test, recording.timed)
    return Geometry(found + _scale(diagnosis.seen, metres), diagnosis, metres)


def _metres(recording: Recording, test: EpipolarTest, diagnosis: Diagnosis) -> float | None:
    """Metres of one unit of the poses: depth images against the distances of the matched points.

    Depth is taken for registered to the image, which is near enough to tell one unit from another. None where there are
    no depth images, or too few matches in them.
    """
    matches = test.matches
    distance = Search(test).distances(diagnosis.state)[0]
    ray_z = test.rays(diagnosis.state.focal_factor, diagnosis.state.k1)[0][0, :, 2]
    frame_of = matches.frames[matches.pair, 0]
    with_depth = [index for index in np.unique(frame_of) if recording.frames[index].load_depth is not None]
    chosen = np.unique(np.linspace(0, len(with_depth) - 1, _DEPTH_FRAMES).astype(int)) if with_depth else []
    ratios = []
    for index in (with_depth[place] for place in chosen):
        try:
            depth = recording.frames[index].load_depth()
        except DataError:
            continue  # the check of the images reports damage
        mine = (frame_of == index) & (distance > 0)
        camera = matches.cameras[index]
        size = np.array([camera.width, camera.height])
        column, row = ((matches.pixels[0, mine] + 0.5) / size * depth.shape[::-1]).astype(int).T
        there = depth[np.clip(row, 0, depth.shape[0] - 1), np.clip(column, 0, depth.shape[1] - 1)]
        ratios.append(there[there > 0] / (distance * ray_z)[mine][there > 0])
    ratios = np.concatenate(ratios) if ratios else np.empty(0)
    return float(np.median(ratios)) if len(ratios) >= _DEPTH_POINTS else None


def _scale(seen: float, metres: float | None) -> list[Finding]:
    """Whether the poses are in metres; nothing where no distance is known."""
    if not np.isfinite(seen):
        return []
    check, cause = "scale", "poses in millimetres, or in the unit that COLMAP gave its model"
    figures = {"seen": seen, "metres_per_unit": metres}
    distance = two_digits(seen)
    if metres is not None:
        if abs(np.log(metres)) < np.log(_OTHER_UNIT):
            return [ok(check, f"poses and depth images agree; what is seen is {distance} m away (median)", **figures)]
        unit, away = two_digits(metres), two_digits(seen * metres)
        return [
            problem(
                check,
                f"one unit of the poses is {unit} m by the depth images: what is seen is {away} m away, not {distance}",
                cause,
                f"make a bag in metres with 'dimm convert --scale {unit}' and map that",
                **figures,
            )
        ]
    if LIKELY_DISTANCE_M[0] < seen < LIKELY_DISTANCE_M[1]:
        return [ok(check, f"what is seen is {distance} m away (median), if the poses are in metres", **figures)]
    return [
        warning(
            check,
            f"what is seen is {distance} m away (median), were the poses in metres",
            cause,
            "compare with the place; make a bag in metres with 'dimm convert --scale' (metres of one unit) and map "
            "that",
            **figures,
        )
    ]


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


def findings_of(diagnosis: Diagnosis, test: EpipolarTest, timed: bool = True) -> list[Finding]:
    """A diagnosis in words; a recording that is not timed has frames, but no stamps."""
    scale = max(0.3, test.image_size / 640)
    faults = {fault.family: fault for fault in diagnosis.faults}
    figures = {
        "given_px": diagnosis.given_px,
        "final_px": diagnosis.final_px,
        "floor_px": diagnosis.floor_px,
        "pairs": len(test.matches),
    }
    if not faults and diagnosis.final_px > _MISFIT_PX * scale and diagnosis.final_px > 8 * diagnosis.floor_px:
        return [_unexplained(diagnosis, figures)] + [
            unknown(check, "cannot tell: the poses do not fit the images at all", "see pose convention", "", **figures)
            for check in _CHECKS[1:]
        ]
    weak = _why_weak(test)
    result = [
        _convention(diagnosis, faults.get("convention"), weak, figures),
        _time(diagnosis, faults.get("time"), test, weak, timed),
    ]
    if "lens" in faults:
        result.append(_lens(diagnosis, faults["lens"], test))
    if "lens" not in faults or "focal" in faults:
        result.append(_focal(diagnosis, faults.get("focal"), weak))
    if "turn" in faults:
        result.append(_turn(faults["turn"]))
    if any(
        diagnosis.final_px > least * scale and diagnosis.final_px > ratio * diagnosis.floor_px
        for least, ratio in _ROUGH
    ):
        result.append(
            warning(
                "fit of the poses",
                f"epipolar error {diagnosis.final_px:.1f} px, though the features themselves agree to "
                f"{diagnosis.floor_px:.1f} px",
                "drifting or jumpy poses, a rolling shutter, uneven delays, or a lens that the distortion model does "
                "not describe",
                "expect errors of that size; a better SLAM, calibration or synchronisation would help",
                **figures,
            )
        )
    return result


def _unexplained(diagnosis: Diagnosis, figures: dict) -> Finding:
    return problem(
        _CHECKS[0],
        f"the poses do not fit the images: epipolar error {diagnosis.given_px:.0f} px (features agree to "
        f"{diagnosis.floor_px:.1f} px), "
        "and no usual mistake explains it",
        "poses of another recording, in another order, of another body, or very wrong intrinsics",
        "compare a few poses with the images by hand; check which file belongs to which",
        **figures,
    )


def _convention(diagnosis: Diagnosis, fault: RecordingFault | None, weak: str, figures: dict) -> Finding:
    check = _CHECKS[0]
    if fault is not None:
        one = fault.state.convention
        also = (
            f", or {' or '.join(name for name in diagnosis.ambiguous if name != 'as given')}"
            if diagnosis.ambiguous
            else ""
        )
        return problem(
            check,
            f"{one.name}{also}: the images fit so, epipolar error {fault.error_px:.1f} px instead of "
            f"{diagnosis.given_px:.1f} px",
            "the poses were exported in another convention than world_from_camera with optical axes (x right, y down, "
            "z forward)",
            one.cure,
            **figures,
        )
    if diagnosis.ambiguous:
        return unknown(
            check,
            f"cannot tell from: {', '.join(diagnosis.ambiguous)}",
            weak,
            "turn the camera about all axes while moving sideways",
            **figures,
        )
    return ok(
        check,
        f"world_from_camera with optical axes, as given: epipolar error {diagnosis.given_px:.1f} px "
        f"(features agree to {diagnosis.floor_px:.1f} px)",
        **figures,
    )


def _time(diagnosis: Diagnosis, fault: RecordingFault | None, test: EpipolarTest, weak: str, timed: bool) -> Finding:
    check = _CHECKS[1]
    if fault is not None:
        state = diagnosis.state
        frames = state.shift_frames + (state.shift_s / test.period_s if test.period_s else 0.0)
        late = "later" if frames > 0 else "earlier"
        if not timed:
            return problem(
                check,
                f"each image fits the pose of {abs(frames):.1f} frames {late}: error {fault.error_px:.1f} px "
                f"instead of {diagnosis.given_px:.1f} px",
                "frames dropped from one of two lists, or numbered from another start",
                "pair images and poses anew",
                frames=frames,
            )
        return problem(
            check,
            f"each image fits the pose of {abs(frames):.1f} frames ({abs(frames) * test.period_s:.3f} s) {late}: "
            f"error {fault.error_px:.1f} px instead of {diagnosis.given_px:.1f} px",
            "stamps of arrival instead of exposure, clocks that disagree, or frames dropped from one of two lists",
            f"{'add' if frames > 0 else 'subtract'} {abs(frames) * test.period_s:.3f} s "
            f"{'to' if frames > 0 else 'from'} the image stamps, "
            "or pair images and poses by their stamps; use hardware stamps",
            frames=frames,
            seconds=frames * test.period_s,
        )
    if "time" in diagnosis.blind:
        return unknown(
            check, f"cannot tell: {diagnosis.blind['time']}", weak, "walk and turn faster for a part of the recording"
        )
    return ok(check, "images and poses belong together")


def _focal(diagnosis: Diagnosis, fault: RecordingFault | None, weak: str) -> Finding:
    check = _CHECKS[2]
    factor, sigma = diagnosis.focal_factor, diagnosis.focal_sigma
    figures = {"factor": factor, "sigma": sigma}
    if fault is None:
        if "focal" in diagnosis.blind:
            return unknown(
                check,
                f"cannot tell: {diagnosis.blind['focal']}",
                weak,
                "turn the camera while moving sideways",
                **figures,
            )
        return ok(check, f"as given; the images' own best estimate is {factor:.3f} +- {sigma:.3f} of it", **figures)
    excess = 100 * (1 / factor - 1)
    make = warning if abs(np.log(factor)) < _SLIGHT_FOCAL else problem
    return make(
        check,
        f"some {abs(excess):.0f} % too {'long' if excess > 0 else 'short'}: {factor:.3f} +- {sigma:.3f} of it fits, "
        f"error {fault.error_px:.1f} px instead of {diagnosis.given_px:.1f} px",
        "intrinsics of another camera (a depth camera's for colour), of another resolution, or a nominal value",
        f"calibrate the camera; until then multiply fx and fy by {factor:.3f}",
        **figures,
    )


def _lens(diagnosis: Diagnosis, fault: RecordingFault, test: EpipolarTest) -> Finding:
    state = fault.state
    causes = {
        "rectified images": (
            "the images are rectified, but the intrinsics are the raw lens's",
            "give the rectified camera (P of camera_info, without distortion), or record the raw images",
        ),
        "raw images": (
            "the images are raw, but the intrinsics are those of rectified ones, or the lens was never calibrated",
            "give the lens's own matrix and distortion (K and D of camera_info), or record the rectified images",
        ),
        "another lens": ("a calibration of another lens, resolution or distortion model", "calibrate the camera again"),
    }
    name = lens_name(test, state)
    bent = "no distortion" if state.k1 == 0.0 else f"radial distortion k1 of some {state.k1:.2f}"
    cause, cure = causes[name]
    return problem(
        "lens",
        f"{name}: {bent} and a focal length {state.focal_factor:.2f} times the given one fit, "
        f"error {fault.error_px:.1f} px instead of {diagnosis.given_px:.1f} px (features agree to "
        f"{diagnosis.floor_px:.1f} px)",
        cause,
        cure,
        k1=state.k1,
        factor=state.focal_factor,
    )


def _turn(fault: RecordingFault) -> Finding:
    turn = np.degrees(fault.state.turn)
    words = " and ".join(
        f"{abs(value):.1f} deg {name[int(value > 0)]}"
        for value, name in zip(turn, (("down", "up"), ("left", "right"), ("anticlockwise", "clockwise")))
        if abs(value) >= 0.5 * np.abs(turn).max()
    )
    return problem(
        "mounting of the camera",
        f"the images fit a camera that is turned by {words} from where the poses say: error {fault.error_px:.1f} px",
        "extrinsics (base to camera) that are wrong or nominal",
        "measure or calibrate the camera's mounting (hand-eye calibration)",
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
