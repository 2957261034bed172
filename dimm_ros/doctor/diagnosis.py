"""Which hypothesis explains the matched features: greedy search with margins, so that a good recording is not accused.

Round by round, each family of faults (convention of the poses, time, focal length, lens, turned camera) offers its best
candidate on top of what has been found; the one with the largest significant gain is taken, until none is left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from dimm_ros.doctor.epipolar import EpipolarTest
from dimm_ros.doctor.hypotheses import AXES, Convention, conventions

MIN_PAIRS, MIN_CLIPS = 10, 3
FOCAL_RANGE = (0.6, 1.6)
_FOCAL_STEPS = 21
MAX_SHIFT = 10  # frames
_ROUNDS = 4
_SIGMAS = 4.0
_QUICK = 15  # matches of a pair that the conventions are judged by
_LIKELY = 12  # conventions that are looked at together with another fault
_FRONT = 0.6  # least share of points before both cameras
_TIE = 0.15  # hypotheses whose mean log errors differ by less are not told apart
_MIN_KNOWN = 0.4  # share of pairs that a shift must still be able to judge
_MIN_FOCAL, _MIN_SHIFT, _MIN_TURN = 0.03, 0.35, np.radians(1.5)  # relative, frames, radians: less is not reported
_MIN_K1 = 0.03  # less distortion than this is not reported
_MIN_LENS = 0.2  # gain in mean log error over what another focal length explains
_BEYOND_FOCAL = 3.0  # errors beyond this many times what may be explained are not a focal length's or a lens's alone
_AT_FLOOR = 1.5  # errors within this factor of the features' own agreement leave nothing for a lens to explain
_GOOD_PX = 1.0  # at 640 pixels width: poses that fit so well are in the right convention
_FITS_PX = 8.0  # at 640 pixels width: a larger error is explained by nothing that was found
_TURN_STEP = np.radians(4)
_BLIND = 0.12  # mean log error that a clearly wrong focal length or time must add


@dataclass(frozen=True)
class Hypothesis:
    """Hypothesis of how a recording's poses and camera were recorded.

    Attributes:
        convention: how its poses are to be read.
        shift_s, shift_frames: an image's true pose is that of so much later.
        focal_factor: true focal length over the given one.
        turn: (3,) rotation vector, optical frame of the given poses to the true one.
        k1: radial distortion of the images in place of the given lens; None for that.
    """

    convention: Convention
    shift_s: float = 0.0
    shift_frames: int = 0
    focal_factor: float = 1.0
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    k1: float | None = None


@dataclass(frozen=True)
class RecordingFault:
    """A fault that the search has accepted: family is convention, time, focal, lens or turn."""

    family: str
    state: Hypothesis
    gain: float
    gain_error: float
    error_px: float


@dataclass
class Diagnosis:
    """Result of the search.

    Attributes:
        given_px, final_px, floor_px: typical epipolar error as given, with the faults undone, and of the features
            themselves.
        faults: what was found, largest first.
        state: the recording with its faults undone.
        focal_factor, focal_sigma: best factor, absolute, and its standard error.
        focal_curve, shift_curve: [(factor or frames, typical error in pixels)] about the given state.
        bars: hypothesis -> typical error in pixels, as given and the common mistakes.
        blind: family -> why the recording cannot tell.
        ambiguous: names of common conventions that explain the images as well as the accepted one.
        seen: median distance of the matched points, in the unit of the poses; NaN where unknown.
    """

    given_px: float
    final_px: float
    floor_px: float
    state: Hypothesis
    faults: list[RecordingFault] = field(default_factory=list)
    focal_factor: float = 1.0
    focal_sigma: float = np.inf
    focal_curve: list[tuple[float, float]] = field(default_factory=list)
    shift_curve: list[tuple[float, float]] = field(default_factory=list)
    bars: dict[str, float] = field(default_factory=dict)
    blind: dict[str, str] = field(default_factory=dict)
    ambiguous: list[str] = field(default_factory=list)
    seen: float = np.nan


class Search:
    """Scores states and proposes better ones."""

    def __init__(self, test: EpipolarTest) -> None:
        self.test = test
        self._scale = max(0.3, test.image_size / 640)

    def motions(self, state: Hypothesis) -> tuple[np.ndarray, np.ndarray]:
        poses = state.convention.apply(self.test.poses(state.shift_s, state.shift_frames))
        if any(state.turn):
            change = np.eye(4)
            change[:3, :3] = Rotation.from_rotvec(state.turn).as_matrix()
            poses = poses @ change
        return self.test.motions(poses)

    def errors(self, state: Hypothesis) -> np.ndarray:
        return self.test.errors(self.motions(state), state.focal_factor, state.k1)

    def in_front(self, state: Hypothesis) -> float:
        return self.test.in_front(self.motions(state), state.focal_factor, state.k1)

    def distances(self, state: Hypothesis) -> np.ndarray:
        return self.test.distances(self.motions(state), state.focal_factor, state.k1)

    def convention(self, state: Hypothesis) -> RecordingFault | None:
        """Another reading of the poses that fits much better, or as well but with the scene before the cameras."""
        front_before = self.in_front(state)
        if self.test.typical(self.errors(state)) < _GOOD_PX * self._scale and front_before > _FRONT:
            return None  # no reading of the poses could fit much better
        quick = Search(self.test.subsampled(_QUICK))
        before = quick.errors(state)
        alone = [
            (replace(state, convention=one), quick._gain(before, replace(state, convention=one))[0])
            for one in conventions()
        ]
        likely = sorted((gain, place) for place, (_, gain) in enumerate(alone))[-_LIKELY:]
        # Another fault besides may hide the right one: each is judged with the focal length or the time that suits it
        # best.
        places = sorted(
            {place for _, place in likely} | {place for place, (one, _) in enumerate(alone) if one == state}
        )
        offers = []
        for place in places:
            besides = [(quick._gain(before, other), other) for other in self._beside(alone[place][0])]
            (gain, error, typical), beside = max(besides, key=lambda one: one[0][0])
            fault = RecordingFault(
                family="convention", state=alone[place][0], gain=gain, gain_error=error, error_px=typical
            )
            offers.append((fault, beside))
        best = max(fault.gain for fault, _ in offers)
        # Sorted by likelihood: of equals, the first with the scene in front.
        equals = (fault for fault, beside in offers if fault.gain > best - _TIE and quick.in_front(beside) > _FRONT)
        found = next(equals, None)
        if found is None or found.state.convention == state.convention:
            return None
        behind = front_before < 1 - _FRONT and found.gain > -_TIE
        clear = found.gain > 0.5 and found.gain > _SIGMAS * found.gain_error
        return found if (clear or behind) and self._fits(found.error_px) else None

    def _beside(self, state: Hypothesis) -> list[Hypothesis]:
        """A state, and it with other focal lengths or other times."""
        factors = np.exp(np.linspace(*np.log(FOCAL_RANGE), _FOCAL_STEPS)[::2])
        shifts = [count for count in range(-MAX_SHIFT, MAX_SHIFT + 1) if count]
        return [
            state,
            *(replace(state, focal_factor=float(factor)) for factor in factors),
            *(replace(state, shift_frames=count) for count in shifts),
        ]

    def ambiguous(self, state: Hypothesis) -> list[str]:
        """Common conventions that the recording does not tell from this one."""
        before = self.errors(state)
        result = []
        for one in conventions():
            if one != state.convention and (one.plain or not one.form or not one.axes) and one.axes in ("", *AXES):
                other = replace(state, convention=one)
                if self._gain(before, other)[0] > -_TIE and self.in_front(other) > _FRONT:
                    result.append(one.name)
        return result

    def time(self, state: Hypothesis) -> RecordingFault | None:
        """Poses of some frames, or some seconds, later or earlier."""
        before = self.errors(state)
        coarse = [replace(state, shift_s=0.0, shift_frames=count) for count in range(-MAX_SHIFT, MAX_SHIFT + 1)]
        if self.test.period_s > 0:
            coarse += [
                replace(state, shift_s=count * self.test.period_s, shift_frames=0)
                for count in range(-MAX_SHIFT, MAX_SHIFT + 1)
                if count
            ]
        best = max(coarse, key=lambda one: self._gain(before, one)[0])
        fine = [best]
        if self.test.period_s > 0:
            fine += [
                replace(best, shift_s=best.shift_s + step * self.test.period_s)
                for step in np.linspace(-0.9, 0.9, 19)
                if abs(step) > 0.05
            ]
        found = max(fine, key=lambda one: self._gain(before, one)[0])
        gain, error, typical = self._gain(before, found)
        change = abs(self.shift_frames(found) - self.shift_frames(state))
        if change > _MIN_SHIFT and gain > max(0.15, _SIGMAS * error) and self._fits(typical):
            return RecordingFault(family="time", state=found, gain=gain, gain_error=error, error_px=typical)
        return None

    def shift_frames(self, state: Hypothesis) -> float:
        """A state's shift in frames."""
        return state.shift_frames + (state.shift_s / self.test.period_s if self.test.period_s > 0 else 0.0)

    def focal(self, state: Hypothesis) -> RecordingFault | None:
        """Another focal length."""
        factor, sigma = self.best_focal(state)
        found = replace(state, focal_factor=factor)
        gain, error, typical = self._gain(self.errors(state), found)
        change = abs(np.log(factor / state.focal_factor))
        clear = change > max(_MIN_FOCAL, 3 * sigma / factor) and gain > max(0.04, 1.5 * error) and self._fits(typical)
        return (
            RecordingFault(family="focal", state=found, gain=gain, gain_error=error, error_px=typical)
            if clear
            else None
        )

    def best_focal(self, state: Hypothesis) -> tuple[float, float]:
        """Factor of the given focal length with the least error, and its standard error by the jackknife over clips."""
        grid = np.linspace(*np.log(FOCAL_RANGE), _FOCAL_STEPS)
        centre = grid[
            np.argmin([np.nanmean(self._score(replace(state, focal_factor=float(np.exp(value))))) for value in grid])
        ]
        step = 0.01
        fine = np.arange(centre - 0.06, centre + 0.0601, step)
        scores = np.stack([self._score(replace(state, focal_factor=float(np.exp(value)))) for value in fine])
        clips = self.test.matches.clip
        estimates = [_minimum(fine, np.nanmean(scores[:, clips != clip], axis=1)) for clip in np.unique(clips)]
        estimate = _minimum(fine, np.nanmean(scores, axis=1))
        sigma = np.sqrt((len(estimates) - 1) * np.var(estimates)) if len(estimates) > 1 else np.inf
        return float(np.exp(estimate)), float(np.exp(estimate) * sigma)

    def lens(self, state: Hypothesis) -> RecordingFault | None:
        """Another distortion than the given one, with the focal length that suits it."""
        floor, given = float(np.median(self.test.matches.floor_px)), self.test.typical(self.errors(state))
        if state.k1 is not None or given < _AT_FLOOR * floor or not self._fits(given / _BEYOND_FOCAL):
            return None
        besides = replace(state, focal_factor=self.best_focal(state)[0])  # what needs no other lens
        error = self.test.typical(self.errors(besides))
        if error < _AT_FLOOR * floor or not self._fits(error):
            return None
        quick = Search(self.test.subsampled(_QUICK))

        def mean_score(values: np.ndarray) -> float:
            one = replace(state, k1=float(values[0]), focal_factor=float(np.exp(values[1])))
            return float(np.nanmean(quick._score(one)))

        start = np.array([0.0, np.log(besides.focal_factor)])
        simplex = start + np.array([[0.0, 0.0], [-0.15, 0.0], [0.0, 0.08]])
        options = {"initial_simplex": simplex, "maxfev": 80, "xatol": 1e-3, "fatol": 1e-3}
        solved = minimize(mean_score, start, method="Nelder-Mead", options=options)
        found = replace(state, k1=float(solved.x[0]))
        if not all(camera.is_pinhole for camera in self.test.matches.cameras.values()):
            plain = replace(state, k1=0.0)
            plain = replace(plain, focal_factor=quick.best_focal(plain)[0])
            if float(np.nanmean(quick._score(plain))) < solved.fun + 0.5 * _TIE:  # of equals the simpler one
                found = plain
        elif abs(found.k1) < _MIN_K1:
            return None
        found = replace(found, focal_factor=self.best_focal(found)[0])
        gain, error, typical = self._gain(self.errors(besides), found)
        if gain < max(_MIN_LENS, _SIGMAS * error) or not self._fits(typical):
            return None
        return RecordingFault("lens", found, self._gain(self.errors(state), found)[0], error, typical)

    def turn(self, state: Hypothesis) -> RecordingFault | None:
        """A camera that is mounted with another rotation than the poses say."""
        start = np.array(state.turn)

        def mean_score(vector: np.ndarray) -> float:
            return float(np.nanmean(self._score(replace(state, turn=tuple(vector)))))

        simplex = start + _TURN_STEP * np.vstack([np.zeros(3), np.eye(3)])
        solved = minimize(
            mean_score,
            start,
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "maxfev": 120, "xatol": 1e-3, "fatol": 1e-3},
        )
        found = replace(state, turn=tuple(float(value) for value in solved.x))
        gain, error, typical = self._gain(self.errors(state), found)
        clear = np.linalg.norm(solved.x - start) > _MIN_TURN and gain > max(0.15, 3 * error) and self._fits(typical)
        return (
            RecordingFault(family="turn", state=found, gain=gain, gain_error=error, error_px=typical) if clear else None
        )

    def is_fault(self, family: str, state: Hypothesis) -> bool:
        """Whether a state still differs from the given recording in this; a later round may have taken it back."""
        return {
            "convention": not state.convention.plain,
            "time": abs(self.shift_frames(state)) > _MIN_SHIFT,
            "focal": abs(np.log(state.focal_factor)) > _MIN_FOCAL,
            "turn": float(np.linalg.norm(state.turn)) > _MIN_TURN,
            "lens": state.k1 is not None,
        }[family]

    def _score(self, state: Hypothesis) -> np.ndarray:
        return self.test.score(self.errors(state))

    def _fits(self, typical: float) -> bool:
        """Whether an error is small enough for a fault to be named; other faults may remain."""
        return typical < max(_FITS_PX * self._scale, 5 * float(np.median(self.test.matches.floor_px)))

    def _gain(self, before: np.ndarray, state: Hypothesis) -> tuple[float, float, float]:
        after = self.errors(state)
        if np.isfinite(after).mean() < _MIN_KNOWN:
            return -np.inf, np.inf, np.nan
        return *self.test.gain(before, after), self.test.typical(after)


