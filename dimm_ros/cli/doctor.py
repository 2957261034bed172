"""``dimm doctor``: is a recording fit to be mapped, or a robot fit to localize."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import EXIT_CODES, EXIT_FINDINGS, bars, say, say_json, show
from dimm_ros.cli.verbs import Verb
from dimm_ros.errors import InputError

_EPILOG = (
    "Examples:\n\n  dimm doctor tour_bag\n\n  dimm doctor redkitchen --split near:train --json\n\n"
    "  dimm doctor --live --image /camera/image_raw --camera-info /camera/camera_info\n\n"
    f"{EXIT_CODES} Warnings do not count."
)


def register(app: typer.Typer) -> None:
    app.command("doctor", cls=Verb, epilog=_EPILOG)(run)


def run(
    source: Annotated[
        Optional[Path], typer.Argument(metavar="DATA", help="bag or folder of posed images", show_default=False)
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="examine the running robot instead (needs ROS 2)")] = False,
    split: options.Split = None,
    results: options.Results = options.RESULTS,
    as_json: options.AsJson = False,
    image_topic: options.ImageTopic = None,
    camera_info_topic: options.CameraInfoTopic = None,
    pose_topic: options.PoseTopic = None,
    map_frame: options.MapFrame = "map",
    image: Annotated[str, typer.Option(help="live: image topic")] = "/camera/image_raw",
    camera_info: Annotated[str, typer.Option(help="live: camera_info topic")] = "/camera/camera_info",
    base_frame: Annotated[str, typer.Option(help="live: the robot's frame")] = "base_link",
    odom_frame: Annotated[str, typer.Option(help="live: the odometry's frame; empty when there is none")] = "odom",
    map_file: Annotated[
        Optional[Path], typer.Option("--map", help="live: the map that the localizer is to load")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, max=600.0, help="live: how long to listen")] = 5.0,
) -> None:
    """Check a recording before a map is trained on it: intrinsics and poses against the images, coverage, blur, time,
    TF.

    With --live, check the robot that is running now: topics, QoS, rates, stamps, TF, camera_info.
    """
    if live == (source is not None):
        raise typer.BadParameter("Give either a recording (dimm doctor DATA) or --live.")
    if live:
        _live(
            as_json,
            image=image,
            camera_info=camera_info,
            base_frame=base_frame,
            odom_frame=odom_frame,
            map_file=map_file,
            seconds=seconds,
        )
        return
    from dimm_ros.doctor.examine import examine
    from dimm_ros.doctor.findings import Severity
    from dimm_ros.doctor.report import table, write_report
    from dimm_ros.evaluation.report import new_results

    with bars() as progress:
        chosen = options.bag_options(image_topic, camera_info_topic, pose_topic, map_frame)
        examination = examine(source, split=split, progress=progress, **chosen)
    with new_results(f"doctor_{examination.recording.name}", results) as folder:
        write_report(folder, examination)
    if as_json:
        say_json(examination.as_dict())
    else:
        show(table(f"{examination.recording.name}: {len(examination.recording.frames)} images", examination.findings))
        say(f"picture and findings.json: {folder} (also as {results / 'latest'})")
    if examination.worst == Severity.PROBLEM:
        raise typer.Exit(EXIT_FINDINGS)


def _live(as_json: bool, **wanted) -> None:
    from dimm_ros.doctor.findings import Severity
    from dimm_ros.doctor.report import table

    try:
        from dimm_ros.doctor.live_ros import LiveOptions, examine_live
    except ImportError as error:
        raise InputError(
            f"--live needs ROS 2's Python packages ({error.name or error} is missing); run 'source "
            "/opt/ros/<distribution>/setup.bash' first."
        ) from error
    seconds = wanted["seconds"]
    with bars() as progress:
        findings = examine_live(
            LiveOptions(**wanted), lambda done: progress("listening", min(round(done), round(seconds)), round(seconds))
        )
    worst = max(finding.severity for finding in findings)
    if as_json:
        say_json({"verdict": worst.name.lower(), "findings": [finding.as_dict() for finding in findings]})
    else:
        show(table("the robot, now", findings))
    if worst == Severity.PROBLEM:
        raise typer.Exit(EXIT_FINDINGS)
