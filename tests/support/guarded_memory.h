// Memory of just the size that was asked for, full of garbage and between canaries.
#pragma once
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>

namespace sparseconv {

// Its words are 0x7fff7fff: as floats of 16 and 32 bits NaN, as indices far outside of everything.
class block {
public:
    explicit block(int64_t bytes)
        : bytes_(bytes), memory_((char *)aligned_alloc(64, (size_t)(bytes + 63) / 64 * 64 + 2 * edge)) {
        memset(memory_.get(), canary, edge);
        memset(data() + bytes, canary, edge);
        refill();
    }
    char *data() const { return memory_.get() + edge; }
    void refill() {
        for (int64_t i = 0; i < bytes_; ++i) data()[i] = garbage(i);
    }
    bool intact() const { return all(memory_.get(), edge, canary) && all(data() + bytes_, edge, canary); }
    // Whether nobody wrote here, from one of its bytes on.
    bool untouched(const char *from) const {
        for (int64_t i = from - data(); i < bytes_; ++i) {
            if (data()[i] != garbage(i)) return false;
        }
        return true;
    }

private:
    static constexpr int64_t edge = 4096;
    static constexpr char canary = 0x55;
    static char garbage(int64_t i) { return i % 2 ? 0x7f : (char)0xff; }
    static bool all(const char *from, int64_t bytes, char value) {
        for (int64_t i = 0; i < bytes; ++i) {
            if (from[i] != value) return false;
        }
        return true;
    }
    struct release { void operator()(char *p) const { free(p); } };
    int64_t bytes_;
    std::unique_ptr<char, release> memory_;
};

}  // namespace sparseconv
