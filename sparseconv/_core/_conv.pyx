# cython: language_level=3, freethreading_compatible=True, binding=True
"""Thin classes over the structs of kernels/common/problem.h: filled once, then called with the addresses of arrays."""

from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from sparseconv cimport sc_bias_task

from ._cpu cimport address, api, check, convolutions, signals
from ._kernels cimport (
    SC_GRADIENT_FIELDS, SC_GRADIENT_TILES, SC_GROUPS_FIELDS, SC_GROUPS_GRADIENT_FIELDS, SC_KERNEL_NAMES,
    SC_KERNELS_END, SC_ROWS_FIELDS, SC_ROWS_TILES, sc_arrays, sc_bytes, sc_call, sc_field, sc_gap, sc_gradient_task,
    sc_groups_gradient_task, sc_groups_task, sc_mask, sc_rows_task, sc_strand, sc_table, sc_tap,
)

cdef extern from "Python.h":
    int PyBUF_STRIDED_RO, PyBUF_STRIDED, PyBUF_WRITABLE


cdef extern from *:
    """
    static int64_t sc_held = 0;  // bytes of all tables and structs that there are; threads need no GIL to change it
    #define SC_HELD() __atomic_load_n(&sc_held, __ATOMIC_RELAXED)
    #define SC_HOLD(bytes) ((void)__atomic_add_fetch(&sc_held, (bytes), __ATOMIC_RELAXED))
    """
    int64_t SC_HELD() noexcept
    void SC_HOLD(int64_t) noexcept


def held_bytes():
    """Bytes of all tables and bound kernels that there are: what caches.py keeps within its limit."""
    return SC_HELD()


cdef void hold(int64_t bytes) noexcept:
    """Counts bytes that come, or go (less than zero)."""
    SC_HOLD(bytes)


cdef class Held:
    """Counts bytes of Python objects that known as long as it does."""

    cdef int64_t bytes

    def __init__(self, bytes):
        self.bytes = bytes
        hold(self.bytes)

    def __dealloc__(self):
        hold(-self.bytes)


cdef void *filled(values) except NULL:
    """A C array of the integers of an int64 array, or of a list of numbers or of equally long tuples.

    It is to be given to `released`.
    """
    cdef const int64_t[::1] numbers
    cdef list flat = []
    cdef int64_t count
    if isinstance(values, list):
        flat = [int(i) for row in values for i in (row if isinstance(row, tuple) else (row,))]
        count = len(flat)
    else:  # an array, perhaps of millions
        numbers = values
        count = len(numbers)
    cdef int64_t *data = <int64_t *>malloc((count + 2) * sizeof(int64_t))
    if data == NULL:
        raise MemoryError("no memory for the tables of a convolution")
    data[0] = (count + 2) * sizeof(int64_t)
    hold(data[0])
    if not isinstance(values, list) and count:
        memcpy(data + 1, &numbers[0], count * sizeof(int64_t))
    cdef Py_ssize_t i
    for i in range(len(flat)):
        data[i + 1] = flat[i]
    return data + 1


cdef void released(const void *table) noexcept:
    """Frees what `filled` made."""
    if table == NULL:
        return
    cdef int64_t *data = <int64_t *>table - 1
    hold(-data[0])
    free(data)


cdef class Map:
    """An sc_map: which rows and columns meet. Made by geometry.py."""

    def __init__(self, *, out_rows, out_columns, in_rows, in_columns, outer_taps, inner_taps, row_table, met_rows,
                 outer_strands, strands, gaps, taps):
        self.c.out_rows, self.c.out_columns = out_rows, out_columns
        self.c.in_rows, self.c.in_columns = in_rows, in_columns
        self.c.outer_taps, self.c.inner_taps = outer_taps, inner_taps
        self.c.row_table = <const int64_t *>filled(row_table)
        self.c.met_rows = <const int64_t *>filled(met_rows)
        self.c.met_row_count = len(met_rows)
        self.c.outer_strands = <const sc_strand *>filled(outer_strands)
        self.c.outer_strand_count = len(outer_strands)
        self.c.strands = <const sc_strand *>filled(strands)
        self.c.strand_count = len(strands)
        self.c.gaps = <const sc_gap *>filled(gaps)
        self.c.gap_count = len(gaps)
        self.c.taps = <const sc_tap *>filled(taps)

    def __dealloc__(self):
        released(self.c.row_table)
        released(self.c.met_rows)
        released(self.c.outer_strands)
        released(self.c.strands)
        released(self.c.gaps)
        released(self.c.taps)

    @property
    def shape(self):
        """Rows and columns of `out`, then of `in`."""
        return self.c.out_rows, self.c.out_columns, self.c.in_rows, self.c.in_columns

    @property
    def most_outer_taps(self):
        """Outer taps of the longest outer strand; 0 with more than one outer dimension, or none."""
        return max([self.c.outer_strands[i].taps for i in range(self.c.outer_strand_count)], default=0)

    @property
    def most_rows(self):
        """Rows of `out` of one image in the longest outer strand."""
        return max([self.c.outer_strands[i].out_count for i in range(self.c.outer_strand_count)], default=0)

    @property
    def all_taps(self):
        """Outer times inner taps."""
        return self.c.outer_taps * self.c.inner_taps

    @property
    def most_taps(self):
        """Taps of the longest strand."""
        return max([self.c.strands[i].taps for i in range(self.c.strand_count)], default=0)

    @property
    def mean_taps(self):
        """Taps of a strand, on average."""
        return sum([self.c.strands[i].taps for i in range(self.c.strand_count)]) / max(1, self.c.strand_count)

    @property
    def out_starts(self):
        """The first `out` column of every strand."""
        return [self.c.strands[i].out_start for i in range(self.c.strand_count)]

    @property
    def most_window(self):
        """Columns of `in` that a row of `out` can need beyond its own number of columns."""
        return max([self.c.strands[i].window for i in range(self.c.strand_count)], default=0)

    @property
    def most_columns(self):
        """Columns of `out` in the longest strand."""
        return max([self.c.strands[i].out_count for i in range(self.c.strand_count)], default=0)


