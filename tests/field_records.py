"""Classes of `_conv` that keep what they were told, for tests that run kernels elsewhere."""

from sparseconv import _conv, geometry, layout, planning, prepare


class Map(_conv.Map):
    def __init__(self, **fields):
        super().__init__(**fields)
        self.fields = fields


class View(_conv.View):
    def __init__(self, *fields):
        super().__init__(*fields)
        self.fields = fields


class WeightView(_conv.WeightView):
    def __init__(self, *fields):
        super().__init__(*fields)
        self.fields = fields


class Mask(_conv.Mask):
    def __init__(self, *fields):
        super().__init__(*fields)
        self.fields = fields


def forget_plans():
    """Empties the caches that hold objects of `_conv`."""
    for module in (geometry, layout, planning, prepare):
        for value in vars(module).values():
            getattr(value, "cache_clear", lambda: None)()
