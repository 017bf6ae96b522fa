// All kernels on tile registers, and the table of them. The including unit has defined f32x16, the tile registers, and
// SC_VECTOR_ISA: the instruction set whose kernels take over where tiles cannot serve.
#pragma once
#include "isa/table.h"

namespace sparseconv { namespace SC_VECTOR_ISA { extern const sc_table table; }}

SC_OPEN
static constexpr const sc_table &vector_table = SC_VECTOR_ISA::table;
SC_CLOSE

#include "amx/gradient.h"
#include "amx/rows.h"

SC_OPEN

// A product of small integers, compared with what it must be: a machine that offers tile registers has to get it right.
static int64_t tiles_work() {
    uint32_t rows[TILE_PAIRS], lanes[TILE_PAIRS];
    float sums[TILE_PAIRS], expected[TILE_PAIRS];
    for (int m = 0; m < PAIRS; ++m) {
        for (int k = 0; k < PAIRS; ++k) {  // bf16 is the upper half of f32
            const float values[] = {(float)(m - k), (float)(2 * k - 9), (float)(3 + m + k), (float)(k * m % 7 - 3)};
            uint32_t bits[4];
            __builtin_memcpy(bits, values, sizeof bits);
            rows[m * PAIRS + k] = bits[0] >> 16 | bits[1];
            lanes[m * PAIRS + k] = bits[2] >> 16 | bits[3];
            sums[m * PAIRS + k] = (float)(m + 16 * k);
        }
    }
    for (int m = 0; m < PAIRS; ++m) {
        for (int n = 0; n < PAIRS; ++n) {
            int sum = m + 16 * n;
            for (int k = 0; k < PAIRS; ++k) sum += (m - k) * (3 + k + n) + (2 * k - 9) * (k * n % 7 - 3);
            expected[m * PAIRS + n] = (float)sum;
        }
    }
    {
        const tiles_in_use tiles;
        tile_load<0>(sums, ROW_BYTES), tile_load<4>(rows, ROW_BYTES), tile_load<6>(lanes, ROW_BYTES);
        tile_multiply<0, 4, 6>();
        tile_store<0>(sums, ROW_BYTES);
    }
    return __builtin_memcmp(sums, expected, sizeof sums) == 0;
}

SC_CLOSE

namespace sparseconv { namespace SC_ISA {

// The only symbol of the translation unit. Constant: nothing runs when the library is loaded.
extern const sc_tile_table tiles;
constexpr sc_tile_table tiles = {
    tiles_work, tile_rows_table, tile_gradient_table,
};

}}
