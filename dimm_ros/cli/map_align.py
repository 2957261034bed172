"""``dimm map align``: a map is brought into the frame of an occupancy grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from dimm_ros.cli import options
from dimm_ros.cli.console import note, say, say_json
from dimm_ros.cli.verbs import Verb

if TYPE_CHECKING:
    import numpy as np

    from dimm_ros.data.point_pairs import PointPairs
    from dimm_ros.mapping.align import FittedFrame

_EPILOG = (
    "Examples:\n\n  dimm map align office.dimm nav2/map.yaml -o office_nav2.dimm --pair 0.1,0.2,1.1=3.4,5.1 "
    "--pair 4,0.3,1.1=7.2,5.4 "
    "--pair 4.1,3,1=7.1,8.2\n\n  dimm map align office.dimm nav2/map.yaml -o office_nav2.dimm --clicks clicks.csv\n\n"
    "  dimm map align office.dimm nav2/map.yaml -o office_nav2.dimm --poses tour_bag amcl.tum"
)


def register(app: typer.Typer) -> None:
    app.command("align", cls=Verb, epilog=_EPILOG)(run)


def run(
    map_file: Annotated[Path, typer.Argument(metavar="MAP", help="a map that 'dimm map' wrote", show_default=False)],
    grid_file: Annotated[
        Path,
        typer.Argument(
            metavar="GRID", help="the YAML file of an occupancy grid, as map_saver writes it", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="the map file to write")],
    pair: Annotated[
        Optional[list[str]],
        typer.Option(help="x,y,z=X,Y: a point of the map and the same one on the grid; three times or more"),
    ] = None,
    pairs_file: Annotated[Optional[Path], typer.Option("--pairs", help="the same, in a text file, one a line")] = None,
    clicks: Annotated[
        Optional[Path],
        typer.Option(
            help="points clicked in RViz, by turns in the map and on the grid: /clicked_point as CSV, see docs/maps.md"
        ),
    ] = None,
    poses: Annotated[
        Optional[tuple[Path, Path]],
        typer.Option(
            help="one drive twice: in the map's frame (the mapped bag or folder, or a TUM file), and the robot's "
            "on the grid (a TUM file)"
        ),
    ] = None,
    up: Annotated[
        Optional[str],
        typer.Option(help="which axis of the map points up, such as +z; default: as its images' uprights say"),
    ] = None,
    floor: Annotated[float, typer.Option(help="height of the floor in the map's frame, metres: 0 in the grid's")] = 0.0,
    frame: Annotated[str, typer.Option(help="the grid's frame")] = "map",
    map_frame: options.MapFrame = "map",
    tolerance: Annotated[float, typer.Option(min=1e-3, help="how far points may be apart, metres")] = 0.5,
    overwrite: options.Overwrite = False,
    as_json: options.AsJson = False,
) -> None:
    """Bring a map into the frame of a robot's occupancy grid: poses are then those that nav2 expects.

    MAP stays as it is, unless it is the OUTPUT that --overwrite replaces. Beside the new map stands
    OUTPUT.grid.png: the map over the grid. Look at it.
    """
    import numpy as np

    from dimm_ros.data.occupancy_grid import FREE, read_grid
    from dimm_ros.data.point_pairs import parse_pairs, read_clicks, read_pairs
    from dimm_ros.evaluation.map_figures import draw_on_grid
    from dimm_ros.mapping.align import UPS, align_map, check_in_map, fit_pairs, fit_trajectories, lowered, up_of
    from dimm_ros.scene_map import SceneMap

    if up is not None and up not in UPS:
        raise typer.BadParameter(f"'{up}' is none of {', '.join(UPS)}.", param_hint="--up")
    if sum(given is not None for given in (pair or None, pairs_file, clicks, poses)) != 1:
        raise typer.BadParameter(
            "give either --pair (several times), --pairs, --clicks or --poses.", param_hint="--pair"
        )
    options.check_new_map(output, overwrite)
    scene_map, grid = SceneMap.load(map_file), read_grid(grid_file)
    how = {"sure_of_up": up is not None, "tolerance": tolerance}
    up = up or up_of(scene_map)
    pairs: PointPairs | None = None
    if poses is not None:
        in_map = _trajectory(poses[0], map_frame)
        check_in_map(scene_map, in_map, tolerance)
        fitted = fit_trajectories(in_map, _trajectory(poses[1], map_frame), up, **how)
    else:
        pairs = parse_pairs(pair) if pair else read_pairs(pairs_file) if pairs_file is not None else read_clicks(clicks)
        fitted = fit_pairs(pairs, up, **how)
    fitted = lowered(fitted, floor)
    aligned = align_map(map_file, output, fitted, frame, grid_file.name)
    views = aligned.mapped_poses()
    drawn = None
    if pairs is not None:
        drawn = np.stack(
            [
                (pairs.source @ fitted.target_from_source[:3, :3].T + fitted.target_from_source[:3, 3])[:, :2],
                pairs.target,
            ],
            axis=1,
        )
    picture = draw_on_grid(output.with_name(output.name + ".grid.png"), grid, aligned, views, drawn)
    free = None if views is None else float(np.mean(grid.states_at(views[:, :2, 3]) == FREE))
    if as_json:
        say_json(
            {
                "map": str(output),
                "picture": str(picture),
                "frame_id": frame,
                "up": up,
                "target_from_source": fitted.target_from_source.tolist(),
                "residuals_m": fitted.residuals.tolist(),
                "rms_m": fitted.rms,
                "scale": fitted.scale,
                "views_in_free_cells": free,
            }
        )
        return
    if pairs is not None:
        for number, residual in enumerate(fitted.residuals, 1):
            say(f"pair {number}: {100 * residual:.1f} cm off")
    say(_told(fitted, up))
    if pairs is not None and len(pairs) == 2:
        note("two pairs always fit but for their distance: a third one would show a mistake")
    if free is not None:
        say(f"{100 * free:.0f} % of the mapped views are in free cells of {grid.name}")
    if free is not None and free < 0.5:
        note(
            "warning: most mapped views are not where the grid is free; look at the picture, and whether points "
            "are mixed up"
        )
    say(f"map: {output}, in frame '{frame}'")
    say(f"picture: {picture}")


def _told(fitted: FittedFrame, up: str) -> str:
    """The transform in words; where the map's x axis is upright it has no heading."""
    import numpy as np

    move = fitted.target_from_source
    shift = ", ".join(f"{value:.3f}" for value in move[:3, 3])
    degrees = np.degrees(np.arctan2(move[1, 0], move[0, 0]))
    heading = "" if up[1] == "x" else f", the map's x axis points {degrees:.2f} deg from the grid's"
    return f"grid_from_map by {fitted.method}: shift ({shift}) m{heading}; {100 * fitted.rms:.1f} cm (root mean square)"


def _trajectory(path: Path, map_frame: str) -> list[tuple[int, np.ndarray]]:
    """Stamps and poses of a TUM file, or of the images of a recording."""
    from dimm_ros.data.open import open_recording
    from dimm_ros.data.tum_rgbd import read_trajectory

    if path.is_file() and path.suffix in (".tum", ".txt"):
        return read_trajectory(path)[0]
    return [(frame.stamp_ns, frame.world_from_camera) for frame in open_recording(path, map_frame=map_frame).frames]
