"""From rays to pose: rotation RANSAC, centre RANSAC, joint refinement, covariance."""
