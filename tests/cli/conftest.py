"""Fixtures of the command line's tests."""

from tests.command_line import command_line, meeting

__all__ = ["command_line", "meeting"]
