"""C structs, filled with what extension modules are told, for tests that run kernels elsewhere."""

import ctypes
import functools
import re

import numpy as np
from places import KERNELS

from sparseconv._core import _conv, _pruning, _weights, call, geometry, layout


@functools.cache
def structs():
    """{name: ctypes.Structure} of the tasks, whose fields are numbers, pointers and structs before them."""
    found = {}
    scalars = {
        "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64, "uint32_t": ctypes.c_uint32,
        "size_t": ctypes.c_size_t, "float": ctypes.c_float, "double": ctypes.c_double,
    }  # fmt: skip
    headers = (KERNELS.parent / "include/sparseconv.h", KERNELS / "common/problem.h")
    text = "".join(header.read_text(encoding="utf-8") for header in headers)
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)
    for body, name in re.findall(r"typedef struct \{(.*?)\} (\w+);", text, re.DOTALL):
        fields = []
        for line in filter(None, map(str.strip, body.replace("\n", " ").split(";"))):
            if "(*" in line:
                fields.append((re.search(r"\(\*(\w+)\)", line)[1], ctypes.c_void_p))
                continue
            kind, names = re.fullmatch(r"(?:const )?(\w+) (.*)", line).groups()
            for one in names.split(","):
                pointer = "*" in one
                fields.append((one.strip(" *"), ctypes.c_void_p if pointer else found.get(kind) or scalars[kind]))
        found[name] = type(name, (ctypes.Structure,), {"_fields_": fields})
    return found


class Filled:
    """A C struct and the arrays that its pointers lead to: those that are read, and those that kernels write.

    `members` are filled structs within it. Pointers have names as "in.data"; arrays may be None.
    """

    def __init__(self, name, members=(), read=(), written=(), /, **numbers):
        members = dict(members)
        self.struct = structs()[name](**numbers, **{member: made.struct for member, made in members.items()})
        self.read = [array for made in members.values() for array in made.read] + self._point(dict(read))
        self.written = self._point(dict(written))

    def call(self, read, written, /, **numbers):
        """A copy with more arrays and numbers."""
        made = object.__new__(Filled)
        made.struct = type(self.struct).from_buffer_copy(self.struct)
        made.read, made.written = self.read + made._point(read), made._point(written)
        for name, value in numbers.items():
            setattr(made.struct, name, value)
        return made

    def _point(self, arrays):
        there = {path: array for path, array in arrays.items() if array is not None}
        for path, array in there.items():
            *outer, name = path.split(".")
            setattr(functools.reduce(getattr, outer, self.struct), name, array.ctypes.data)
        return list(there.values())


def table(values):
    """Integers, or tuples of them, one after the other."""
    return np.array(list(values), np.int64).reshape(-1)


def members(**made):
    """Those of these members that there are; `in_` stands for `in`."""
    return {name.rstrip("_"): one.filled for name, one in made.items() if one is not None}


class Map(_conv.Map):
    def __init__(self, **fields):
        super().__init__(**fields)
        names = ("row_table", "met_rows", "outer_strands", "strands", "gaps", "taps")
        tables = {name: table(fields[name]) for name in names}
        counted = {"met_row": "met_rows", "outer_strand": "outer_strands", "strand": "strands", "gap": "gaps"}
        sizes = {f"{name}_count": len(fields[many]) for name, many in counted.items()}
        plain = {name: value for name, value in fields.items() if name not in tables}
        self.filled = Filled("sc_map", (), tables, **plain, **sizes)


class View(_conv.View):
    def __init__(self, image, rows, column, channel, block):
        super().__init__(image, rows, column, channel, block)
        self.filled = Filled(
            "sc_view", (), {"rows": table(rows)},
            image_stride=image, column_stride=column, channel_stride=channel, block_stride=block,
        )  # fmt: skip


class Mask(_conv.Mask):
    def __init__(self, view, kind):
        super().__init__(view, kind)
        self.filled = Filled("sc_mask", members(view=view), kind="f?B".index(kind))


class Epilogue(_conv.Epilogue):
    def __init__(self, *, relu, residual=None, stream=0):
        super().__init__(relu=relu, residual=residual, stream=stream)
        self.filled = Filled("sc_epilogue", members(residual=residual), relu=relu, stream=stream)


def epilogue_of(bias, residual, bits):
    """What kernels read and write for it."""
    return {"epilogue.bias": bias, "epilogue.residual.data": residual}, {"epilogue.bits": bits}


class WeightView(_conv.WeightView):
    def __init__(self, group, lane, channel, tap, outer_taps, flat):
        super().__init__(group, lane, channel, tap, outer_taps, flat)
        self.filled = Filled(
            "sc_weight_view", (), {"outer_taps": table(outer_taps)},
            group_stride=group, lane_stride=lane, channel_stride=channel, tap_stride=tap, flat_taps=flat,
        )  # fmt: skip


def kernel_of_vectors(kernel):
    """Tile kernels do not run here."""
    return kernel.replace("tiles", "dense")


# --- calls: what kernels are told with the arguments of `run`, or of a function ---


class Rows(_conv.Rows):
    def __init__(self, kernel, used, source, target, weight, *, epilogue, needed=None, known=None, **fields):
        super().__init__(
            kernel_of_vectors(kernel), used, source, target, weight, epilogue=epilogue, needed=needed, known=known,
            **fields,
        )  # fmt: skip
        fields |= {"kernel": _conv.KERNELS[kernel]}
        made = members(
            map=used, in_=source, out=target, weight=weight, epilogue=epilogue, needed=needed, known=known
        )  # fmt: skip
        self.fields, self.filled = fields, Filled("sc_rows_task", made, **fields)

    def told(
        self, source, weight, bias, target, threads, threshold=0, bits=None, needed=None, known=None, residual=None,
        needed_pairs=None, lists=None,
    ):  # fmt: skip
        read, written = epilogue_of(bias, residual, bits)
        read |= {"in.data": source, "weight.data": weight, "needed.data": needed, "known.data": known}
        return self.filled.call(read, {"out.data": target} | written, threshold=threshold)


