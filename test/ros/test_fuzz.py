"""Camera messages that no camera sends: whatever is in them, one sentence comes out and nothing else.

300 cases of each kind, always the same; ``DIMM_FUZZ_CASES=5000`` (``make soak``) tries that many new ones.
"""

from __future__ import annotations

import array
import os

import numpy as np
import pytest
import torch
from builtin_interfaces.msg import Time
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from dimm_ros import __version__
from dimm_ros.config import HeadConfig, TrainingConfig
from dimm_ros.data.camera_info import camera_from_info
from dimm_ros.data.image_encoding import ENCODINGS
from dimm_ros.encoder.dinov2 import Tokens
from dimm_ros.encoder.patches import PATCH
from dimm_ros.errors import DimmError
from dimm_ros.geometry.camera import DISTORTION_MODELS, Camera
from dimm_ros.head.model import MapHead
from dimm_ros.localizer import Estimate, Localizer
from dimm_ros.ros.messages import to_rgb
from dimm_ros.scene_map import MapHeader, SceneMap

from .robot import KnownPose
from .waiting import PATIENCE

CASES = os.environ.get("DIMM_FUZZ_CASES")
fuzz = settings(
    max_examples=int(CASES or 300),
    derandomize=CASES is None,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ],
)

UINT32 = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.integers(0, 64), st.sampled_from([240, 320, 480, 640, 65535, 2**31, 2**32 - 1]), UINT32)
NUMBERS = st.one_of(
    st.floats(width=64),
    st.floats(-2, 2),
    st.floats(1, 1000),
    st.sampled_from([0.0, 1e-300, 1e300, -1.0, float("nan"), float("inf")]),
)
MODELS = st.one_of(
    st.sampled_from([*DISTORTION_MODELS, "", "none", "pinhole", "fisheye", "radtan", "rational", "Plumb Bob"]),
    st.text("abcé\0", max_size=6),
)


def some(draw, count: int, most: int = 3) -> set[int]:
    """Which of a message's parts are to be wild; none, for one message in four."""
    return draw(st.sets(st.integers(0, count - 1), max_size=most))


@st.composite
def camera_infos(draw) -> CameraInfo:
    """A good message with up to three wild parts, so that many get far."""
    wild = some(draw, 7)
    model = draw(st.sampled_from(sorted(DISTORTION_MODELS)))
    message = CameraInfo(width=draw(st.integers(14, 700)), height=draw(st.integers(14, 700)), distortion_model=model)
    message.d = draw(st.lists(st.floats(-0.5, 0.5), min_size=4, max_size=4)) + [0.0] * (
        max(DISTORTION_MODELS[model]) - 4
    )
    focal = st.floats(50, 2000)
    message.k = [draw(focal), 0.0, draw(st.floats(0, 700)), 0.0, draw(focal), draw(st.floats(0, 700)), 0.0, 0.0, 1.0]
    if 0 in wild:
        message.width = draw(SIZES)
    if 1 in wild:
        message.height = draw(SIZES)
    if 2 in wild:
        message.distortion_model = draw(MODELS).replace("\0", "?")
    if 3 in wild:
        message.d = draw(st.lists(NUMBERS, max_size=14))
    if 4 in wild:
        message.k = draw(st.lists(NUMBERS, min_size=9, max_size=9))
    if 5 in wild:
        message.binning_x, message.binning_y = draw(SIZES), draw(SIZES)
    if 6 in wild:
        message.roi = RegionOfInterest(
            x_offset=draw(SIZES), y_offset=draw(SIZES), width=draw(SIZES), height=draw(SIZES)
        )
    return message


@st.composite
def images(draw) -> Image:
    """A good message with up to three wild parts; what is not wild fits what is."""
    wild = some(draw, 5)
    message = Image(
        height=2 * draw(st.integers(1, 24)),
        width=2 * draw(st.integers(1, 32)),
        encoding=draw(st.sampled_from(ENCODINGS)),
    )
    if 0 in wild:
        message.encoding = draw(
            st.one_of(st.sampled_from(["16UC1", "32FC1", "64FC4", "8SC3"]), st.text("rgb8UC\0é ", max_size=8))
        ).replace("\0", "?")
    if 1 in wild:
        message.height = draw(SIZES)
    if 2 in wild:
        message.width = draw(SIZES)
    message.step = min(8 * message.width + draw(st.integers(0, 5)), 2**32 - 1)
    if 3 in wild:
        message.step = draw(st.one_of(UINT32, st.integers(0, 8 * 64)))
    length = 3 * message.height * message.step
    if 4 in wild:
        length = draw(st.one_of(st.sampled_from([0, 1, message.height * message.step]), st.integers(0, 1 << 14)))
    message.is_bigendian = draw(st.sampled_from([0, 1, 255]))
    message.data = array.array("B", np.random.default_rng(draw(st.integers(0, 9))).bytes(min(length, 1 << 17)))
    return message


@st.composite
def compressed_images(draw) -> CompressedImage:
    format = draw(
        st.sampled_from(
            [
                "jpeg",
                "png",
                "rgb8; jpeg compressed bgr8",
                "bgr8; png compressed bgr8",
                "16UC1; compressedDepth png",
                "",
                "?",
            ]
        )
    )
    start = draw(st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"RIFF", b"GIF89a"]))
    return CompressedImage(format=format, data=array.array("B", start + draw(st.binary(max_size=64))))


