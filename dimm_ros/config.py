"""The one configuration tree: what the command line, the map's header and the node's YAML share.

The description beside each field says what it does. docs/benchmarks.md has what was measured with the ``cpu`` preset
and the trials behind some of its values; the ``gpu`` preset follows the published head's size and has not been run yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dimm_ros.errors import InputError, plain

if TYPE_CHECKING:
    from typing_extensions import Self


#: One line of text that a stranger may have written.
PlainText = Annotated[str, AfterValidator(lambda text: plain(text, lines=False))]

#: As ``SolverConfig.rays``: no patch is left out.
EVERY_RAY = 100_000

#: What a robot's camera sees is at a median distance between these, metres; else the poses are probably in another
#: unit.
LIKELY_DISTANCE_M = (0.2, 200.0)


class _Section(BaseModel):
    """A part of the tree: unknown keys are errors, so that a typo never passes silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def changed(self, **changes: object) -> Self:
        """This section with some fields changed, validated; None leaves a field as it is."""
        return type(self).model_validate(
            self.model_dump() | {name: value for name, value in changes.items() if value is not None}
        )


class _Stored(_Section):
    """A part that a map's header holds, in which no number is infinite or NaN."""

    model_config = ConfigDict(allow_inf_nan=False)


class EncoderConfig(_Stored):
    """Which frozen DINOv2 turns an image into patch tokens."""

    name: PlainText = Field("dinov2-small", description="encoder family and size, see dimm_ros.encoder.weights.MODELS")
    input_size: int = Field(
        448, ge=56, le=2016, multiple_of=14, description="longer side of the encoder's input, pixels"
    )
    layers: tuple[int, ...] = Field(
        (12,), min_length=1, description="transformer layers whose patch tokens are stacked; the last is the paper's"
    )
    context_layers: tuple[int, ...] = Field(
        (6, 9, 12), description="layers whose mean patch tokens join the CLS token; none in the paper"
    )
    context_grid: int = Field(
        2, ge=1, le=4, description="mean tokens of the image are joined by those of its grid x grid parts; 1 for none"
    )


class HeadConfig(_Stored):
    """The scene-specific ray head (DIMM, ICCV 2025, section 3)."""

    mappers: int = Field(4, ge=1, le=64, description="N independent MLP mappers")
    width: int = Field(256, ge=16, le=4096, description="embedding width")
    depth: int = Field(2, ge=1, le=16, description="hidden layers of one mapper")
    frequencies: int = Field(6, ge=0, le=16, description="Fourier bands of the patch centre (XY token)")
    fusion: Literal["attention", "mean"] = Field("attention", description="how the N ray embeddings are fused")
    confidence: bool = Field(True, description="predict a per-ray scale of direction and moment error")
    whole_share: float = Field(
        0.8, ge=0, lt=1, description="largest share of the global pose in the rays; 0 leaves it out, as the paper"
    )
    whole_least: float = Field(0.3, ge=0, lt=1, description="its share in the rays of a view that is not new at all")
    whole_novelty: float = Field(1.0, gt=0, description="novelty over which the share grows by one")


class LandmarkConfig(_Stored):
    """The landmarks of a map: keypoints whose places the recording's poses fix."""

    kind: Literal["points", "lines", "none"] = Field(
        "points", description="places as points, hidden in lines, or none (rays alone, the paper's private form)"
    )
    detector: PlainText = Field("sift", description="keypoint detector, see dimm_ros.landmarks.keypoints.DETECTORS")
    longest: int = Field(
        1024,
        ge=160,
        le=8192,
        description="longer side of the image that keypoints are looked for in, pixels; a query tries half first",
    )
    keypoints: int = Field(2500, ge=50, le=50_000, description="most keypoints of an image")
    images: int = Field(
        250, ge=2, le=100_000, description="most images that landmarks are made of; key frames of a longer recording"
    )
    most: int = Field(
        16_000, ge=100, le=1_000_000, description="most landmarks of a map, those that more images show first"
    )
    seed: int = Field(0, ge=0, description="seed of the lines' directions")


