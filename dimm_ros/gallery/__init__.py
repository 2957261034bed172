"""A furnished room to try everything in: renderer, trajectories, bag writer."""
