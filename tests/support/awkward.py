"""Arrays at awkward places: between guard pages, at any offset."""

import ctypes
import mmap
import sys

import numpy as np
import pytest

needs_mprotect = pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")


def guarded(array, at_end=True, writable=False):
    """Copy `array` between two pages that trap every access, flush to one of them; without `writable` writes trap too.

    The mapping lives as long as the returned array.
    """
    array = np.ascontiguousarray(array)
    page = mmap.PAGESIZE
    body = max(-(-array.nbytes // page), 1) * page
    mapping = mmap.mmap(-1, body + 2 * page)
    address = np.frombuffer(mapping, np.uint8).ctypes.data
    start = page + (body - array.nbytes if at_end else 0)
    if array.size:
        view = np.frombuffer(mapping, array.dtype, array.size, start).reshape(array.shape)
        view[...] = array
    else:
        view = array
    _mprotect(address, page, 0)
    _mprotect(address + page + body, page, 0)
    if not writable:
        _mprotect(address + page, body, mmap.PROT_READ)
        view.flags.writeable = False
    return view


def _mprotect(address, size, protection):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if libc.mprotect(address, size, protection):
        raise OSError(ctypes.get_errno(), "mprotect")


def at_offset(array, floats):
    """Copy `array` to an address that lies `floats` floats behind a 64-byte boundary."""
    buffer = np.empty(array.size + 32, array.dtype)
    start = -buffer.ctypes.data % 64 // 4 + floats
    view = buffer[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view
