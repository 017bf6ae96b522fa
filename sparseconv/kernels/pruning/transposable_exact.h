// The optimal transposable mask: a transport problem per block, in which every row sends n units to columns that take n
// each, at most one per element. Solved by shortest augmenting paths (successive shortest paths with potentials:
// Edmonds and Karp 1972; for assignments Jonker and Volgenant 1987): one path per unit, found by Dijkstra's algorithm
// on the dense residual graph of m rows and m columns, so O(n m^3) per block. No more than m / 2 units per row: beyond
// that the pruned elements are sent instead of the kept ones.
#pragma once
#include "pruning/transposable_lanes.h"

SC_OPEN

// One block. cost[i][j] + row[i] - column[j] is at least 0 for elements that could be sent, and at most 0 for those
// that are: with every row and column full this proves the optimum.
class transport {
public:
    transport(const double *magnitude, int64_t size, int64_t units, double sign) : m_(size), units_(units) {
        for (int64_t j = 0; j < m_; ++j) {
            column_[j] = 4;
            for (int64_t i = 0; i < m_; ++i) {
                cost_[i][j] = sign * magnitude[(i * m_ + j) * BLOCK_LANES];
                if (cost_[i][j] < column_[j]) column_[j] = cost_[i][j];
            }
        }
    }

    void solve() {
        for (int64_t i = 0; i < m_; ++i) {
            for (int64_t unit = 0; unit < units_; ++unit) augment(i);
        }
    }

    uint32_t sent(int64_t i) const { return sent_[i]; }

private:
    // The nodes of the residual graph: rows 0 .. m - 1, then columns.
    void augment(int64_t source) {
        const int64_t nodes = 2 * m_;
        for (int64_t v = 0; v < nodes; ++v) distance_[v] = 1e30, open_[v] = true;
        distance_[source] = 0;
        for (;;) {
            int64_t v = 0;
            double nearest = 1e300;
            for (int64_t w = 0; w < nodes; ++w) {
                if (open_[w] && distance_[w] < nearest) nearest = distance_[w], v = w;
            }
            open_[v] = false;
            if (v >= m_ && taken_[v - m_] < units_) return send(source, v - m_);
            if (v < m_) relax_row(v);
            else relax_column(v - m_);
        }
    }

    void relax_row(int64_t i) {
        for (int64_t j = 0; j < m_; ++j) {
            if (sent_[i] >> j & 1 || !open_[m_ + j]) continue;
            const double through = distance_[i] + cost_[i][j] + row_[i] - column_[j];
            if (through < distance_[m_ + j]) distance_[m_ + j] = through, from_[m_ + j] = i;
        }
    }

    void relax_column(int64_t j) {
        for (int64_t i = 0; i < m_; ++i) {
            if (!(sent_[i] >> j & 1) || !open_[i]) continue;
            const double through = distance_[m_ + j] - (cost_[i][j] + row_[i] - column_[j]);
            if (through < distance_[i]) distance_[i] = through, from_[i] = j;
        }
    }

    // One unit along the path that ends in column j; potentials follow the distances up to there.
    void send(int64_t source, int64_t j) {
        const double end = distance_[m_ + j];
        for (int64_t v = 0; v < m_; ++v) {
            row_[v] += distance_[v] < end ? distance_[v] : end;
            column_[v] += distance_[m_ + v] < end ? distance_[m_ + v] : end;
        }
        ++taken_[j];
        for (;;) {
            const int64_t i = from_[m_ + j];
            sent_[i] ^= 1u << j;
            if (i == source) return;
            j = from_[i];
            sent_[i] ^= 1u << j;
        }
    }

    int64_t m_, units_;
    double cost_[SC_MAX_BLOCK][SC_MAX_BLOCK], row_[SC_MAX_BLOCK] = {}, column_[SC_MAX_BLOCK];
    double distance_[2 * SC_MAX_BLOCK];
    int64_t from_[2 * SC_MAX_BLOCK], taken_[SC_MAX_BLOCK] = {};
    uint32_t sent_[SC_MAX_BLOCK] = {};
    bool open_[2 * SC_MAX_BLOCK];
};

static void exact_masks(block_masks &masks, const double *magnitude, int64_t m, int64_t n) {
    const bool keep = 2 * n <= m;
    for (int lane = 0; lane < BLOCK_LANES; ++lane) {
        transport block(magnitude + lane, m, keep ? n : m - n, keep ? -1 : 1);
        block.solve();
        for (int64_t i = 0; i < m; ++i) masks.kept[i][lane] = keep ? block.sent(i) : ~block.sent(i);
    }
}

// --- 2:4, what sparse tensor cores want: all 90 masks are tried (Hu et al., ICML 2024, arXiv 2404.01847) ---

constexpr uint8_t PAIRS[6] = {3, 5, 6, 9, 10, 12};  // rows with two of four elements

struct patterns_2_4 {
    uint8_t row[90][4];  // indices into PAIRS
};

constexpr patterns_2_4 find_patterns_2_4() {
    patterns_2_4 found = {};
    int count = 0;
    for (int code = 0; code < 6 * 6 * 6 * 6; ++code) {
        const int row[4] = {code / 216, code / 36 % 6, code / 6 % 6, code % 6};
        bool full = true;
        for (int column = 0; column < 4; ++column) {
            int kept = 0;
            for (int i = 0; i < 4; ++i) kept += PAIRS[row[i]] >> column & 1;
            full = full && kept == 2;
        }
        if (!full) continue;
        for (int i = 0; i < 4; ++i) found.row[count][i] = (uint8_t)row[i];
        ++count;
    }
    return found;
}

static void exact_masks_2_4(block_masks &masks, const double *magnitude) {
    static constexpr patterns_2_4 patterns = find_patterns_2_4();
    double pair[4][6][BLOCK_LANES], best[BLOCK_LANES];
    int32_t choice[BLOCK_LANES];
    for (int i = 0; i < 4; ++i) {
        for (int p = 0; p < 6; ++p) {
            const int first = __builtin_ctz(PAIRS[p]), second = 31 - __builtin_clz(PAIRS[p]);
            const double *row = magnitude + i * 4 * BLOCK_LANES;
            const double *a = row + first * BLOCK_LANES, *b = row + second * BLOCK_LANES;
            for (int l = 0; l < BLOCK_LANES; ++l) pair[i][p][l] = a[l] + b[l];
        }
    }
    for (int l = 0; l < BLOCK_LANES; ++l) best[l] = -1, choice[l] = 0;
    for (int k = 0; k < 90; ++k) {
        const double *row[4];
        for (int i = 0; i < 4; ++i) row[i] = pair[i][patterns.row[k][i]];
        for (int l = 0; l < BLOCK_LANES; ++l) {
            const double total = row[0][l] + row[1][l] + (row[2][l] + row[3][l]);
            choice[l] = total > best[l] ? k : choice[l];
            best[l] = total > best[l] ? total : best[l];
        }
    }
    for (int i = 0; i < 4; ++i) {
        for (int l = 0; l < BLOCK_LANES; ++l) masks.kept[i][l] = PAIRS[patterns.row[choice[l]][i]];
    }
}

SC_CLOSE
