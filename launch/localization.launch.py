"""The localizer on a robot.

ros2 launch dimm_ros localization.launch.py map:=/maps/kitchen.dimm image:=/camera/image_raw
camera_info:=/camera/camera_info
"""

import os
import tempfile

import yaml
from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

#: Where Fast DDS looks for its profile: up to version 2 (Jazzy), and from 3 on (Kilted).
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

CONFIG = PathJoinSubstitution([FindPackageShare("dimm_ros"), "config"])


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            "namespace", default_value="", description="Namespace of the node, /tf and /tf_static included"
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="false", description="Take the time from /clock (simulation or bag)"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([CONFIG, "localizer.yaml"]),
            description="YAML file of the parameters",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="The node configures and activates itself; false leaves it to a manager",
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
        DeclareLaunchArgument("use_respawn", default_value="false", description="Start the node again when it ends"),
        DeclareLaunchArgument(
            "map", default_value="", description="Path of the map file; empty takes the parameter file's"
        ),
        DeclareLaunchArgument("image", default_value="image", description="Topic of the camera's images"),
        DeclareLaunchArgument(
            "camera_info", default_value="camera_info", description="Topic of the camera's calibration"
        ),
        DeclareLaunchArgument(
            "fastdds_profile",
            default_value="true",
            description="Room for whole images in Fast DDS's shared memory (config/fastdds.xml), where no profile is "
            "exported",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_localizer)])


def _localizer(context: LaunchContext) -> list[Action]:
    """The node and its middleware's profile; a function, since both depend on what is given and on the environment."""
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=bool) for name in ("use_sim_time", "autostart")
    }
    if LaunchConfiguration("map").perform(context):  # an empty one must not overwrite the parameter file's
        overrides["map"] = ParameterValue(LaunchConfiguration("map"), value_type=str)
    profile = []
    exported = any(os.environ.get(name) for name in PROFILE_VARIABLES)
    if LaunchConfiguration("fastdds_profile").perform(context).lower() in ("true", "1") and not exported:
        profile = [
            SetEnvironmentVariable(name, PathJoinSubstitution([CONFIG, "fastdds.xml"])) for name in PROFILE_VARIABLES
        ]
    node = Node(
        package="dimm_ros",
        executable="localizer",
        name="localizer",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        respawn=LaunchConfiguration("use_respawn"),
        respawn_delay=2.0,
        parameters=[_for_any_namespace(LaunchConfiguration("params_file").perform(context)), overrides],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        remappings=[
            ("/tf", "tf"),
            ("/tf_static", "tf_static"),
            ("image", LaunchConfiguration("image")),
            ("camera_info", LaunchConfiguration("camera_info")),
        ],
    )
    return [*profile, node]


def _for_any_namespace(path: str) -> str:
    """The parameter file; where it has a section ``localizer:``, which ROS takes for ``/localizer`` alone, a copy that
    names it ``/**/localizer:``."""
    try:
        with open(path, encoding="utf-8") as file:
            tree = yaml.safe_load(file)
    except (OSError, ValueError, yaml.YAMLError):  # the node says what is wrong with it
        return path
    if not isinstance(tree, dict) or not {"localizer", "/localizer"} & set(tree):
        return path
    tree = {"/**/localizer" if name in ("localizer", "/localizer") else name: section for name, section in tree.items()}
    with tempfile.NamedTemporaryFile("w", prefix="localizer_", suffix=".yaml", delete=False, encoding="utf-8") as copy:
        yaml.safe_dump(tree, copy, sort_keys=False)
    return copy.name
