"""Keys, bits, visible units, errors, files, provenance and observers; knows no model."""