class Gradient(_conv.Gradient):
    def __init__(self, kernel, used, a, b, gradient, *, known=None, **fields):
        super().__init__(kernel_of_vectors(kernel), used, a, b, gradient, known=known, **fields)
        fields |= {"kernel": _conv.KERNELS[kernel]}
        made = members(map=used, a=a, b=b, gradient=gradient, known=known)
        self.fields, self.filled = fields, Filled("sc_gradient_task", made, **fields)

    def told(
        self, a, b, bias, gradient, threads, threshold=0, bits=None, needed=None, known=None, residual=None,
        needed_pairs=None, lists=None,
    ):  # fmt: skip
        read = {"a.data": a, "b.data": b, "needed": needed, "needed_pairs": needed_pairs, "known.data": known}
        return self.filled.call(read, {"gradient.data": gradient}, threshold=threshold)


class Groups(_conv.Groups):
    def __init__(self, used, source, target, weight, *, epilogue, phases, phase_strands, **fields):
        plain = {"phases": phases, "phase_strands": phase_strands}
        super().__init__(used, source, target, weight, epilogue=epilogue, **plain, **fields)
        tables = {name: table(numbers) for name, numbers in plain.items()}
        made = members(map=used, in_=source, out=target, weight=weight, epilogue=epilogue)
        self.filled = Filled("sc_groups_task", made, tables, **fields)

    def told(
        self, source, weight, bias, target, threads, threshold=0, bits=None, needed=None, known=None, residual=None,
        needed_pairs=None, lists=None,
    ):  # fmt: skip
        read, written = epilogue_of(bias, residual, bits)
        return self.filled.call({"in.data": source, "weight.data": weight} | read, {"out.data": target} | written)


class GroupsGradient(_conv.GroupsGradient):
    def __init__(self, used, a, b, gradient, **fields):
        super().__init__(used, a, b, gradient, **fields)
        self.filled = Filled("sc_groups_gradient_task", members(map=used, a=a, b=b, gradient=gradient), **fields)

    def told(self, a, b, bias, gradient, threads, *more):
        return self.filled.call({"a.data": a, "b.data": b}, {"gradient.data": gradient})


class Weights(_weights.Weights):
    def __init__(self, used, source, target, *, epilogue, columns, column_places, tap_places, **fields):
        tables = {"columns": columns, "column_places": column_places, "tap_places": tap_places}
        super().__init__(used, source, target, epilogue=epilogue, **tables, **fields)
        made = members(map=used, in_=source, out=target, epilogue=epilogue)
        self.filled = Filled("sc_weights_task", made, tables, **fields)

    def told(
        self, source, weight, bias, target, threads, threshold=0, bits=None, needed=None, known=None, residual=None,
        needed_pairs=None, lists=None,
    ):  # fmt: skip
        read, _ = epilogue_of(bias, residual, None)
        made = self.filled.call({"in.data": source} | read, {"out.data": target})
        made.struct.lists = lists.filled.struct
        made.read += lists.filled.read
        return made


def bias_gradient(view, source, target, batch, rows, columns, channels, threads):
    sizes = {"batch": batch, "rows": rows, "columns": columns, "channels": channels}
    return Filled("sc_bias_task", members(in_=view)).call({"in.data": source}, {"out": target}, **sizes)


def nm_mask(weight, mask, length, inner, groups, n, m, threads):
    sizes = {"length": length, "inner": inner, "groups": groups, "n": n, "m": m}
    return Filled("sc_nm_task", (), magnitudes(weight), {"mask": mask}, **sizes)


def transposable_mask(weight, scale, mask, n, m, method, iterations, sharpness, threads):
    sizes = {"rows": weight.shape[0], "columns": weight.shape[1], "n": n, "m": m, "method": _pruning.METHODS[method]}
    return Filled(
        "sc_transposable_task", (), magnitudes(weight), {"mask": mask},
        **sizes, scale=scale, iterations=iterations, sharpness=sharpness,
    )  # fmt: skip


def topk(x, count, k, mask, magnitude):
    """Fields that the call itself fills say the rest: `tie_count` is k, and `kept` where the magnitude found goes."""
    written = {"mask": as_bytes(mask), "kept": magnitude}
    return Filled("sc_topk_task", (), {"data": x}, written, count=count, tie_count=k)


def above_mask(x, count, threshold, mask, threads):
    return Filled("sc_topk_task", (), {"data": x}, {"mask": as_bytes(mask)}, count=count, high=threshold)


def stochastic_prune(gradient, out, threshold, key, sums, nonzeros, threads):
    return Filled(
        "sc_stochastic_task", (), magnitudes(gradient, "gradient"), {"out": out, "sums": sums, "nonzeros": nonzeros},
        count=gradient.size, key=key, threshold=threshold,
    )  # fmt: skip


def magnitudes(array, member="weight"):
    return {f"{member}.single" if array.dtype == np.float32 else f"{member}.wide": array}


def as_bytes(mask):
    """Bools as numbers, which may be neither 0 nor 1 before they are written."""
    return None if mask is None else mask.view(np.uint8)


def forget_plans():
    """Empties the caches that hold objects of `_conv` and `_weights`."""
    for module in (call, geometry, layout):
        for value in vars(module).values():
            getattr(value, "cache_clear", lambda: None)()
