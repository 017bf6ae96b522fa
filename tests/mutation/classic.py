"""The classic bugs of convolution kernels, written by hand: every one must be found by the quick suite."""

from dataclasses import dataclass

from places import KERNELS


@dataclass(frozen=True)
class Bug:
    """Some text of a header, which must be there once, and the wrong one."""

    name: str
    file: str  # below kernels/
    old: str
    new: str

    @property
    def folder(self):
        return self.file.split("/")[0]

    def headers(self):
        text = (KERNELS / self.file).read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.name}: {self.file} has the text {text.count(self.old)} times"
        return {self.file: text.replace(self.old, self.new)}


CLASSIC = (
    Bug("padding at the wrong side", "rows/rows.h",
        "sweep.shift = strand.shift, sweep.taps", "sweep.shift = strand.taps - 1 - strand.shift, sweep.taps"),
    Bug("stride of the input in the place of that of the output", "rows/rows.h",
        "0;\n        open_and_close(task, chunk, scratch, block, bias, needed, row, strand.out_start, strand.out_step",
        "0;\n        open_and_close(task, chunk, scratch, block, bias, needed, row, strand.out_start, strand.in_step"),
    Bug("taps of one phase for another: stride and dilation mixed up", "rows/rows.h",
        "tile + shape.strand_offset(tap, strand.taps_before);\n    sweep.live_pitch",
        "tile + shape.strand_offset(tap, 0);\n    sweep.live_pitch"),
    Bug("the last row of taps is forgotten", "rows/rows.h",
        "tap < map.outer_taps && !task.joined; ++tap)", "tap < map.outer_taps - 1 && !task.joined; ++tap)"),
    Bug("tail lanes are stored as well", "common/epilogue.h",
        "if (lanes != 16) store_partial(to, result, lanes);\n    else if", "if"),
    Bug("the last chunk is as long as the others", "rows/chunk.h",
        "rows = smaller(task.chunk_rows, task.batch * map.out_rows - first);", "rows = task.chunk_rows;"),
    Bug("bias twice", "common/epilogue.h",
        "end.bias[first + i] + 0.0f", "end.bias[first + i] + end.bias[first + i]"),
    Bug("bias of the first group for all", "rows/rows.h",
        "lane = block.group * task.lanes + block.vector * 16, pitch = block.vectors * 16;\n    float bias",
        "lane = block.vector * 16, pitch = block.vectors * 16;\n    float bias"),
    Bug("input channels of the first group for all", "rows/sources.h",
        "const int64_t channel = group * task.channels, blocks", "const int64_t channel = 0 * group, blocks"),
    Bug("residual read after it was overwritten", "rows/skip.h",
        "if (amends) row.results.amend(sum, m - (S - 1) - begin);\n                    row.results.leave(sum, to);",
        "row.results.leave(sum, to);\n                    if (amends) row.results.amend(sum, m - (S - 1) - begin);\n"
        "                    row.results.leave(sum, to);"),
    Bug("ReLU in front of the residual", "groups/groups.h",
        "acc[p] = with_residual(acc[p], residual + p * outputs.residual_pitch, 16);",
        "acc[p] = with_residual(finished(acc[p], outputs.relu), residual + p * outputs.residual_pitch, 16);"),
    Bug("NaN is taken for zero", "simd/avx2.h",
        "_mm256_cmp_ps(low, t.low, _CMP_NLE_UQ), _mm256_cmp_ps(high, t.high, _CMP_NLE_UQ)",
        "_mm256_cmp_ps(low, t.low, _CMP_GT_OQ), _mm256_cmp_ps(high, t.high, _CMP_GT_OQ)"),
    Bug("ReLU loses NaN", "common/epilogue.h",
        "return relu ? maximum(zero(), sum) : sum;", "return relu ? maximum(sum, zero()) : sum;"),
    Bug("what equals the threshold counts", "simd/avx2.h",
        "_mm256_cmp_ps(low, t.low, _CMP_NLE_UQ), _mm256_cmp_ps(high, t.high, _CMP_NLE_UQ)",
        "_mm256_cmp_ps(low, t.low, _CMP_NLT_UQ), _mm256_cmp_ps(high, t.high, _CMP_NLT_UQ)"),
    Bug("bytes of a bit mask in the other order", "arrays/mask.h",
        "bits[0] = (uint8_t)word;\n    if (count > 8) bits[1] = (uint8_t)(word >> 8);",
        "bits[0] = (uint8_t)(word >> 8);\n    if (count > 8) bits[1] = (uint8_t)word;"),
    Bug("bits of bools from the highest on", "arrays/mask.h",
        "bools[i] = bits[i / 8] >> i % 8 & 1;", "bools[i] = bits[i / 8] >> (7 - i % 8) & 1;"),
    Bug("the tail of a bit mask is written as a whole", "arrays/mask.h",
        "nonzero(load_partial(data + i, (int)(count - i))), count - i);",
        "nonzero(load_partial(data + i, (int)(count - i))), 16);"),
    Bug("a sum goes on from item to item of a thread", "pruning/stochastic.h",
        "        Sums sums = {};\n        int64_t live = 0, i = first;",
        "        static thread_local Sums sums;\n        if (!item) sums = {};\n"
        "        int64_t live = 0, i = first;"),
    Bug("sums begin with what memory held", "outputs/outputs.h",
        "for (int64_t i = 0; i < all; i += 16) store(scratch.sums + i, zero());", "(void)all;"),
    Bug("Inf and NaN among weights are not noticed", "weights/lists.h",
        "finite = finite && !nonzero(fma(values, zero(), zero()));", "finite = finite && !nonzero(zero());"),
    Bug("lists of the first phase for all", "weights/lists.h",
        "const int64_t first = list ? lists.class_ends[list - 1] : 0, taps",
        "const int64_t first = 0, taps"),
    Bug("of equal magnitudes the last one wins", "pruning/nm.h",
        "const int32_t loses = other[l] >= mine[l];", "const int32_t loses = other[l] > mine[l];"),
    Bug("the upper half of a vector begins at a fixed place", "simd/avx2.h",
        "expand8(packed + __builtin_popcount(low), high)", "expand8(packed + 8, high)"),
    Bug("denormals of the bias stay", "common/epilogue.h",
        "end.bias[first + i] + 0.0f", "end.bias[first + i]"),
    Bug("bits across the end of a word are lost", "gradient/skip.h",
        "if (shift) live |= *words << (64 - shift);", ";"),
    Bug("positions behind the end of a run count", "gradient/skip.h",
        "if (positions - first < 64) live &= (1ull << (positions - first)) - 1;", ";"),
    Bug("mask of the first group for all", "gradient/mask.h",
        "mask += (group * task.pair_group + channel", "mask += (channel"),
    Bug("what a long sum lost is taken away again", "common/long_sums.h",
        "c[j] += (a[j]", "c[j] -= (a[j]"),
    Bug("one column too many at the right edge", "groups/groups.h",
        "i < step.low || i >= step.high", "i < step.low || i > step.high"),
    Bug("lanes that two vectors have are stored twice", "groups/groups.h",
        "for (int lane = done; lane < 16; ++lane) to[lane]", "for (int lane = 0; lane < 16; ++lane) to[lane]"),
)  # fmt: skip
