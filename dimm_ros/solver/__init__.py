"""From rays to pose: rotation RANSAC, centre RANSAC, joint refinement, covariance; and focal length from rays."""

from dimm_ros.solver.focal import estimate_focal, refine_focal, search_focal
from dimm_ros.solver.pose import PoseSolution, solve_pose, solve_rig

__all__ = ["PoseSolution", "estimate_focal", "refine_focal", "search_focal", "solve_pose", "solve_rig"]
