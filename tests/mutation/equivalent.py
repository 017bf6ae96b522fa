"""Mutants that change no result, looked at one by one: as `python tests/mutation` shows them, and why."""

EQUIVALENT: dict[str, str] = {}
