r"""A recorded bag played into the localizer.

ros2 launch dimm_ros replay.launch.py bagfile:=/bags/drive map:=/maps/kitchen.dimm \
    image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("dimm_ros")
    arguments = [
        DeclareLaunchArgument("bagfile", description="The bag to play (sqlite3 or mcap)"),
        DeclareLaunchArgument("map", description="Path of the map file"),
        DeclareLaunchArgument("image", description="The bag's topic of camera images"),
        DeclareLaunchArgument("camera_info", description="The bag's topic of the camera's calibration"),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed as a multiple of the recording's"),
        DeclareLaunchArgument(
            "drop_transforms",
            default_value="map:odom",
            description="The recorded transform that the localizer replaces",
        ),
        DeclareLaunchArgument("visualize", default_value="true", description="Show poses and frames in RViz"),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="Namespace of localizer, player and RViz; a bag's /tf and /tf_static are played into it",
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "localizer.yaml"]),
            description="YAML file of the parameters",
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    visualize = IfCondition(LaunchConfiguration("visualize"))
    handed_on = ("map", "image", "camera_info", "namespace", "params_file", "log_level")
    localization = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "localization.launch.py"])),
        launch_arguments={"use_sim_time": "true", **{name: LaunchConfiguration(name) for name in handed_on}}.items(),
    )
    transforms = [("/tf", "tf"), ("/tf_static", "tf_static")]
    # Plays once the map is loaded, so that the bag's beginning is not lost.
    player = Node(
        package="dimm_ros",
        executable="player",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        arguments=[
            LaunchConfiguration("bagfile"),
            "--rate",
            LaunchConfiguration("rate"),
            "--clock",
            "--wait-ready",
            "--drop-transforms",
            LaunchConfiguration("drop_transforms"),
        ],
        remappings=transforms,
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([share, "config", "localizer.rviz"])],
        parameters=[{"use_sim_time": True}],
        remappings=transforms,
        condition=visualize,
    )
    # Once: the processes that it ends must not be ended again by one another.
    end = RegisterEventHandler(
        OnProcessExit(on_exit=[Shutdown(reason="one of the replay's processes has ended")], handle_once=True)
    )
    return LaunchDescription(
        [*arguments, OpaqueFunction(function=_need_rviz, condition=visualize), end, localization, player, rviz]
    )


def _need_rviz(context: LaunchContext) -> None:
    """Say what is missing before anything has been started."""
    try:
        get_package_prefix("rviz2")
    except PackageNotFoundError:
        raise RuntimeError(
            "rviz2 is not installed; install it (rosdep install), or start with visualize:=false."
        ) from None
