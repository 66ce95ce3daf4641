"""The errors twinheart raises: what is wrong, what was got, what was expected, what to do."""


class TwinheartError(Exception):
    """Base of every error that input or machine can cause; its text is one clear line."""


class InputError(TwinheartError):
    """A file, case file or option cannot be used as it is."""


class MeshError(TwinheartError):
    """A mesh is not fit for simulation."""


class UnitError(TwinheartError):
    """A unit is unknown or cannot be told from the data."""


class ModelError(TwinheartError):
    """A cell model, conductivity or stimulus is unknown or out of range."""


class SolverError(TwinheartError):
    """A numerical method cannot run as asked, or stopped because the solution broke down."""


class OutputError(TwinheartError):
    """A result cannot be written; nothing half-written is left behind."""
