# cython: language_level=3, freethreading_compatible=True, binding=True
"""The compiled kernels: which instruction sets there are, which one is in use, and the way to call them."""

from libc.stdint cimport int64_t, uint32_t

from ._kernels cimport (
    active, gradient_scratch_bytes, isa_entry, isas, rows_packed_bytes, rows_scratch_bytes, run_above_mask,
    run_bias_gradient, run_compress, run_count_blocks, run_expand, run_gradient, run_groups, run_groups_gradient,
    run_lists, run_nm_mask, run_rows, run_stochastic_prune, run_topk, run_transposable_mask, run_weights,
    sc_bias_task, sc_compress_task, sc_gradient_task, sc_groups_gradient_task, sc_groups_task, sc_lists_task,
    sc_nm_task, sc_rows_task, sc_stochastic_task, sc_table, sc_topk_task, sc_transposable_task, sc_weights_task,
    set_active, topk_result, vendor as cpu_vendor,
)

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
    int PyErr_CheckSignals() noexcept
    int PyBUF_SIMPLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)

cdef extern from "kernels/runtime/threads.h" nogil:
    int sparseconv_get_num_threads()
    void sparseconv_set_num_threads(int)

cdef extern from "kernels/isa/table.h":
    ctypedef struct sc_tile_table:
        pass

cdef extern from "kernels/runtime/dispatch.h" namespace "sparseconv" nogil:
    int cpu_family "sparseconv::family"()
    bint cpu_simulate_tiles "sparseconv::simulate_tiles"(const sc_tile_table *)

cdef extern from "kernels/runtime/threads.h" namespace "sparseconv" nogil:
    int64_t cpu_poison_scratch "sparseconv::poison_scratch"(uint32_t)
    void set_default_threads(int)
    bint threads_are_chosen()
    void follow_threads()
    void borrow_threads(bint)
    bint threads_are_borrowed()

cdef extern from "kernels/runtime/openmp_team.h" namespace "sparseconv" nogil:
    ctypedef struct openmp_runtime:
        const char *path()
    const openmp_runtime *openmp()
    bint openmp_forked()

cdef extern from *:
    """
    #if defined(__clang__)
    #define SC_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define SC_COMPILER "gcc " __VERSION__
    #else
    #define SC_COMPILER "unknown"
    #endif
    """
    const char *SC_COMPILER

# enum status of kernels/runtime/threads.h
cdef enum:
    OK, NO_MEMORY, INTERRUPTED


cdef int signals() noexcept with gil:
    return PyErr_CheckSignals()


cdef int finish(int status) except -1 nogil:
    if status == OK:
        return 0
    with gil:
        if status == NO_MEMORY:
            raise MemoryError("no memory for scratch buffers")
        PyErr_CheckSignals()  # the exception that a signal handler raised is already set
        return -1


cdef const sc_table *active_table() noexcept nogil:
    return active()