def _minimum(values: np.ndarray, scores: np.ndarray) -> float:
    """Place of the least score, by the parabola through its neighbours."""
    place = int(np.clip(np.argmin(scores), 1, len(values) - 2))
    low, middle, high = scores[place - 1 : place + 2]
    curvature = low - 2 * middle + high
    offset = 0.5 * (low - high) / curvature if curvature > 1e-12 else 0.0
    return float(values[place] + np.clip(offset, -1, 1) * (values[1] - values[0]))


def diagnose(test: EpipolarTest) -> Diagnosis:
    """Judge a recording from its matches; it needs ``MIN_PAIRS`` pairs of ``MIN_CLIPS`` clips."""
    search = Search(test)
    given = state = Hypothesis(conventions()[0])
    errors = search.errors(given)
    result = Diagnosis(test.typical(errors), np.nan, float(np.median(test.matches.floor_px)), given)
    families = {
        "convention": search.convention,
        "time": search.time,
        "focal": search.focal,
        "lens": search.lens,
        "turn": search.turn,
    }
    for _ in range(_ROUNDS):
        offers = [fault for family, propose in families.items() if (fault := propose(state)) is not None]
        if not offers:
            break
        best = max(offers, key=lambda fault: fault.gain)
        # The same family twice refines what it found.
        result.faults = [fault for fault in result.faults if fault.family != best.family] + [best]
        state = best.state
    result.faults = [fault for fault in result.faults if search.is_fault(fault.family, state)]
    result.state, result.final_px = state, test.typical(search.errors(state))
    result.focal_factor, result.focal_sigma = search.best_focal(state)
    result.ambiguous = search.ambiguous(state)
    distances = search.distances(state)
    seen = distances[:, (distances > 0).all(axis=0)]
    result.seen = float(np.median(seen)) if seen.size else np.nan
    _draw_curves(search, result)
    return result


