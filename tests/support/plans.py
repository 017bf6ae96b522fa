"""What a call plans, as tests ask for it."""

import sparseconv as sc


def dense_kernels(isa, kind="rows"):
    """The kernels ("rows" or "gradient") that compute without skipping: with AMX one or the other, as sizes decide."""
    return {f"{kind}_dense", f"{kind}_tiles"} if isa.startswith("amx") else {f"{kind}_dense"}


class Planner:
    """Stands for the package where a test wants the plan of a call instead of its result."""

    def __getattr__(self, operation):
        return lambda *arguments, **options: sc.plan(operation, *arguments, **options)