cdef void *address(object array, int flags) except? NULL:
    """Where an array's first element lies; the caller keeps the array alive."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, flags)
    cdef void *data = buffer.buf
    PyBuffer_Release(&buffer)
    return data


cdef int call_rows(const sc_table *table, sc_rows_task *task, int threads) except -1 nogil:
    return finish(run_rows(table[0], task[0], threads, signals))


cdef int call_gradient(const sc_table *table, sc_gradient_task *task, int threads) except -1 nogil:
    return finish(run_gradient(table[0], task[0], threads, signals))


cdef int call_groups(const sc_table *table, sc_groups_task *task, int threads) except -1 nogil:
    return finish(run_groups(table[0], task[0], threads, signals))


cdef int call_groups_gradient(const sc_table *table, sc_groups_gradient_task *task, int threads) except -1 nogil:
    return finish(run_groups_gradient(table[0], task[0], threads, signals))


cdef int call_lists(const sc_table *table, sc_lists_task *task, int step, int threads) except -1 nogil:
    return finish(run_lists(table[0], task[0], step, threads, signals))


cdef int call_weights(const sc_table *table, sc_weights_task *task, int threads) except -1 nogil:
    return finish(run_weights(table[0], task[0], threads, signals))


cdef int call_bias_gradient(sc_bias_task *task, int threads) except -1 nogil:
    return finish(run_bias_gradient(active()[0], task[0], threads, signals))


cdef int call_count_blocks(const sc_compress_task *task, int threads) except -1 nogil:
    return finish(run_count_blocks(active()[0], task[0], threads, signals))


cdef int call_compress(const sc_compress_task *task, int threads) except -1 nogil:
    return finish(run_compress(active()[0], task[0], threads, signals))


cdef int call_expand(const sc_compress_task *task, int threads) except -1 nogil:
    return finish(run_expand(active()[0], task[0], threads, signals))


cdef int call_nm_mask(sc_nm_task *task, int threads) except -1 nogil:
    return finish(run_nm_mask(active()[0], task[0], threads, signals))


cdef int call_transposable_mask(sc_transposable_task *task, int threads) except -1 nogil:
    return finish(run_transposable_mask(active()[0], task[0], threads, signals))


cdef int call_topk(sc_topk_task *task, int64_t k, topk_result *result, int threads) except -1 nogil:
    return finish(run_topk(active()[0], task[0], k, result[0], threads, signals))


cdef int call_above_mask(sc_topk_task *task, int threads) except -1 nogil:
    return finish(run_above_mask(active()[0], task[0], threads, signals))


cdef int call_stochastic_prune(sc_stochastic_task *task, int threads) except -1 nogil:
    return finish(run_stochastic_prune(active()[0], task[0], threads, signals))


cdef int64_t packed_bytes(const sc_rows_task *task) noexcept nogil:
    return rows_packed_bytes(task[0])


cdef int64_t rows_scratch(const sc_table *table, const sc_rows_task *task) noexcept nogil:
    return rows_scratch_bytes(table[0], task[0])


cdef int64_t gradient_scratch(const sc_table *table, const sc_gradient_task *task) noexcept nogil:
    return gradient_scratch_bytes(table[0], task[0])


def address_of(array):
    """The address of a contiguous array, a tenth of the time of ``array.ctypes.data``."""
    return <size_t>address(array, PyBUF_SIMPLE)


def available():
    """Names of the instruction sets that this machine runs, best first."""
    cdef int count = 0
    cdef const isa_entry *all = isas(&count)
    return [all[i].table.name.decode() for i in range(count) if all[i].supported()]


def compiled():
    """Names of the instruction sets that were compiled, best first."""
    cdef int count = 0
    cdef const isa_entry *all = isas(&count)
    return list(dict.fromkeys([all[i].table.name.decode() for i in range(count)]))


def current():
    """Name of the instruction set in use."""
    return active().name.decode()


def use(str name not None):
    """Switches to a supported instruction set."""
    cdef int count = 0
    cdef const isa_entry *all = isas(&count)
    for i in range(count):
        if all[i].table.name.decode() == name and all[i].supported():
            set_active(all[i].table)
            return
    raise ValueError(f"isa: got {name!r}, expected one of {available()} (compiled: {compiled()})")


def vendor():
    """Who made the CPU: "intel", "amd" or "other"."""
    return cpu_vendor().decode()


def family():
    """The display family that an x86 CPU tells of itself; 0 elsewhere."""
    return cpu_family()


def registers():
    """What fits into the registers of the instruction set in use: (accumulators, dense pixels, dense vectors)."""
    cdef const sc_table *table = active()
    return table.accumulators, table.dense_pixels, table.dense_vectors


def has_tiles():
    """Whether the instruction set in use has dense kernels on tile registers."""
    return active().tiles != NULL


def simulate_tiles(size_t table):
    """For tests: the sc_tile_table at this address takes the place of tile registers that the CPU does not have."""
    if not cpu_simulate_tiles(<const sc_tile_table *>table):
        raise ValueError("tiles: this machine has an instruction set with tile registers")


def get_num_threads():
    """The default number of threads."""
    return sparseconv_get_num_threads()


def set_num_threads(int count):
    """Sets the default number of threads; 0 leaves it to the team in use, or to `set_default`."""
    if count:
        sparseconv_set_num_threads(count)
    else:
        follow_threads()


def num_threads_chosen():
    """Whether `set_num_threads` has set it."""
    return threads_are_chosen()


def set_default_num_threads(int count):
    """The default number of threads where neither `set_num_threads` nor the team in use says another one."""
    set_default_threads(count)


def borrow(bint team):
    """Whether calls from now on use the team of an OpenMP runtime of this process, if there is one."""
    borrow_threads(team)


def borrows():
    """Whether `borrow` said so."""
    return threads_are_borrowed()


def openmp_library():
    """The file of the OpenMP runtime whose team can be used, or why there is none: "none" or "forked"."""
    cdef const openmp_runtime *found = openmp()
    if found != NULL:
        return (<bytes>found.path()).decode("utf-8", "surrogateescape")
    return "forked" if openmp_forked() else "none"


def poison_scratch(uint32_t bits):
    """For tests: fills scratch memory with these bits before each call and item (0: no more); how often it has."""
    return cpu_poison_scratch(bits)


def build_info():
    """Facts of the build, for `sparseconv info`."""
    return {"compiler": SC_COMPILER.decode(), "instruction_sets": compiled()}