def lens_name(test: EpipolarTest, state: Hypothesis) -> str:
    """What another lens means for the images."""
    if state.k1 == 0.0:
        return "rectified images"
    if all(camera.is_pinhole for camera in test.matches.cameras.values()):
        return "raw images"
    return "another lens"


def _draw_curves(search: Search, result: Diagnosis) -> None:
    """Errors about the accepted state, for the picture and to see where the recording cannot tell."""
    test, state = search.test, result.state

    def typical(one: Hypothesis) -> float:
        return test.typical(search.errors(one))

    factors = np.exp(np.linspace(*np.log(FOCAL_RANGE), _FOCAL_STEPS))
    factors = np.sort(np.append(factors, result.focal_factor))
    result.focal_curve = [(float(factor), typical(replace(state, focal_factor=float(factor)))) for factor in factors]
    shifts = [
        (count, replace(state, shift_frames=state.shift_frames + count)) for count in range(-MAX_SHIFT, MAX_SHIFT + 1)
    ]
    result.shift_curve = [(search.shift_frames(one), typical(one)) for _, one in shifts]
    best = search.errors(replace(state, focal_factor=result.focal_factor))
    sides = [
        -test.gain(best, search.errors(replace(state, focal_factor=result.focal_factor * factor)))[0]
        for factor in (0.8, 1.25)
    ]
    if np.mean(sides) < _BLIND:
        result.blind["focal"] = "other focal lengths explain the images as well"
    here = search.errors(state)
    lost = [-test.gain(here, search.errors(one))[0] for count, one in shifts if abs(count) == 5]
    if min(lost, default=0.0) < _BLIND:
        result.blind["time"] = "poses of some frames earlier or later explain the images as well"
    plain = conventions()[0]
    common = {one.name: one for one in conventions() if bool(one.form) != bool(one.axes)}
    names = ("inverted poses (camera_from_world)", *list(AXES)[:2], "mirrored images")
    result.bars = {"as given": result.given_px}
    for name in names:
        result.bars[name] = typical(Hypothesis(common[name]))
    for fault in result.faults:
        if fault.family == "convention":
            result.bars.setdefault(fault.state.convention.name, fault.error_px)
        elif fault.family == "lens":
            result.bars[lens_name(test, fault.state)] = fault.error_px
    result.bars[f"focal length x {result.focal_factor:.2f}"] = typical(
        Hypothesis(plain, focal_factor=result.focal_factor)
    )
    shift = search.shift_frames(state)
    result.bars[f"poses {shift:+.1f} frames" if shift else "poses +5 frames"] = typical(
        Hypothesis(plain, shift_s=state.shift_s, shift_frames=state.shift_frames)
        if shift
        else Hypothesis(plain, shift_frames=5)
    )
    if len(result.faults) > 1:
        result.bars["all faults undone"] = result.final_px
