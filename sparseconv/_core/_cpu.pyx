# cython: language_level=3, freethreading_compatible=True, binding=True
"""The compiled kernels: which instruction sets there are, which one is in use, and the way to call them."""

import atexit

from libc.stdint cimport int64_t, uint32_t

from sparseconv cimport SC_API_CAPSULE, SC_NO_MEMORY, SC_OK, sc_api

from ._kernels cimport sc_convolutions, sc_table, sc_tile_table

cdef extern from "Python.h":
    ctypedef struct Py_buffer:
        void *buf
    int PyErr_CheckSignals() noexcept
    object PyCapsule_New(void *, const char *, void *)
    int PyBUF_SIMPLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)

cdef extern from "kernels/runtime/threads.h" nogil:
    int sparseconv_get_num_threads()
    void sparseconv_set_num_threads(int)

cdef extern from "kernels/runtime/run.h" nogil:
    const sc_api *sparseconv_api()

cdef extern from "kernels/runtime/dispatch.h" namespace "sparseconv" nogil:
    ctypedef struct isa_entry "sparseconv::isa":
        const sc_table *table
        bint (*supported)() noexcept nogil
        bint (*by_name)() noexcept nogil
    const isa_entry *isas(int *count)
    const sc_table *active()
    void set_active(const sc_table *)
    const char *cpu_vendor "sparseconv::vendor"()
    int cpu_family "sparseconv::family"()
    int64_t cpu_l1_bytes "sparseconv::l1_bytes"()
    bint cpu_simulate_tiles "sparseconv::simulate_tiles"(const sc_tile_table *)

cdef extern from "kernels/runtime/threads.h" namespace "sparseconv" nogil:
    int64_t cpu_poison_scratch "sparseconv::poison_scratch"(uint32_t)
    void set_default_threads(int)
    bint threads_are_chosen()
    void follow_threads()
    void borrow_threads(bint)
    bint threads_are_borrowed()

cdef extern from "kernels/runtime/gate.h" namespace "sparseconv" nogil:
    cppclass gate:
        bint enter()
        void leave()
        void close()

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

# For everybody else: include/sparseconv.h.
C_API = PyCapsule_New(<void *>sparseconv_api(), SC_API_CAPSULE, NULL)


cdef const sc_api *api() noexcept nogil:
    return sparseconv_api()


cdef const sc_convolutions *convolutions() noexcept nogil:
    return <const sc_convolutions *>sparseconv_api().convolutions


# Threads that want the GIL while Python ends are ended themselves (before 3.14), in the middle of a call: their stack
# and scratch memory go, which other threads of that call still use. So calls stop looking for signals before that.
cdef gate to_python


cdef int signals() noexcept nogil:
    if not to_python.enter():
        return 0
    cdef int found = signals_of_python()
    to_python.leave()
    return found


cdef int signals_of_python() noexcept with gil:
    return PyErr_CheckSignals()


@atexit.register
def _leave_python():
    with nogil:
        to_python.close()


cdef int check(int status) except -1 nogil:
    if status == SC_OK:
        return 0
    with gil:
        if status == SC_NO_MEMORY:
            raise MemoryError("no memory for scratch buffers")
        PyErr_CheckSignals()  # the exception that a signal handler raised is already set
        return -1


cdef void *address(object array, int flags) except? NULL:
    """Where an array's first element lies; the caller keeps the array alive."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(array, &buffer, flags)
    cdef void *data = buffer.buf
    PyBuffer_Release(&buffer)
    return data


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
        if all[i].table.name.decode() == name and all[i].by_name():
            set_active(all[i].table)
            return
    raise ValueError(f"isa: got {name!r}, expected one of {available()} (compiled: {compiled()})")


def vendor():
    """Who made the CPU: "intel", "amd" or "other"."""
    return cpu_vendor().decode()


def family():
    """The display family that an x86 CPU tells of itself; 0 elsewhere."""
    return cpu_family()


def l1_bytes():
    """Bytes of the first data cache, as an x86 CPU tells of itself; 0 where nothing tells."""
    return cpu_l1_bytes()


def registers():
    """What fits into the registers of the instruction set in use: (accumulators, dense pixels, dense vectors)."""
    cdef const sc_table *table = active()
    return table.limits.accumulators, table.limits.dense_pixels, table.limits.dense_vectors


def point_vectors():
    """Vectors of a lane block of gradient/points.h on the instruction set in use."""
    return active().limits.point_vectors


def slope():
    """Time of a multiply-add in a skipping kernel over that in a dense one, on the instruction set in use."""
    return active().limits.slope


def has_tiles():
    """Whether the instruction set in use has dense kernels on tile registers."""
    return active().tiles != NULL


def has_fp16_tiles():
    """Whether these take two fp16 parts for an f32 (kernels/amx/split.h)."""
    return active().tiles != NULL and active().tiles.fp16


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
