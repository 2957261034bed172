"""From rays to pose: rotation RANSAC, centre RANSAC, joint refinement, covariance; and focal length from rays or
landmarks.
"""

from dimm_ros.solver.focal import refine_focal, search_focal
from dimm_ros.solver.pose import PoseSolution, solve_pose, solve_rig

__all__ = ["PoseSolution", "refine_focal", "search_focal", "solve_pose", "solve_rig"]