class RandomTokens:
    """Stands in for the encoder's network, which sees only pixels; everything before and after it is the real thing."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder

    def __getattr__(self, name: str):
        return getattr(self._encoder, name)

    def encode(self, pixels: torch.Tensor) -> Tokens:
        assert torch.isfinite(pixels).all()
        count = pixels.shape[-2] * pixels.shape[-1] // PATCH**2
        generator, encoder = torch.Generator().manual_seed(count), self._encoder
        sizes = ((1, count, encoder.dim), (1, encoder.context_dim), (1, encoder.cls_dim))
        return Tokens(*(torch.randn(size, generator=generator) for size in sizes))


@pytest.fixture(scope="module")
def localizer(encoder) -> Localizer:
    """With an untrained map: its rays are noise."""
    torch.manual_seed(0)
    head = MapHead(encoder.dim, encoder.context_dim, HeadConfig(mappers=2, width=32, depth=1))
    header = MapHeader(
        name="noise",
        frame_id="map",
        created="",
        dimm_version=__version__,
        encoder=encoder.config,
        encoder_sha256=encoder.weights.sha256,
        encoder_origin=encoder.weights.origin,
        patch_dim=encoder.dim,
        context_dim=encoder.context_dim,
        head=head.config,
        training=TrainingConfig(),
        origin=(0.0, 0.0, 0.0),
        radius=1.0,
        sources=(),
    )
    return Localizer(SceneMap(header, head), RandomTokens(encoder))


def said(function, *arguments):
    """What a function gives, or None when it says in one sentence why not; anything else that it raises is a
    failure.
    """
    try:
        return function(*arguments)
    except DimmError as error:
        text = str(error)
        assert text and "\n" not in text and len(text) < 600, text
        return None


@pytest.mark.long
@fuzz
@given(message=camera_infos())
def test_camera_info(message: CameraInfo, localizer: Localizer) -> None:
    camera = said(camera_from_info, message)
    if camera is None:
        return
    assert isinstance(camera, Camera) and hash(camera) == hash(camera)
    size = (camera.height, camera.width, 3)
    if camera.height * camera.width > 1 << 20:
        size = (48, 64, 3)  # no computer has the image that this camera would send
    estimate = said(localizer.localize, np.full(size, 90, np.uint8), camera)
    event("camera refused later" if estimate is None else f"localized, {camera.distortion_model}")
    if estimate is not None:
        assert np.isfinite(estimate.world_from_camera).all() and np.isfinite(estimate.covariance).all()
        assert not estimate.accepted or np.linalg.eigvalsh(estimate.covariance).min() > 0


@fuzz
@given(message=images())
def test_image(message: Image) -> None:
    image = said(to_rgb, message)
    event("refused" if image is None else "decoded")
    if image is not None:
        assert image.shape == (message.height, message.width, 3) and image.dtype == np.uint8


@fuzz
@given(message=compressed_images())
@example(
    message=CompressedImage(format="gif", data=array.array("B", b"GIF89a\xff\xff\xff\xff\0\0\0;"))
)  # it promises four gigapixels
def test_compressed_image(message: CompressedImage) -> None:
    image = said(to_rgb, message)
    if image is not None:
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


class AnyMap(KnownPose):
    """The node's map in the fuzzing: the real localizer around random tokens."""

    def __init__(self, localizer: Localizer) -> None:
        super().__init__()
        self._localizer = localizer

    def localize(self, image: np.ndarray, camera: Camera) -> Estimate:
        return self._localizer.localize(image, camera)


STAMPS = st.one_of(
    st.tuples(st.integers(-(2**31), 2**31 - 1), UINT32),
    st.sampled_from([(0, 0), (-1, 0), (2**31 - 1, 2**32 - 1), (-(2**31), 0)]),
)
NAMES = st.sampled_from(["camera_optical_frame", "", "/camera", "no such frame", "é" * 300])


@pytest.mark.long
def test_the_node_outlives_every_message(make_robot, localizer: Localizer) -> None:
    """Each image, however wild, gets a status, and the good one after it is answered."""
    robot = make_robot(
        localizer=AnyMap(localizer), base_frame="", tf_mode="none", max_image_age=0.0, acceptance__min_inlier_ratio=0.0
    )
    robot.wait_ready()
    count = lambda: robot.collector.reports[-1].message.received if robot.collector.reports else 0  # noqa: E731

    @settings(fuzz, phases=[Phase.explicit, Phase.generate])  # a dead node cannot be asked again for a smaller case
    @given(info=camera_infos(), message=images(), stamp=STAMPS, info_stamp=STAMPS, frame=NAMES)
    def send(info: CameraInfo, message: Image, stamp: tuple[int, int], info_stamp: tuple[int, int], frame: str) -> None:
        before = robot.node._rig.cameras[0].info.count
        info.header.stamp, info.header.frame_id = Time(sec=info_stamp[0], nanosec=info_stamp[1]), frame
        robot._infos.publish(info)
        robot.wait(lambda: robot.node._rig.cameras[0].info.count > before)
        message.header.stamp, message.header.frame_id = Time(sec=stamp[0], nanosec=stamp[1]), frame
        received, reports = count(), len(robot.collector.reports)
        robot._images.publish(message)
        assert robot.collector.wait_for(lambda: count() > received, PATIENCE), "no status for an image"
        reasons = [one.message.reason for one in robot.collector.reports[reports:]]
        assert not any("Unexpected" in reason for reason in reasons), reasons

    send()
    robot.localizer.localize = KnownPose().localize
    stamp = robot.localize()
    assert robot.report_of(stamp).message.accepted
