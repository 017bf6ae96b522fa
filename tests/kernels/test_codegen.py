"""What the compiler made of the kernels: nothing leaks from one instruction set into another, nothing is spilled.

The kernels are compiled anew, with the flags of setup.py, and looked at with nm and objdump.
"""

import functools
import platform
import re
import shutil
import subprocess
import sys

import compiled
import pytest
from places import KERNELS, ROOT

from sparseconv._core import _conv, _cpu, _masks, _prepared, _pruning, _weights

VECTOR_ISAS = ("avx512", "avx2")
ISAS = (*VECTOR_ISAS, "scalar")
UNITS = ("amx", *ISAS)  # amx has the kernels on tile registers alone
PLAIN = ("dispatch", "run", "threads", "openmp_team")  # what runs on every x86-64
EXPORTED = {
    _cpu: {"PyInit__cpu", "sparseconv_api", "sparseconv_get_num_threads", "sparseconv_set_num_threads"},
    _conv: {"PyInit__conv"},
    _masks: {"PyInit__masks"},
    _prepared: {"PyInit__prepared"},
    _pruning: {"PyInit__pruning"},
    _weights: {"PyInit__weights"},
}
INNER_KERNEL = re.compile(r"::(rows|gradient|weights)_(skip|dense|points)\w*<|::outputs_(held<|careful\()")
VECTOR = re.compile(r"%[xyz]mm\d")
# GCC 12 spills nothing in any inner kernel but rows_skip<1, 6, finish> of AVX2, where one of 12 sums goes through the
# stack as an output leaves: three accesses in each of its three forms. A few more are no reason to stop, but to look.
MOST_STACK_ACCESSES = 12

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="looks at ELF files of x86-64 Linux"
    ),
    pytest.mark.skipif(not shutil.which("objdump") or not shutil.which("nm"), reason="needs objdump and nm"),
]
needs_sources = pytest.mark.skipif(
    not (ROOT / "setup.py").exists() or not shutil.which(compiled.COMPILER[0]),
    reason="needs the sources and a C++ compiler",
)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def objects():
    """Object file of every translation unit that is no Cython output."""
    units = compiled.kernel_units(UNITS, PLAIN)
    # -O3 takes long, and the fewer functions are inlined, the more symbols could show.
    units[KERNELS / "isa/scalar.cpp"].append("-O0")
    return dict(zip((*UNITS, *PLAIN), compiled.objects(units), strict=True))


@functools.cache
def disassembly(binary):
    """Name of every function, and its instructions with their addresses."""
    found = {}
    for line in output("objdump", "-d", "-C", "--no-show-raw-insn", str(binary)).splitlines():
        head = re.fullmatch(r"[0-9a-f]+ <(.*)>:", line)
        if head:
            code = found.setdefault(head.group(1), [])
        elif "\t" in line:
            address, instruction = line.split("\t", 1)
            code.append((int(address.strip(" :"), 16), instruction.partition("#")[0].strip()))
    return found


def functions(binary):
    """Name and instructions of every function."""
    return {name: [instruction for _, instruction in code] for name, code in disassembly(binary).items()}


def inner_loops(code):
    """Instructions of each loop that has no other in it: from the target of a jump backwards to the jump."""
    place = {address: index for index, (address, _) in enumerate(code)}
    jumps = ((index, re.match(r"j\w+\s+([0-9a-f]+)\b", instruction)) for index, (_, instruction) in enumerate(code))
    loops = [(place.get(int(jump[1], 16), index + 1), index) for index, jump in jumps if jump]
    loops = [(begin, end) for begin, end in loops if begin <= end]
    inner = [
        (begin, end) for begin, end in loops
        if not any((begin, end) != one and begin <= one[0] and one[1] <= end for one in loops)
    ]  # fmt: skip
    return [[instruction for _, instruction in code[begin : end + 1]] for begin, end in inner]


def symbols(binary, *options):
    """(type, name) of symbols as nm gives them."""
    lines = output("nm", "-C", *options, str(binary)).splitlines()
    return [tuple(re.fullmatch(r"[0-9a-f ]* ?([A-Za-z]) (.*)", line).groups()) for line in lines]


def stack_accesses(code, frame=None):
    """Vector instructions that read or write the stack frame, through either register that may hold its address.

    Moves of four or eight bytes are left out: GCC keeps integers in vector registers too.
    """
    if frame is None:
        frame = any(re.fullmatch(r"mov\s+%rsp,%rbp", one) for one in code)
    place = re.compile(r"\(%rsp\b|-0x[0-9a-f]+\(%rbp\)" if frame else r"\(%rsp\b")
    vectors = [one for one in code if VECTOR.search(one) and not re.match(r"vmov[dq]\s", one)]
    return [one for one in vectors if place.search(one)]


# --- the extension that is installed ---


