"""The one error that the launcher shows its user."""

from __future__ import annotations


class LaunchError(ValueError):
    """Something the user can mend; the text says what is wrong and names the fix."""
