// Which instruction sets were compiled, which of them this machine runs, and which one is in use.
#pragma once
#include "isa/table.h"

namespace sparseconv {

struct isa {
    const sc_table *table;
    bool (*supported)();  // by the CPU and by the operating system, which must save the registers
    bool (*by_name)();    // the same, or found by trying what a hypervisor hides: only for those who name it
};

// All compiled instruction sets, best first.
const isa *isas(int *count);

// The one in use: the best supported one until set_active.
const sc_table *active();
void set_active(const sc_table *table);

// "intel", "amd" or "other": the instruction set does not tell what a load costs beside a multiply-add.
const char *vendor();

// The display family that x86 CPUs tell of themselves (AMD: 25 is Zen 3 and 4, 26 Zen 5); 0 elsewhere.
int family();

// Bytes of a core's first data cache, as an x86 CPU or its hypervisor tells; 0 where nothing tells.
int64_t l1_bytes();

// For tests: from now on there is an instruction set "amx" or "amx_fp16", the best vector kernels here with these dense
// ones. False, and nothing done, where there is one anyway.
bool simulate_tiles(const sc_tile_table *tiles);

}  // namespace sparseconv