cdef class View:
    """An sc_view without its address: where the rows, columns and channels of an array lie. Made by layout.py."""

    def __init__(self, image, rows, column, channel, block):
        self.c.image_stride, self.c.column_stride = image, column
        self.c.channel_stride, self.c.block_stride = channel, block
        self.c.rows = <const int64_t *>filled(rows)

    def __dealloc__(self):
        released(self.c.rows)


cdef class Mask:
    """An sc_mask without its address: floats ("f"), bools ("?") or bits ("B"), where `view` says."""

    cdef sc_mask c
    cdef View view

    def __init__(self, View view not None, str kind not None):
        self.view = view
        self.c.view, self.c.kind = view.c, "f?B".index(kind)


cdef class WeightView:
    """An sc_weight_view without its address. Made by layout.py."""

    def __init__(self, group, lane, channel, tap, outer_taps, flat):
        self.c.group_stride, self.c.lane_stride, self.c.channel_stride = group, lane, channel
        self.c.tap_stride, self.c.flat_taps = tap, flat
        self.c.outer_taps = <const int64_t *>filled(outer_taps)

    def __dealloc__(self):
        released(self.c.outer_taps)


cdef class Epilogue:
    """An sc_epilogue without its addresses: what becomes of finished sums. `stream` is of the blocking."""

    def __init__(self, *, relu, View residual=None, stream=0):
        self.c.relu, self.c.stream, self.residual = relu, stream, residual
        if residual is not None:
            self.c.residual = residual.c


KERNELS = {SC_KERNEL_NAMES[i].decode(): i for i in range(SC_KERNELS_END)}  # by the names that plans show


cdef void *address_or_null(array) except? NULL:
    """Where an array that is read begins, if there is one."""
    return NULL if array is None else address(array, PyBUF_STRIDED_RO)


cdef int fill(void *task, const sc_field *fields, dict numbers) except -1:
    """Writes the numbers of a task, which are to be those that its kernels have fields for."""
    cdef Py_ssize_t filled_fields = 0
    while fields.name != NULL:
        (<int64_t *>(<char *>task + fields.place))[0] = numbers[fields.name.decode()]
        filled_fields += 1
        fields += 1
    if filled_fields != len(numbers):
        raise TypeError(f"numbers: got {', '.join(numbers)}, expected the {filled_fields} fields of the task")
    return 0


cdef const sc_table *table_for(str kernel) except NULL:
    """The kernels of a call: those in use when it is prepared."""
    cdef const sc_table *table = convolutions().active()
    if KERNELS[kernel] in (SC_ROWS_TILES, SC_GRADIENT_TILES) and table.tiles == NULL:
        raise ValueError(f"kernel: got {kernel!r}, expected another one on an instruction set without tile registers")
    return table


cdef class Task:
    """A call, ready but for its arrays: what the classes below fill, each a struct of kernels/common/problem.h.

    `numbers` of these classes are the fields that the list behind the struct names (SC_ROWS_FIELDS, ...).
    """

    def __cinit__(self):
        hold(TASK_BYTES)

    def __dealloc__(self):
        hold(-TASK_BYTES)

    cdef int use(self, str kernel, tuple kept) except -1:
        """The kernel, of the instruction set in use, and the objects whose tables the struct points to."""
        self.c.table, self.c.kernel, self.kept = table_for(kernel), KERNELS[kernel], kept
        return 0

    cdef int settle(self, sc_call *to, float threshold, lists) except -1:
        """Writes what this kernel takes of what a call has beside its arrays."""
        return 0

    @property
    def scratch_bytes(self):
        """Memory beside the arrays: (packed weights or sums, once; scratch, per thread)."""
        cdef sc_bytes bytes = convolutions().bytes(&self.c)
        return bytes.once, bytes.each

    def needed(self, pairs):
        """The share of its work that a backward_weight call has where these (out, in channel) pairs are needed."""
        return 1.0

    def bind(self, size_t call, float threshold, lists):
        """Fills the sc_call at this address, which needs the tables of this object."""
        cdef sc_call *to = <sc_call *>call
        to.table, to.kernel, to.task = self.c.table, self.c.kernel, self.c.task
        self.settle(to, threshold, lists)

    def run(self, source, weight, bias, target, int threads, float threshold=0, bits=None, needed=None, known=None,
            residual=None, needed_pairs=None, lists=None):
        """Runs it; of backward_weight `source` is a, `weight` b and `target` the gradient."""
        cdef sc_call call = self.c
        cdef sc_arrays arrays
        arrays.source, arrays.out = address(source, PyBUF_STRIDED_RO), address(target, PyBUF_STRIDED)
        arrays.weight, arrays.bias = address_or_null(weight), address_or_null(bias)
        arrays.residual, arrays.known = address_or_null(residual), address_or_null(known)
        arrays.needed, arrays.needed_pairs = address_or_null(needed), address_or_null(needed_pairs)
        arrays.bits = NULL if bits is None else address(bits, PyBUF_WRITABLE)
        self.settle(&call, threshold, lists)
        with nogil:
            convolutions().point(&call, &arrays)
            check(convolutions().run(&call, threads, signals))


