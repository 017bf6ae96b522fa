// N:M masks along one axis: of every m elements the n with the largest magnitudes, the earlier one of two equal ones.
// Sixteen groups are ranked side by side, one per lane, so that the loops over lanes become vector code. An element's
// rank is the number of elements that go before it: m / 2 comparisons per element, and no branch. Up to m = 32 that is
// about as fast as bringing the groups into lanes.
#pragma once
#include "common/base.h"
#include "common/problem.h"

SC_OPEN

enum { GROUP_LANES = 16 };

template <class T>
struct group_lanes {  // magnitudes and ranks, [element][lane]
    T *value;
    int32_t *rank;
};

// Where a group begins, and how many elements it has; the others of a short group rank behind all real ones.
struct group_place {
    int64_t first, count;
};

// Groups one after the other: first along the dimensions behind the axis, so that lanes are neighbours in memory there.
class group_walk {
public:
    group_walk(const sc_nm_task &task, int64_t group) : task_(task), inner_(group % task.inner) {
        const int64_t along = (task.length + task.m - 1) / task.m, outer = group / task.inner / along;
        begin_ = group / task.inner % along * task.m, row_ = outer * task.length * task.inner;
    }

    group_place next() {
        const int64_t left = task_.length - begin_;
        const group_place place = {row_ + begin_ * task_.inner + inner_, left < task_.m ? left : task_.m};
        if (++inner_ == task_.inner) inner_ = 0, begin_ += task_.m;
        if (begin_ >= task_.length) begin_ = 0, row_ += task_.length * task_.inner;
        return place;
    }

private:
    const sc_nm_task &task_;
    int64_t inner_, begin_, row_;
};

template <class T>
static void rank_lanes(group_lanes<T> lanes, int64_t m) {
    for (int64_t i = 0; i < m * GROUP_LANES; ++i) lanes.rank[i] = 0;
    for (int64_t later = 1; later < m; ++later) {
        const T *mine = lanes.value + later * GROUP_LANES;
        int32_t behind[GROUP_LANES] = {};
        for (int64_t earlier = 0; earlier < later; ++earlier) {
            const T *other = lanes.value + earlier * GROUP_LANES;
            int32_t *rank = lanes.rank + earlier * GROUP_LANES;
            for (int l = 0; l < GROUP_LANES; ++l) {
                const int32_t loses = other[l] >= mine[l];
                behind[l] += loses, rank[l] += 1 - loses;
            }
        }
        for (int l = 0; l < GROUP_LANES; ++l) lanes.rank[later * GROUP_LANES + l] = behind[l];
    }
}

SC_INLINE float magnitude(float value) { return __builtin_fabsf(value); }
SC_INLINE double magnitude(double value) { return __builtin_fabs(value); }

// Sixteen groups: the usual case is that all of them are whole, and needs no tests.
template <bool whole, class T>
static void mask_lanes(const sc_nm_task &task, const T *weight, const group_place (&places)[GROUP_LANES],
                       group_lanes<T> lanes) {
    for (int64_t i = 0; i < task.m; ++i) {
        T *to = lanes.value + i * GROUP_LANES;
        for (int l = 0; l < GROUP_LANES; ++l) {
            const bool inside = whole || i < places[l].count;
            to[l] = inside ? magnitude(weight[places[l].first + i * task.inner]) : -1;
        }
    }
    rank_lanes(lanes, task.m);
    for (int64_t i = 0; i < task.m; ++i) {
        const int32_t *rank = lanes.rank + i * GROUP_LANES;
        for (int l = 0; l < GROUP_LANES; ++l) {
            if (whole || i < places[l].count) task.mask[places[l].first + i * task.inner] = rank[l] < task.n;
        }
    }
}

template <class T>
static void nm_items(const sc_nm_task &task, const T *weight, int64_t begin, int64_t end, void *scratch) {
    const group_lanes<T> lanes = {(T *)scratch, (int32_t *)((T *)scratch + task.m * GROUP_LANES)};
    group_walk walk(task, begin * GROUP_LANES);
    for (int64_t item = begin; item < end; ++item) {
        if (item * task.m % 256 < task.m && task.interrupt.poll(task.interrupt.context)) return;
        group_place places[GROUP_LANES] = {};
        bool whole = true;
        for (int l = 0; l < GROUP_LANES; ++l) {
            if (item * GROUP_LANES + l < task.groups) places[l] = walk.next();
            whole = whole && places[l].count == task.m;
        }
        if (whole) mask_lanes<true>(task, weight, places, lanes);
        else mask_lanes<false>(task, weight, places, lanes);
    }
}

// Items: sixteen groups each.
static void nm_mask(const sc_nm_task *task, int64_t begin, int64_t end, void *scratch) {
    if (task->weight.wide) nm_items(*task, task->weight.wide, begin, end, scratch);
    else nm_items(*task, task->weight.single, begin, end, scratch);
}

static int64_t nm_mask_scratch(const sc_nm_task *task) {
    return task->m * GROUP_LANES * (int64_t)(sizeof(double) + sizeof(int32_t));
}

static int64_t nm_mask_items(const sc_nm_task *task) { return ceil_div(task->groups, GROUP_LANES); }

SC_CLOSE