class TrainingConfig(_Stored):
    """How a map is trained."""

    steps: int = Field(500, ge=1, description="optimiser steps")
    batch: int = Field(2048, ge=16, description="patches in one step, shuffled over all images")
    learning_rate: float = Field(2e-3, gt=0, description="peak of the one-cycle schedule")
    weight_decay: float = Field(0.01, ge=0, description="AdamW weight decay")
    images: int = Field(
        250, ge=10, le=1_000_000, description="most images that are encoded; key frames of a longer recording"
    )
    passes: int = Field(2, ge=1, description="encoded views per image; the first is the image itself")
    max_rotation_deg: float = Field(15.0, ge=0, le=60, description="virtual camera yaw and pitch of augmented views")
    max_roll_deg: float = Field(10.0, ge=0, le=180, description="virtual in-plane rotation")
    max_zoom: float = Field(1.25, ge=1, le=3, description="virtual zoom, 1/max_zoom to max_zoom")
    depth: Literal["auto", "recorded", "stereo", "none"] = Field(
        "auto",
        description="depth of views from moved cameras: the recording's own, estimated from the images, or none; auto "
        "is the first there is",
    )
    max_offset: float = Field(
        0.15, ge=0, le=0.5, description="furthest the virtual camera moves, as a share of the scene's median distance"
    )
    jitter: float = Field(0.15, ge=0, le=0.9, description="brightness and contrast change of augmented views")
    recorded_share: float = Field(
        0.5, ge=0, lt=1, description="share of a batch drawn from recorded images alone, the rest from all views"
    )
    seed: int = Field(0, ge=0, description="seed of everything random")
    memory_mb: int = Field(4096, ge=64, description="feature buffer kept in memory; a larger one goes to disk")


class SolverConfig(_Section):
    """The two RANSACs (rotation, then centre), the joint refinement and the covariance."""

    rays: int = Field(
        400,
        ge=32,
        le=EVERY_RAY,
        description="most patches of an image that are sampled, every k-th of all: more rays say the same",
    )
    hypotheses: int = Field(64, ge=4, le=4096, description="two-ray hypotheses of each RANSAC, scored at once")
    local_steps: int = Field(4, ge=0, le=50, description="truncated-loss refits of the best hypotheses (LO-RANSAC)")
    rotation_threshold_deg: float = Field(
        3.0, gt=0, le=45, description="inlier angle between rotated camera ray and direction"
    )
    centre_threshold: float = Field(0.10, gt=0, description="inlier distance of the centre from a ray's moment, metres")
    min_pair_angle_deg: float = Field(5.0, gt=0, le=45, description="pairs of rays nearer than this are not sampled")
    use_confidence: bool = Field(True, description="weigh rays by their predicted scale")
    confidence_range: float = Field(
        3.0, ge=1, le=100, description="furthest a ray's threshold moves, as a factor, by its predicted scale"
    )
    refine: bool = Field(True, description="joint Gauss-Newton refinement of rotation and centre")
    refine_steps: int = Field(4, ge=1, le=50, description="Gauss-Newton steps of the refinement")
    seed: int = Field(0, ge=0, description="seed of the sampling; the same image gives the same pose")


class AcceptanceConfig(_Section):
    """When an estimate is good enough to be published."""

    min_inlier_ratio: float = Field(0.3, ge=0, le=1, description="least share of rays that agree with the pose")
    max_position_sigma: float = Field(0.5, gt=0, description="largest standard deviation of the centre, metres")
    max_rotation_sigma_deg: float = Field(15.0, gt=0, description="largest standard deviation of the rotation, degrees")
    novelty_scale: float = Field(
        1.0, gt=0, le=100, description="factor on the novelty from which the map takes an image to be of elsewhere"
    )