@pytest.mark.parametrize("module", EXPORTED, ids=lambda module: module.__name__.rpartition(".")[2])
def test_exported_symbols(module):
    """Its initialisation, the C interface and what threadpoolctl needs; no kernel, nothing of the C++ library."""
    assert {name for _, name in symbols(module.__file__, "-D", "--defined-only")} == EXPORTED[module]


@pytest.mark.parametrize(
    "module", [one for one in EXPORTED if one is not _cpu], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_kernels_are_in_one_extension(module):
    """The others hold no instruction beyond baseline x86-64."""
    wide = [one for code in functions(module.__file__).values() for one in code if beyond_baseline(one)]
    assert wide == []


def beyond_baseline(instruction):
    """Whether an instruction is AVX or newer: wide registers, mask registers or the VEX forms of old ones."""
    return bool(re.search(r"%[yz]mm\d|%k[0-7]\b", instruction)) or bool(
        re.match(r"v\w+\s", instruction) and VECTOR.search(instruction)
    )


@pytest.mark.parametrize("module", EXPORTED, ids=lambda module: module.__name__.rpartition(".")[2])
def test_nothing_of_ours_runs_when_loaded(module):
    """What is called then: the compiler's `frame_dummy`, and in _cpu the function of libgcc that asks the CPU."""
    (size,) = re.findall(r"INIT_ARRAYSZ\)\s+(\d+)", output("readelf", "-d", module.__file__))
    assert int(size) <= (16 if module is _cpu else 8)


# --- translation units ---


@needs_sources
@pytest.mark.parametrize("name", UNITS)
def test_external_symbols(objects, name):
    """Tables are all that a kernel file offers; nothing weak that a linker could share between instruction sets."""
    external = {(kind, symbol) for kind, symbol in symbols(objects[name], "--defined-only") if kind.isupper()}
    tables = ("tiles", "fp16_tiles") if name == "amx" else ("table",)
    assert external == {("D", f"sparseconv::{name}::{table}") for table in tables}
    every = symbols(objects[name])
    assert not [symbol for kind, symbol in every if kind in "wWvVu"]
    wanted = {symbol for kind, symbol in every if kind == "U"}
    allowed = {"memset", "memcpy", "memmove", "__popcountdi2", "_GLOBAL_OFFSET_TABLE_"}
    assert wanted <= allowed | ({"memcmp", "sparseconv::avx512::table"} if name == "amx" else set())


@needs_sources
@pytest.mark.parametrize("name", [*UNITS, *PLAIN])
def test_nothing_runs_at_import(objects, name):
    """No static initialiser, not even one of baseline instructions: tables are constants, the rest waits for a call."""
    sections = output("objdump", "-h", str(objects[name]))
    assert ".text" in sections
    assert not re.search(r"\.init_array|\.ctors|\.preinit_array", sections)


@needs_sources
def test_no_shared_symbols(objects):
    """A linker keeps one copy of a weak function: none that an ordinary unit has comes from a unit of kernels."""
    kernels = {symbol for name in UNITS for kind, symbol in symbols(objects[name], "--defined-only") if kind in "WVu"}
    plain = {symbol for name in PLAIN for kind, symbol in symbols(objects[name], "--defined-only") if kind in "WVu"}
    assert plain and not kernels & plain


@needs_sources
@pytest.mark.parametrize("name", VECTOR_ISAS)
def test_no_spills(objects, name):
    """The accumulators of the inner kernels stay in registers."""
    kernels = {function: code for function, code in functions(objects[name]).items() if INNER_KERNEL.search(function)}
    kinds = ("rows_skip", "rows_dense", "gradient_skip", "gradient_dense", "gradient_points", "weights_skip")
    for kind in (*kinds, "outputs_held" if name == "avx512" else "outputs_careful"):
        assert any(f"::{kind}" in function for function in kernels), f"no function of {kind} was found"
    assert sum("vfmadd" in one for code in kernels.values() for one in code) > 200
    spills = {function: lines for function, code in kernels.items() if (lines := stack_accesses(code))}
    assert sum(map(len, spills.values())) <= MOST_STACK_ACCESSES, spills


# Narrow groups alone keep more sums than there are registers (GCC 12: 507 accesses in 50 loops on AVX2, 331 in 36 on
# AVX-512). Every other loop with multiply-adds has none.
SPILLING = re.compile(r"::group_(outputs_of|gradient_channels|gradient_depthwise)<")
MOST_IN_GROUPS = {"avx512": 350, "avx2": 530}
LOOPS = {"avx512": 1000, "avx2": 400}  # of those that are looked at, at least


@needs_sources
@pytest.mark.parametrize("name", VECTOR_ISAS)
def test_no_spills_in_inner_loops(objects, name):
    """No innermost loop with multiply-adds, of any kernel, touches the stack with vectors."""
    looked_at, in_groups, elsewhere = 0, 0, {}
    for function, code in disassembly(objects[name]).items():
        frame = any(re.fullmatch(r"mov\s+%rsp,%rbp", instruction) for _, instruction in code)
        for loop in inner_loops(code):
            if not any(re.match(r"vfn?madd", instruction) for instruction in loop):
                continue
            looked_at += 1
            accesses = stack_accesses(loop, frame)
            if SPILLING.search(function):
                in_groups += len(accesses)
            elif accesses:
                elsewhere.setdefault(function, []).extend(accesses)
    assert looked_at >= LOOPS[name]
    assert not elsewhere
    assert in_groups <= MOST_IN_GROUPS[name]


def test_what_counts_as_an_inner_loop():
    lines = ["vfmadd231ps %ymm1,%ymm2,%ymm3", "jne 1", "mov %rax,%rbx", "jmp 9", "jae 0", "jne 5 <f+0x5>"]
    code = list(enumerate(lines))
    assert inner_loops(code) == [["jne 1"], ["jne 5 <f+0x5>"]]
    assert inner_loops(code[2:]) == [["jne 5 <f+0x5>"]]
    assert inner_loops([(0, "vaddps %ymm1,%ymm2,%ymm3"), (4, "jb 0"), (6, "ret")]) == [
        ["vaddps %ymm1,%ymm2,%ymm3", "jb 0"]
    ]


def test_what_counts_as_a_spill():
    spills = ["vmovaps %zmm1,0x40(%rsp)", "vfmadd231ps (%rsp,%rax,1),%ymm0,%ymm1"]
    other = ["mov 0x8(%rsp),%rax", "vmovq %xmm25,-0x8(%rsp)", "vmovups (%rdi),%zmm0", "lea 0x40(%rsp),%rax"]
    other += ["vmovups -0x40(%rbp),%zmm0"]
    assert stack_accesses(spills + other) == spills
    assert stack_accesses(["mov    %rsp,%rbp", *other]) == ["vmovups -0x40(%rbp),%zmm0"]


@needs_sources
def test_tile_instructions(objects):
    """Tile registers are released by whoever configures them, and sums leave them once: none is spilled."""
    code = functions(objects["amx"])
    tiles = re.compile(r"(tile\w+|ldtilecfg|tdp\w+)\b")
    users = {
        function: [match[1] for one in lines if (match := tiles.match(one))]
        for function, lines in code.items()
        if any(map(tiles.match, lines))
    }
    used = {one for names in users.values() for one in names}
    assert used == {"ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored", "tdpbf16ps", "tdpfp16ps"}
    products = {"tdpbf16ps", "tdpfp16ps"}
    inner = {name: names for name, names in users.items() if products & set(names) and "ldtilecfg" not in names}
    # Six products, or three, of 2 x 2 tiles. In rows either row tile also goes alone, and sums are loaded, too.
    for kind, shape, rows in (("sum_block", "2", True), ("sum_chunk", "2, 2", False)):
        of_parts = ("bf16<3>", "tdpbf16ps", 6, 16, 12), ("fp16", "tdpfp16ps", 3, 8, 6)
        for parts, product, kinds, loads, alone in of_parts:
            found = [names for name, names in inner.items() if re.search(rf"::{kind}<[\w:() ]*{parts}, {shape}>", name)]
            assert len(found) == 1, f"{kind} for 2 x 2 tiles of {parts}: {sorted(inner)}"
            assert found[0].count(product) == kinds * (8 if rows else 4)
            assert not (products - {product}) & set(found[0])
            assert found[0].count("tilestored") == (6 if rows else 4)
            assert found[0].count("tileloadd") == loads + (2 * alone + 6 if rows else 0)
    for name, names in users.items():
        if "ldtilecfg" in names:
            assert "tilerelease" in names, name
    spills = {name: found for name in inner if (found := stack_accesses(code[name]))}
    assert not spills
    # nothing but the split is compiled a second time: no copy of the vector kernels
    assert not [name for name in code if INNER_KERNEL.search(name)]


@needs_sources
def test_registers(objects):
    """Each instruction set uses its own registers and no wider ones."""
    code = {name: "\n".join(one for code in functions(objects[name]).values() for one in code) for name in ISAS}
    assert "%zmm" in code["avx512"]
    assert "%zmm" not in code["avx2"]
    assert not re.search(r"%k[0-7]\b|%ymm(1[6-9]|[23]\d)\b|%xmm(1[6-9]|[23]\d)\b", code["avx2"])
    assert "%ymm" in code["avx2"]


@needs_sources
@pytest.mark.parametrize("name", ["scalar", *PLAIN])
def test_baseline(objects, name):
    """What runs before anyone has asked what the CPU can do."""
    every = functions(objects[name])
    assert every
    assert [one for code in every.values() for one in code if beyond_baseline(one)] == []
