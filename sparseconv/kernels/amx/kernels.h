// All kernels on tile registers, and the tables of them: with AMX-BF16 alone, and with AMX-FP16. The including unit has
// defined f32x16, the tile registers, and SC_VECTOR_ISA: the instruction set whose kernels take over where tiles cannot
// serve.
#pragma once
#include "isa/table.h"

namespace sparseconv { namespace SC_VECTOR_ISA { extern const sc_table table; }}

SC_OPEN
static constexpr const sc_table &vector_table = SC_VECTOR_ISA::table;
SC_CLOSE

#include "amx/gradient.h"
#include "amx/rows.h"

SC_OPEN

// Products of small numbers, compared with what they must be: a machine that offers tile registers has to get them
// right. Half of the numbers are below 2^-14, where fp16 is denormal.
template <class Format>
static int64_t tiles_work() {
    uint32_t rows[TILE_PAIRS], lanes[TILE_PAIRS];
    float sums[TILE_PAIRS], expected[TILE_PAIRS];
    for (int i = 0; i < PAIRS; ++i) {
        for (int k = 0; k < PAIRS; ++k) {
            floats16 values = {};
            values[0] = (float)(i - k) * 0x1p-20f, values[1] = (float)(2 * k - 9);
            values[2] = (float)(3 + i + k) * 0x1p10f, values[3] = (float)(k * i % 7 - 3);
            const bits16 bits = Format::take(values);
            rows[i * PAIRS + k] = bits[0] >> 16 | bits[1];
            lanes[k * PAIRS + i] = bits[2] >> 16 | bits[3];
            sums[i * PAIRS + k] = (float)(i + 16 * k);
        }
    }
    for (int m = 0; m < PAIRS; ++m) {
        for (int n = 0; n < PAIRS; ++n) {
            int small = 0, large = m + 16 * n;
            for (int k = 0; k < PAIRS; ++k) {
                small += (m - k) * (3 + k + n), large += (2 * k - 9) * (k * n % 7 - 3);
            }
            expected[m * PAIRS + n] = (float)small * 0x1p-10f + (float)large;
        }
    }
    {
        const tiles_in_use tiles;
        tile_load<0>(sums, ROW_BYTES), tile_load<4>(rows, ROW_BYTES), tile_load<6>(lanes, ROW_BYTES);
        multiply_tiles<Format, 0, 4, 6>();
        tile_store<0>(sums, ROW_BYTES);
    }
    return __builtin_memcmp(sums, expected, sizeof sums) == 0;
}

SC_CLOSE

namespace sparseconv { namespace SC_ISA {

// The only symbols of the translation unit. Constant: nothing runs when the library is loaded.
extern const sc_tile_table tiles, fp16_tiles;
constexpr sc_tile_table tiles = {
    tiles_work<bf16<1>>, tile_rows_table<bf16<2>>, tile_gradient_table<bf16<2>>, 0,
};
constexpr sc_tile_table fp16_tiles = {
    tiles_work<fp16>, tile_rows_table<fp16>, tile_gradient_table<fp16>, 1,
};

}}
