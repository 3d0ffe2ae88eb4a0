"""How long a worker may take for a call before it counts as hung."""

from __future__ import annotations

FACTOR = 20
"""A call that takes so many times the longest of its kind before does not come back."""
FLOOR_S = 60.0
"""A busy machine may hold any call up for so long."""


class Patience:
    """Limits learned from the calls so far; all workers are waited for together."""

    def __init__(self, first_s: float) -> None:
        self._first_s = first_s
        self._longest_s: dict[str, float] = {}

    def limit_s(self, call: str) -> float:
        """The limit of the next call of this kind; the first may load or compile."""
        longest_s = self._longest_s.get(call)
        if longest_s is None:
            return self._first_s
        return max(min(self._first_s, FLOOR_S), FACTOR * longest_s)

    def learn(self, call: str, seconds: float) -> None:
        """A call has ended after so long."""
        self._longest_s[call] = max(seconds, self._longest_s.get(call, 0.0))

    def start_anew(self) -> None:
        """The workers are new ones: they load and compile again."""
        self._longest_s.clear()
