"""The localizer on a robot.

ros2 launch dimm_ros localization.launch.py map:=/maps/kitchen.dimm image:=/camera/image_raw camera_info:=/camera/camera_info
"""

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler, SetEnvironmentVariable, TimerAction
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import Action, LaunchContext, LaunchDescription

#: A map that cannot be loaded is tried again after this long, seconds: the parameter may be mended, or the disk mounted.
RETRY_S = 5.0


def generate_launch_description() -> LaunchDescription:
    config = PathJoinSubstitution([FindPackageShare("dimm_ros"), "config"])
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node, /tf and /tf_static included"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock (simulation or bag)"),
        DeclareLaunchArgument(
            "params_file", default_value=PathJoinSubstitution([config, "localizer.yaml"]), description="YAML file of the parameters",
        ),
        DeclareLaunchArgument("autostart", default_value="true", description="Configure and activate the node; false leaves it to a manager"),
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


def _localizer(context: LaunchContext) -> list[Action]:
    """The node and what drives its lifecycle; a function, since an empty ``map`` must not overwrite the parameter file's."""
    # Launch does it, so that what waits for the node's transitions sees them; where launch does not, a manager does.
    overrides = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool), "autostart": False}
    if LaunchConfiguration("map").perform(context):
        overrides["map"] = ParameterValue(LaunchConfiguration("map"), value_type=str)
    node = LifecycleNode(
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
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))
    configure = EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_CONFIGURE))
    activate = EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=Transition.TRANSITION_ACTIVATE))
    return [
        # On the process's start, not at once: a respawned process must be configured, too.
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=[configure]), condition=autostart),
        RegisterEventHandler(
            OnStateTransition(target_lifecycle_node=node, start_state="configuring", goal_state="inactive", entities=[activate]),
            condition=autostart,
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node, start_state="configuring", goal_state="unconfigured",
                entities=[TimerAction(period=RETRY_S, actions=[configure])],
            ),
            condition=autostart,
        ),
        node,
    ]
