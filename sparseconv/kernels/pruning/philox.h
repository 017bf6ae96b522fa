// Random numbers without a state: Philox4x32 (Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2,
// 3", SC 2011), a bijection of 128-bit counters for each 64-bit key. Seven rounds are the fewest that pass BigCrush
// according to that paper; the ten that libraries use by default keep a margin that takes a third more time here.
//
// Number i of a key is word i % 2 + i / 16 % 2 * 2 of the output of counter i / 32 * 8 + i % 16 / 2: counters lie in
// lanes of 64 bits, since products do, and neighbouring lanes of the result are two words of one output.
#pragma once
#include "common/base.h"

SC_OPEN

enum { PHILOX_ROUNDS = 7, PHILOX_NUMBERS = 32 * u64x8::chains };

struct philox_keys {  // of each round
    uint64_t first[PHILOX_ROUNDS], second[PHILOX_ROUNDS];
    explicit philox_keys(uint64_t key) {
        uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);
        for (int round = 0; round < PHILOX_ROUNDS; ++round) {
            first[round] = low, second[round] = high;
            low += 0x9e3779b9u, high += 0xbb67ae85u;
        }
    }
};

// Numbers i to i + PHILOX_NUMBERS, i a multiple of 32: (k + 1/2) / 2^23 with k from 0 to 2^23 - 1.
SC_INLINE void philox(float *numbers, uint64_t i, const philox_keys &all) {
    const philox_keys *keys = &all;
    SC_PIN(keys);  // read in each round: GCC 12 would spread all 14 before the caller's loop and spill them, 2% on AVX2
    constexpr int chains = u64x8::chains;  // side by side, since each waits for its own products
    const u64x8 multiplier = splat_word(0xd2511f53u), other_multiplier = splat_word(0xcd9e8d57u);
    u64x8 a[chains], b[chains], c[chains], d[chains];
    SC_UNROLL for (int chain = 0; chain < chains; ++chain) {
        const uint64_t counter = i / 4 + 8 * (uint64_t)chain;
        a[chain] = count_from(counter), b[chain] = splat_word(counter >> 32);
        c[chain] = d[chain] = splat_word(0);
    }
    SC_UNROLL for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        const u64x8 key = splat_word(keys->first[round]), other_key = splat_word(keys->second[round]);
        SC_UNROLL for (int chain = 0; chain < chains; ++chain) {
            const u64x8 p = product(a[chain], multiplier), q = product(c[chain], other_multiplier);
            a[chain] = mix(q, b[chain], key), b[chain] = q;
            c[chain] = mix(p, d[chain], other_key), d[chain] = p;
        }
    }
    SC_UNROLL for (int chain = 0; chain < chains; ++chain) {
        store(numbers + 32 * chain, fractions(a[chain], b[chain]));
        store(numbers + 32 * chain + 16, fractions(c[chain], d[chain]));
    }
}

SC_CLOSE
