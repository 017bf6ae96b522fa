// The kernels without Python: a pointwise layer and a 3x3 layer of stride 1, whose tables this program fills itself.
//
// It is compiled with the sources of the package, from the root of the repository, on x86-64 by
//
//   S=sparseconv/kernels; FLAGS="-std=c++17 -O3 -I$S -DSC_WITHOUT_AMX"
//   KERNEL="-fno-exceptions -fno-rtti -fno-math-errno"
//   g++ $FLAGS $KERNEL -march=x86-64-v4 -mprefer-vector-width=512 -c $S/isa/avx512.cpp
//   g++ $FLAGS $KERNEL -march=x86-64-v3 -c $S/isa/avx2.cpp
//   g++ $FLAGS $KERNEL -c $S/isa/scalar.cpp
//   g++ $FLAGS examples/extensions/without_python/layers.cpp $S/runtime/*.cpp *.o -pthread -ldl -o layers
//
// and on aarch64 with isa/neon.cpp (-march=armv8-a) and isa/scalar.cpp. sparseconv/kernels/common/problem.h says what
// the fields of a task mean. Other strides, dilations and paddings are other tables: sparseconv/_core/geometry.py makes
// them.
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "runtime/run.h"

// y[n, h, w, k] = sum over r, s, c of x[n, h + r - size / 2, w + s - size / 2, c] * weight[k, c, r, s], all in NHWC.
struct layer {
    int64_t batch, height, width, channels, filters, size;  // size 1 or 3, with as much padding as keeps h and w

    int64_t inputs() const { return batch * height * width * channels; }
    int64_t outputs() const { return batch * height * width * filters; }
    int64_t weights() const { return filters * channels * size * size; }
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A task with the tables that it points to.
struct task_of {
    std::vector<int64_t> row_table, met_rows, in_rows, out_rows, outer_taps;
    std::vector<sc_tap> taps;
    sc_strand strand;
    sc_rows_task task;

    task_of(const layer &l, const sc_limits &limits, bool skip) {
        memset(&task, 0, sizeof task);
        // With one tap all positions of all images are one long row; it is cut into segments.
        const bool pointwise = l.size == 1;
        const int64_t rows = pointwise ? 1 : l.height, columns = pointwise ? l.batch * l.height * l.width : l.width;
        const int64_t padding = l.size / 2;
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t tap = 0; tap < l.size; ++tap) {
                const int64_t in = row + tap - padding;
                row_table.push_back(in >= 0 && in < rows ? in : -1);
            }
            met_rows.push_back(row);
            in_rows.push_back(row * columns * l.channels), out_rows.push_back(row * columns * l.filters);
        }
        for (int64_t tap = 0; tap < l.size; ++tap) taps.push_back({0, l.size, tap}), outer_taps.push_back(tap * l.size);
        // Stride 1 and no dilation: one strand over all columns, with all taps of a row.
        strand = {};
        strand.in_step = strand.out_step = 1, strand.in_count = strand.out_count = columns;
        strand.shift = padding, strand.taps = l.size, strand.tap_step = 1;
        strand.opens = strand.closes = strand.new_columns = 1;
        strand.window_shift = padding, strand.window = l.size - 1;

