"""A recorded bag played into the localizer.

ros2 launch dimm_ros replay.launch.py bagfile:=/bags/drive map:=/maps/kitchen.dimm image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from launch.actions import DeclareLaunchArgument, EmitEvent, IncludeLaunchDescription, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("dimm_ros")
    arguments = [
        DeclareLaunchArgument("bagfile", description="The bag to play (sqlite3 or mcap)"),
        DeclareLaunchArgument("map", description="Path of the map file"),
        DeclareLaunchArgument("image", description="The bag's topic of camera images"),
        DeclareLaunchArgument("camera_info", description="The bag's topic of the camera's calibration"),
        DeclareLaunchArgument("rate", default_value="1.0", description="Speed as a multiple of the recording's"),
        DeclareLaunchArgument("drop_transforms", default_value="map:odom", description="The recorded transform that the localizer replaces"),
        DeclareLaunchArgument("visualize", default_value="true", description="Show poses and frames in RViz"),
        DeclareLaunchArgument(
            "params_file", default_value=PathJoinSubstitution([share, "config", "localizer.yaml"]), description="YAML file of the parameters",
        ),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
    ]
    localization = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "localization.launch.py"])),
        launch_arguments={
            "use_sim_time": "true",
            "map": LaunchConfiguration("map"),
            "image": LaunchConfiguration("image"),
            "camera_info": LaunchConfiguration("camera_info"),
            "params_file": LaunchConfiguration("params_file"),
            "log_level": LaunchConfiguration("log_level"),
        }.items(),
    )
    # Plays once the map is loaded, so that the bag's beginning is not lost.
    player = Node(
        package="dimm_ros",
        executable="player",
        output="screen",
        arguments=[
            LaunchConfiguration("bagfile"), "--rate", LaunchConfiguration("rate"), "--clock", "--wait-ready",
            "--drop-transforms", LaunchConfiguration("drop_transforms"),
        ],
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([share, "config", "localizer.rviz"])],
        parameters=[{"use_sim_time": True}],
        condition=IfCondition(LaunchConfiguration("visualize")),
    )
    end = RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[EmitEvent(event=Shutdown(reason="the bag has ended"))]))
    return LaunchDescription([*arguments, localization, player, rviz, end])
