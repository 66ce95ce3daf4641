"""The command line: parses, calls the library and reports; one file a command group."""

from twinheart.cli.app import main

__all__ = ["main"]
