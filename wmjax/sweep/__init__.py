"""Plans, grids of plans, and the one engine that sweeps them; knows no model."""
