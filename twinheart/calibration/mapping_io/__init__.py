"""Files of electro-anatomical maps: one module a format, one function to read them all."""

from twinheart.calibration.mapping_io.read import read_map, read_shell

__all__ = ["read_map", "read_shell"]