class GateConfig(_Section):
    """Which accepted estimates are believed: see ``dimm_ros.tracking.gate`` for the reasons and the odds."""

    enabled: bool = Field(
        True, description="judge estimates by one another and by odometry; off publishes each accepted estimate"
    )
    first_fix: int = Field(
        3,
        ge=1,
        le=20,
        description="estimates that must agree before a first pose is believed; one fewer where a hint agrees",
    )
    jump: int = Field(3, ge=1, le=20, description="k of n: estimates that must agree before a jump is believed")
    window: int = Field(
        5, ge=1, le=40, description="n of k of n: newest estimates among which agreeing ones are counted"
    )
    probability: float = Field(
        0.99, ge=0.5, le=0.999999, description="share of correct estimates that pass the chi-square test"
    )
    agreement_distance: float = Field(
        0.4, gt=0, le=10, description="furthest two agreeing estimates are apart, odometry removed, metres"
    )
    agreement_angle_deg: float = Field(
        10.0, gt=0, le=90, description="widest angle between two agreeing estimates, degrees"
    )
    position_floor: float = Field(0.02, gt=0, le=1, description="standard deviation added to each position, metres")
    rotation_floor_deg: float = Field(0.5, gt=0, le=20, description="the same for each rotation, degrees")
    position_ceiling: float = Field(
        0.10, gt=0, le=5, description="larger standard deviations of position are cut to this, metres"
    )
    rotation_ceiling_deg: float = Field(4.0, gt=0, le=45, description="the same for the rotation, degrees")
    odometry_drift: float = Field(
        0.03, gt=0, le=1, description="standard deviation of odometry, metres per metre travelled"
    )
    odometry_turn_drift_deg: float = Field(
        1.0, gt=0, le=90, description="standard deviation of odometry's heading, degrees per metre travelled"
    )
    odometry_turn_scale: float = Field(
        0.03, gt=0, le=1, description="standard deviation of odometry's heading, degrees per degree turned"
    )
    max_speed: float = Field(
        1.5, gt=0, le=100, description="fastest the base moves, m/s; used where there is no odometry"
    )
    max_turn_rate_deg: float = Field(
        90.0, gt=0, le=3600, description="fastest the base turns, deg/s; used where there is no odometry"
    )
    max_coast_s: float = Field(
        2.0,
        gt=0,
        le=60,
        description="longest time over which one estimate vouches for the next without odometry, seconds",
    )
    clock_jump_s: float = Field(
        1.0,
        gt=0,
        le=3600,
        description="stamps that go back by more than this mean that the clock was set back, seconds",
    )

    @model_validator(mode="after")
    def _majority(self) -> GateConfig:
        if max(self.first_fix, self.jump) > self.window:
            raise ValueError("first_fix and jump must not exceed window")
        if 2 * self.jump <= self.window:
            raise ValueError("jump must be more than half of window, or two places could alternate")
        return self


class Preset(_Section):
    """Landmarks, encoder, head and training that belong together."""

    landmarks: LandmarkConfig = LandmarkConfig()
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    training: TrainingConfig = TrainingConfig()


#: Named presets of ``dimm map``. With landmarks the rays need only be a good prior; ``rays`` trains them to stand
#: alone, on all images. ``demo`` is ``cpu`` cut short for a first impression.
PRESETS = {
    "cpu": Preset(),
    "rays": Preset(
        landmarks=LandmarkConfig(kind="none"), training=TrainingConfig(images=1_000_000, passes=3, steps=800)
    ),
    "gpu": Preset(
        encoder=EncoderConfig(input_size=504),
        head=HeadConfig(mappers=8, width=768, depth=3),
        training=TrainingConfig(steps=20000, batch=5120, learning_rate=1e-3, passes=6),
    ),
    "demo": Preset(landmarks=LandmarkConfig(images=120), training=TrainingConfig(images=64, steps=250)),
}


def preset_of(name: str, device: str) -> Preset:
    """The preset of a name; "auto" is cpu on every device, until gpu has been run on one and measured.

    Raises:
        InputError: no such preset.
    """
    if name == "auto":
        name = "cpu"
    if name not in PRESETS:
        raise InputError(f"Preset '{name}' is not known; choose auto, {', '.join(PRESETS)}.")
    return PRESETS[name]