        sc_map &map = task.map;
        map.out_rows = map.in_rows = rows, map.out_columns = map.in_columns = columns;
        map.outer_taps = map.inner_taps = l.size;
        map.row_table = row_table.data(), map.met_rows = met_rows.data(), map.met_row_count = rows;
        map.strands = &strand, map.strand_count = 1, map.taps = taps.data();
        task.batch = pointwise ? 1 : l.batch, task.groups = 1, task.channels = l.channels, task.lanes = l.filters;
        task.in = {nullptr, rows * columns * l.channels, l.channels, 1, 16, in_rows.data()};
        task.out = {nullptr, rows * columns * l.filters, l.filters, 1, 16, out_rows.data()};
        const int64_t area = l.size * l.size;
        task.weight = {nullptr, l.weights(), l.channels * area, area, 1, outer_taps.data(), 1};
        // Block sizes: what fits into registers, and into the L1 cache.
        const int64_t vectors = ceil_div(l.filters, 16), most = l.size == 1 ? SC_MAX_LANE_VECTORS : 4;
        task.kernel = skip ? SC_ROWS_SKIP : SC_ROWS_DENSE;
        task.lane_vectors = skip ? std::min({vectors, limits.accumulators / l.size, most})
                                 : std::min(vectors, limits.dense_vectors);
        task.channel_block = std::min<int64_t>(l.channels, skip ? 64 : SC_MAX_CHANNEL_BLOCK);
        task.word = std::min<int64_t>(l.channels, 64);
        task.segment = task.in_segment = pointwise ? std::min<int64_t>(columns, 128) : columns;
        task.segments = ceil_div(columns, task.segment);
        task.chunk_rows = pointwise ? 1 : std::min(l.batch * rows, ceil_div(128, columns));
        task.lane_groups = 1, task.pack_ahead = 1;
    }
};

static void brute_force(const layer &l, const float *x, const float *weight, float *y) {
    const int64_t padding = l.size / 2;
    for (int64_t i = 0; i < l.outputs(); ++i) {
        const int64_t k = i % l.filters, w = i / l.filters % l.width, h = i / l.filters / l.width % l.height;
        const float *image = x + i / l.filters / l.width / l.height * l.height * l.width * l.channels;
        float sum = 0;
        for (int64_t r = 0; r < l.size; ++r) {
            for (int64_t s = 0; s < l.size; ++s) {
                const int64_t row = h + r - padding, column = w + s - padding;
                if (row < 0 || row >= l.height || column < 0 || column >= l.width) continue;
                for (int64_t c = 0; c < l.channels; ++c) {
                    sum += image[(row * l.width + column) * l.channels + c] *
                           weight[((k * l.channels + c) * l.size + r) * l.size + s];
                }
            }
        }
        y[i] = sum;
    }
}

// Small whole numbers, so that sums are exact in any order; `zeros` of ten are 0.
static std::vector<float> numbers(int64_t count, int zeros, uint32_t state) {
    std::vector<float> values((size_t)count);
    for (float &value : values) {
        state = state * 1664525u + 1013904223u;
        value = (int)(state >> 16) % 10 < zeros ? 0 : (float)((int)(state >> 20) % 7 - 3);
    }
    return values;
}

static bool right(const sc_api &api, const layer &l, bool skip, int threads) {
    std::vector<float> x = numbers(l.inputs(), 6, 1), weight = numbers(l.weights(), 0, 2);
    std::vector<float> y((size_t)l.outputs(), -1), expected((size_t)l.outputs());
    const sc_table *table = api.convolutions->active();
    task_of made(l, table->limits, skip);
    sc_call call = {};
    call.table = table, call.kernel = made.task.kernel, call.task.rows = made.task;
    sc_arrays arrays = {};
    arrays.source = x.data(), arrays.weight = weight.data(), arrays.out = y.data();
    api.convolutions->point(&call, &arrays);
    const int status = api.convolutions->run(&call, threads, nullptr);
    brute_force(l, x.data(), weight.data(), expected.data());
    const bool good = status == SC_OK && y == expected;
    printf("%s %lldx%lld, %lld to %lld channels, %s, %d thread(s): %s\n", api.isa(), (long long)l.size,
           (long long)l.size, (long long)l.channels, (long long)l.filters, skip ? "skipping zeros" : "dense", threads,
           good ? "exact" : "WRONG");
    return good;
}

int main() {
    const sc_api *api = sparseconv_api();
    if (const char *mismatch = sc_api_mismatch(api)) return puts(mismatch), 2;
    bool good = true;
    for (const layer &l : {layer{2, 9, 11, 40, 72, 3}, layer{3, 7, 5, 100, 48, 1}, layer{1, 1, 1, 3, 5, 3}}) {
        for (bool skip : {true, false}) {
            for (int threads : {1, 3}) good = right(*api, l, skip, threads) && good;
        }
    }
    return good ? 0 : 1;
}
