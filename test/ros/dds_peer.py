"""A DDS participant that knows nothing of ROS: prints what the localizer publishes, one JSON object a line.

Arguments: domain, then how many poses to wait for. Run as a process of its own by test_three_processes.py.
"""

# The annotations below are read as types, so they must not be postponed.
import json
import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos, ReadCondition, SampleState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, int32, sequence, uint32
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

CONFIGURATION = """<CycloneDDS><Domain id="any">
  <General><Interfaces><NetworkInterface address="127.0.0.1"/></Interfaces>
    <AllowMulticast>false</AllowMulticast></General>
  <Discovery><ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>40</MaxAutoParticipantIndex>
    <Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Vector(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class Pose(IdlStruct, typename="geometry_msgs::msg::dds_::Pose_"):
    position: Vector
    orientation: Quaternion


@dataclass
class PoseWithCovariance(IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovariance_"):
    pose: Pose
    covariance: array[float64, 36]


@dataclass
class PoseWithCovarianceStamped(IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovarianceStamped_"):
    header: Header
    pose: PoseWithCovariance


@dataclass
class Transform(IdlStruct, typename="geometry_msgs::msg::dds_::Transform_"):
    translation: Vector
    rotation: Quaternion


@dataclass
class TransformStamped(IdlStruct, typename="geometry_msgs::msg::dds_::TransformStamped_"):
    header: Header
    child_frame_id: str
    transform: Transform


@dataclass
class TFMessage(IdlStruct, typename="tf2_msgs::msg::dds_::TFMessage_"):
    transforms: sequence[TransformStamped]


def main() -> None:
    domain_id, wanted = int(sys.argv[1]), int(sys.argv[2])
    domain = Domain(domain_id, CONFIGURATION)  # noqa: F841  kept alive
    participant = DomainParticipant(domain_id)
    qos = Qos(
        Policy.Reliability.Reliable(duration(seconds=1)),
        Policy.History.KeepLast(100),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    )
    readers = {
        "pose": DataReader(
            participant, Topic(participant, "rt/localization_pose", PoseWithCovarianceStamped, qos=qos), qos=qos
        ),
        "tf": DataReader(participant, Topic(participant, "rt/tf", TFMessage, qos=qos), qos=qos),
    }
    waiting = WaitSet(participant)
    for reader in readers.values():
        waiting.attach(ReadCondition(reader, SampleState.NotRead))
    say({"kind": "listening"})
    poses, ours, deadline = 0, 0, time.monotonic() + 240
    while (poses < wanted or not ours) and time.monotonic() < deadline:
        waiting.wait(duration(seconds=1))
        for sample in readers["pose"].take(100):
            poses += 1
            say(
                {
                    "kind": "pose",
                    **stamped(sample.header),
                    "position": vector(sample.pose.pose.position),
                    "orientation": quaternion(sample.pose.pose.orientation),
                    "covariance": list(sample.pose.covariance),
                }
            )
        for sample in readers["tf"].take(100):
            for one in sample.transforms:
                ours += one.header.frame_id == "map"
                say(
                    {
                        "kind": "tf",
                        **stamped(one.header),
                        "child": one.child_frame_id,
                        "position": vector(one.transform.translation),
                        "orientation": quaternion(one.transform.rotation),
                    }
                )


def stamped(header: Header) -> dict:
    return {"stamp_ns": header.stamp.sec * 10**9 + header.stamp.nanosec, "frame": header.frame_id}


def vector(value: Vector) -> list[float]:
    return [value.x, value.y, value.z]


def quaternion(value: Quaternion) -> list[float]:
    return [value.x, value.y, value.z, value.w]


def say(content: dict) -> None:
    print(json.dumps(content), flush=True)


main()
