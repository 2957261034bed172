"""The localizer on a robot.

ros2 launch dimm_ros localization.launch.py map:=/maps/kitchen.safetensors image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription


def generate_launch_description() -> LaunchDescription:
    config = PathJoinSubstitution([FindPackageShare("dimm_ros"), "config"])
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, /tf and /tf_static included"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock (simulation or bag)"),
        DeclareLaunchArgument(
            "params_file", default_value=PathJoinSubstitution([config, "localizer.yaml"]), description="YAML file of the parameters",
        ),
        DeclareLaunchArgument("autostart", default_value="true", description="Localize from the start; false waits for ~/activate"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
        DeclareLaunchArgument("use_respawn", default_value="false", description="Start the node again when it ends"),
        DeclareLaunchArgument("map", default_value="", description="Path of the map file; empty takes the parameter file's"),
        DeclareLaunchArgument("image", default_value="image", description="Topic of the camera's images"),
        DeclareLaunchArgument("camera_info", default_value="camera_info", description="Topic of the camera's calibration"),
        DeclareLaunchArgument(
            "fastdds_profile", default_value="true", description="Room for whole images in Fast DDS's shared memory (config/fastdds.xml)",
        ),
    ]
    profile = SetEnvironmentVariable(
        "FASTRTPS_DEFAULT_PROFILES_FILE", PathJoinSubstitution([config, "fastdds.xml"]),
        condition=IfCondition(LaunchConfiguration("fastdds_profile")),
    )
    return LaunchDescription([*arguments, profile, OpaqueFunction(function=_localizer)])


def _localizer(context: LaunchContext) -> list[Node]:
    """The node; a function, since an empty ``map`` must not overwrite the parameter file's."""
    overrides = {
        "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
        "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
    }
    if LaunchConfiguration("map").perform(context):
        overrides["map"] = ParameterValue(LaunchConfiguration("map"), value_type=str)
    return [
        Node(
            package="dimm_ros",
            executable="localizer",
            name="localizer",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            respawn=LaunchConfiguration("use_respawn"),
            respawn_delay=2.0,
            parameters=[LaunchConfiguration("params_file"), overrides],
            arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
            remappings=[
                ("/tf", "tf"),
                ("/tf_static", "tf_static"),
                ("image", LaunchConfiguration("image")),
                ("camera_info", LaunchConfiguration("camera_info")),
            ],
        ),
    ]
