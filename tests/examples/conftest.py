"""Fixtures of the examples' tests."""

from tests.command_line import command_line

__all__ = ["command_line"]