cdef class Rows(Task):
    """A forward or backward_data call (sc_rows_task)."""

    def __init__(self, str kernel not None, Map map not None, View source not None, View target not None,
                 WeightView weight not None, *, Epilogue epilogue not None, Mask needed=None, Mask known=None,
                 **numbers):
        self.use(kernel, (map, source, target, weight, epilogue, needed, known))
        cdef sc_rows_task *c = &self.c.task.rows
        c.kernel, c.epilogue = self.c.kernel, epilogue.c
        c.map, c.in_, c.out, c.weight = map.c, source.c, target.c, weight.c
        if needed is not None:
            c.needed = needed.c
        if known is not None:
            c.known = known.c
        fill(c, SC_ROWS_FIELDS, numbers)

    cdef int settle(self, sc_call *to, float threshold, lists) except -1:
        to.task.rows.threshold = threshold
        return 0


cdef class Gradient(Task):
    """A backward_weight call (sc_gradient_task)."""

    def __init__(self, str kernel not None, Map map not None, View a not None, View b not None,
                 WeightView gradient not None, *, Mask known=None, **numbers):
        self.use(kernel, (map, a, b, gradient, known))
        cdef sc_gradient_task *c = &self.c.task.gradient
        c.kernel = self.c.kernel
        if known is not None:
            c.known = known.c
        c.map, c.a, c.b, c.gradient = map.c, a.c, b.c, gradient.c
        fill(c, SC_GRADIENT_FIELDS, numbers)

    cdef int settle(self, sc_call *to, float threshold, lists) except -1:
        to.task.gradient.threshold = threshold
        return 0

    def needed(self, pairs):
        """That of (channel, lane block) pairs that have any of the needed (out channel, in channel) pairs."""
        cdef sc_gradient_task task = self.c.task.gradient
        task.needed_pairs = <const uint8_t *>address(pairs, PyBUF_STRIDED_RO)
        cdef int64_t count
        with nogil:
            count = convolutions().gradient_needed(self.c.table, &task)
        vectors = (task.lanes + 15) // 16
        blocks = (vectors + task.lane_vectors - 1) // task.lane_vectors
        return count / (task.groups * task.channels * blocks)


cdef class Groups(Task):
    """A forward or backward_data call of narrow groups (sc_groups_task), which computes every element."""

    def __init__(self, Map map not None, View source not None, View target not None, WeightView weight not None, *,
                 Epilogue epilogue not None, phases, phase_strands, **numbers):
        self.use("groups_dense", (map, source, target, weight, epilogue))
        cdef sc_groups_task *c = &self.c.task.groups
        c.map, c.in_, c.out, c.weight, c.epilogue = map.c, source.c, target.c, weight.c, epilogue.c
        c.phases = <const int64_t *>filled(phases)  # one by one: what is not stored is not freed
        c.phase_strands = <const int64_t *>filled(phase_strands)
        fill(c, SC_GROUPS_FIELDS, numbers)

    def __dealloc__(self):
        released(self.c.task.groups.phases)
        released(self.c.task.groups.phase_strands)


cdef class GroupsGradient(Task):
    """A backward_weight call of narrow groups (sc_groups_gradient_task), which computes every element."""

    def __init__(self, Map map not None, View a not None, View b not None, WeightView gradient not None, **numbers):
        self.use("gradient_groups", (map, a, b, gradient))
        cdef sc_groups_gradient_task *c = &self.c.task.groups_gradient
        c.map, c.a, c.b, c.gradient = map.c, a.c, b.c, gradient.c
        fill(c, SC_GROUPS_GRADIENT_FIELDS, numbers)


def bias_gradient(View view not None, source, target, int64_t batch, int64_t rows, int64_t columns, int64_t channels,
                  int threads):
    """Sums `source` over images, rows and columns into `target` (channels,)."""
    cdef sc_bias_task task
    task.in_ = view.c
    task.in_.data = <float *>address(source, PyBUF_STRIDED_RO)
    task.batch, task.rows, task.columns, task.channels = batch, rows, columns, channels
    task.out = <float *>address(target, PyBUF_STRIDED)
    with nogil:
        check(api().bias_gradient(&task, threads, signals))
