"""From a table on disk to a panel, and from a panel to visible units; knows no model."""
