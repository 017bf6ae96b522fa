// The search for the K-th largest magnitude: which bracket the next sweep over the array takes, and what is known then.
//
// A small sample of the array says between which two values the K-th largest lies, all but certainly; a sweep counts
// what is above them and keeps what is between, a few percent; in these few the search goes on in the same way. That is
// the selection of Floyd and Rivest ("Expected time bounds for selection", CACM 18(3), 1975), with counts in the place
// of exchanges. A sample that misleads (an array may have its large values where no sample looks) costs a sweep more:
// the counts tell on which side of the bracket to go on. After a sweep that did not halve what is left, the next
// bracket halves the values instead. There are at most 31 such sweeps, so time is linear for every array.
//
// Magnitudes are looked at as *keys*: whole numbers in their order, without gaps. Zeros and denormals, which kernels
// take as zeros, have key 0, the smallest normal number key 1, infinity the largest.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <algorithm>
#include <functional>

namespace sparseconv {

constexpr int32_t bits_below_normal = 0x007fffff, largest_key = 0x7f800000 - bits_below_normal;

inline int32_t key_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return std::max((int32_t)(bits & 0x7fffffff) - bits_below_normal, 0);
}

// The magnitude that has this key; NaN, above which kernels find everything, for -1.
inline float value_of(int32_t key) {
    if (key < 0) return NAN;
    const uint32_t bits = key ? (uint32_t)(key + bits_below_normal) : 0;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Keys above low and at most high.
struct bracket {
    int32_t low, high;
};

class topk_search {
public:
    static constexpr int64_t few = 512;              // elements that are sorted rather than searched
    static constexpr int64_t most_samples = 1 << 13;

    topk_search(const float *data, int64_t count, int64_t k) : data(data), count(count), rank_(k), inside_(count) {}

    // Where the sweeps read: all elements of the bracket known so far are there.
    const float *data;
    int64_t count;

    bool found() const { return known_.high - known_.low == 1; }
    int32_t key() const { return known_.high; }
    int64_t ties() const { return inside_; }      // elements that have this key
    int64_t kept_ties() const { return rank_; }   // as many of them are among the K largest

    // The bracket of the next sweep, which may keep up to `room` elements. `samples` has room for most_samples.
    bracket next(int32_t *samples, int64_t room) {
        if (inside_ <= room && inside_ <= count / 2) return known_;  // away with the others
        const int64_t taken = halve_ ? 0 : take_samples(samples);
        if (taken < 16) return {known_.low, known_.low + (known_.high - known_.low) / 2};
        return around(samples, taken);
    }

    // After the sweep: `reached` elements are above tried.low, `inside` in the bracket, and in `kept` if all had room.
    void learn(bracket tried, int64_t reached, int64_t inside, const float *kept, bool all_kept) {
        const int64_t before = inside_, before_count = count, above = reached - inside - beyond_;
        if (rank_ <= above) {
            known_.low = tried.high, inside_ = above;
        } else if (rank_ <= above + inside) {
            pass_over(above), known_ = tried, inside_ = inside;
            if (all_kept) data = kept, count = inside, beyond_ = 0;
        } else {
            pass_over(above + inside), known_.high = tried.low, inside_ -= above + inside;
        }
        halve_ = !halve_ && count == before_count && inside_ > before / 2;
    }

    // The end of it, where few elements are left and all of them are in the bracket. False: one of them is NaN.
    bool sortable() const { return count <= few && inside_ == count; }
    bool sort(int32_t *keys) {
        for (int64_t i = 0; i < count; ++i) keys[i] = key_of(data[i]);
        if (*std::max_element(keys, keys + count) > largest_key) return false;
        std::nth_element(keys, keys + rank_ - 1, keys + count, std::greater<int32_t>());
        const int32_t key = keys[rank_ - 1];
        pass_over(std::count_if(keys, keys + count, [key](int32_t one) { return one > key; }));
        inside_ = std::count(keys, keys + count, key);
        known_ = {key - 1, key};
        return true;
    }

private:
    void pass_over(int64_t larger) { rank_ -= larger, beyond_ += larger; }

    // One element of each of so many equal parts of the array, at places that look random; those in the bracket count.
    int64_t take_samples(int32_t *samples) const {
        const int64_t parts = std::min({most_samples, count, std::max<int64_t>(64, 2 * (int64_t)sqrt((double)count))});
        const int64_t part = count / parts;
        int64_t taken = 0;
        for (int64_t i = 0; i < parts; ++i) {
            const uint64_t hash = (uint64_t)(i + 1) * 0x9e3779b97f4a7c15ull;  // Fibonacci hashing: Knuth, TAOCP 3, 6.4
            const int64_t place = count * i / parts + (int64_t)((hash >> 32) * (uint64_t)part >> 32);
            const int32_t key = key_of(data[place]);
            samples[taken] = key;
            taken += key > known_.low && key <= known_.high;
        }
        return taken;
    }

    // Three standard deviations of the sample's ranks on either side, without the ends: a value that occurs often would
    // bring all its copies along. Where both ends are one such value, the bracket is just that.
    bracket around(int32_t *samples, int64_t taken) const {
        const double share = (double)rank_ / (double)inside_, middle = share * (double)taken;
        const double margin = 3 * sqrt(middle * (1 - share)) + 1;
        const int64_t first = (int64_t)floor(middle - margin), last = (int64_t)ceil(middle + margin);
        int32_t *const end = samples + taken, *rest = samples;
        bracket found = known_;
        if (first >= 0) {
            std::nth_element(rest, samples + first, end, std::greater<int32_t>());
            rest = samples + first;
            found.high = *rest - 1;
        } else {
            const int32_t largest = *std::max_element(samples, end);
            if (is_frequent(largest, samples, taken)) found.high = largest - 1;
        }
        if (last < taken) {
            std::nth_element(rest, samples + last, end, std::greater<int32_t>());
            found.low = samples[last];
        } else {
            const int32_t smallest = *std::min_element(rest, end);
            if (is_frequent(smallest, samples, taken)) found.low = smallest;
        }
        if (found.low > found.high) return {found.high, found.low};
        if (found.low < found.high) return found;
        return found.low > known_.low ? bracket{found.low - 1, found.low} : bracket{found.low, found.low + 1};
    }

    static bool is_frequent(int32_t key, const int32_t *samples, int64_t taken) {
        return std::count(samples, samples + taken, key) > 2 + taken / 32;
    }

    int64_t rank_;                           // of what is sought, in the bracket: the rank_-th largest there
    int64_t inside_;                         // elements in the bracket
    int64_t beyond_ = 0;                     // elements of `data` above it
    bracket known_ = {-1, largest_key};      // it is in there
    bool halve_ = false;                     // the values, as the last sweep did not halve their number
};

}  // namespace sparseconv
