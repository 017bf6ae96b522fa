/* The C interface of sparseconv: plain C11, also C++11 and newer. docs/c_api.md has examples.
 *
 * One struct of functions, sc_api, is all that there is. Python hands it out as the capsule SC_API_CAPSULE; Cython gets
 * it with `cimport sparseconv`; a program without Python declares `extern "C" const sc_api *sparseconv_api(void)` and
 * links the sources of kernels/. Whoever gets it asks sc_api_mismatch(api) first.
 *
 * Rules that hold for all functions, unless one says otherwise:
 *
 * - Sizes and strides are counted in elements, not bytes. Arrays lie at multiples of the size of their elements.
 * - The caller owns all memory that it passes, and nothing is kept after the call. Structs may lie on the stack. The
 *   members called `interrupt` belong to the call and need no value.
 * - Nothing is checked but what a status says: wrong sizes or pointers are undefined behaviour.
 * - All functions may be called from any thread, several at a time, with and without Python's GIL, as long as nobody
 *   writes what another call reads or writes. No result depends on `threads`, bit for bit.
 * - `threads` is at least 1: how many threads may take part. api->num_threads() is the number that the user has chosen.
 * - `signals` is NULL, or is called on the calling thread about every 50 ms and stops the call by a value other than 0.
 *   It is called in the middle of the call, without the GIL. What the call was to write is then left half written.
 *   It has to come back: a thread that wants the GIL while Python ends may be ended by Python, with its stack, which
 *   other threads of the call use.
 * - The result is an sc_status, SC_OK being 0.
 */
#ifndef SPARSECONV_H
#define SPARSECONV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Raised when anything that was there before changes. What is new comes at the end and makes sc_api.size grow. */
#define SC_API_VERSION 1
#define SC_API_CAPSULE "sparseconv.C_API"       /* of an sc_api */
#define SC_CALL_CAPSULE "sparseconv.call"       /* of an sc_call: PreparedCall.capsule() */

typedef enum {
    SC_OK = 0,
    SC_NO_MEMORY = 1,     /* there was none for scratch buffers */
    SC_INTERRUPTED = 2,   /* `signals` said so */
    SC_BAD_OPERANDS = 3,  /* sc_api.run: an operand that the call needs is NULL, or not aligned; nothing was written */
} sc_status;

typedef int (*sc_signals)(void);

/* --- convolutions: calls that were prepared in Python --- */

/* A call of a convolution that is ready but for its arrays, made by PreparedCall.capsule() of Python. It is never
 * written, so any number of threads may run it at a time. The capsule owns it. */
typedef struct sc_call sc_call;

/* The arrays of a call, by their names in Python. Those that the operation does not have are NULL. Each has the shape,
 * the strides and the dtype of the array that the call was prepared with, and lies at a multiple of 4 bytes. */
typedef struct {
    size_t size;               /* sizeof(sc_operands) */
    const float *x;
    const float *weight;       /* not read by a call whose kernel skips zero weights: it has its own lists of them */
    const float *bias;
    const float *grad_output;
    const void *input_mask;
    const void *grad_output_mask;
    const void *output_mask;
    float *out;                /* must not overlap any of the others, but may be `residual` */
    uint8_t *bits;             /* where return_mask was asked for: one bit per element of `out`, in whole bytes */
    const float *residual;
} sc_operands;

/* --- tasks: plain functions on contiguous memory --- */

/* Set by the call itself. */
typedef struct {
    int (*poll)(void *context);
    void *context;
} sc_interrupt;

/* Activations or gradients of any layout:
 *   data[image * image_stride + rows[row] + column * column_stride + (channel / 16) * block_stride
 *        + (channel % 16) * channel_stride]
 * A row is a run along the innermost dimension; of a 2-D array in NCHW or NHWC rows[h] is h times the stride of H.
 * Where channels do not lie in blocks of 16, block_stride is 16 * channel_stride. */
typedef struct {
    float *data;
    int64_t image_stride, column_stride, channel_stride, block_stride;
    const int64_t *rows;
} sc_view;

/* Bias gradient: the sum over images, rows and columns, for every channel. */
typedef struct {
    sc_view in;
    int64_t batch, rows, columns, channels;
    float *out;  /* (channels,) */
    sc_interrupt interrupt;
} sc_bias_task;

/* Packed nonzeros of an array whose elements lie side by side. */
enum {
    SC_COMPRESSED_BLOCK = 4096,     /* elements of which the offset is kept */
    SC_COMPRESSED_ITEM = 1 << 16,   /* of a work item */
    SC_COMPRESSED_STREAM = 1 << 23  /* arrays of so many are expanded past the caches */
};
typedef struct {
    float *dense;
    int64_t count;
    uint8_t *bits;     /* (count + 7) / 8: which elements are not zero, lowest bit first */
    float *packed;     /* their values; 16 more may be read */
    int64_t *offsets;  /* blocks + 1: nonzeros before each block, and in all */
    int64_t counted;   /* 1: offsets are known. 0: they are found on the way; packed has room for count + 16 values */
} sc_compress_task;

/* Weights or gradients in C order, in one of two types; the other pointer is NULL. */
typedef struct {
    const float *single;
    const double *wide;
} sc_magnitudes;

/* N:M masks: the n largest magnitudes of every m elements along an axis. */
typedef struct {
    sc_magnitudes weight;
    uint8_t *mask;          /* one byte per element, 0 or 1 */
    int64_t length, inner;  /* sizes of the axis and of all dimensions behind it */
    int64_t groups;         /* of m elements, in the whole array; the last one along the axis may be shorter */
    int64_t n, m;
    sc_interrupt interrupt;
} sc_nm_task;

/* Stochastic pruning of gradients whose elements lie side by side. */
enum { SC_STOCHASTIC_ITEM = 1 << 15 };  /* elements of a work item */
typedef struct {
    sc_magnitudes gradient;
    void *out;          /* as many elements of the same type, or the gradient's own; NULL: it is measured, not pruned */
    int64_t count;
    uint64_t key;       /* of the random numbers */
    double threshold;   /* above zero */
    double *sums;       /* [items]: of the gradient's magnitudes */
    int64_t *nonzeros;  /* [items]: in `out`, or in the gradient where there is none */
    sc_interrupt interrupt;
} sc_stochastic_task;

enum { SC_MAX_BLOCK = 32 };  /* largest m of a transposable mask */
typedef enum { SC_GREEDY, SC_ENTROPY, SC_EXACT } sc_transposable_method;

/* Transposable N:M masks of a matrix that is tiled with m x m blocks, those at the edges padded with zeros. */
typedef struct {
    sc_magnitudes weight;
    double scale;        /* takes every magnitude to [0, 1) */
    uint8_t *mask;       /* one byte per element, 0 or 1 */
    int64_t rows, columns, n, m;
    int64_t method;      /* an sc_transposable_method */
    int64_t iterations;  /* of SC_ENTROPY */
    double sharpness;    /* of SC_ENTROPY: S begins as exp(sharpness * weight / largest weight of the block) */
    sc_interrupt interrupt;
} sc_transposable_task;

/* Top-K of the magnitudes of float32 elements that lie side by side. Set `data`, `count` and `mask`; of above_mask also
 * `high`. The rest belongs to the call. */
enum { SC_TOPK_ITEM = 1 << 14 };  /* elements of a work item: some 2 us, 64 KB */
typedef struct {
    int64_t reached;  /* elements whose magnitude is above `low`, NaN included */
    int64_t inside;   /* of these, those that are not above `high` */
    int64_t nan;      /* 1 if there is any */
} sc_topk_count;
typedef struct {
    const float *data;
    int64_t count;
    float low, high;  /* the bracket: magnitudes above low and not above high. A NaN is below all. */
    /* a sweep: its counts, and the elements inside the bracket in any order, unless they are more than `room` */
    sc_topk_count *counts;  /* [items] */
    float *kept;
    int64_t room;
    int64_t *taken;  /* 0 at the beginning */
    /* the mask: ties, which the bracket holds, are kept before tie_item, and the first tie_count of that item */
    uint8_t *mask;  /* one byte per element, 0 or 1; NULL: none is wanted */
    int64_t tie_item, tie_count;
    sc_interrupt interrupt;
} sc_topk_task;
typedef struct {
    float magnitude;  /* the k-th largest one; NaN, and no mask, where any element is NaN */
    int64_t sweeps;   /* in how many sweeps over memory it was found */
} sc_topk_result;

/* What the package's own modules call; not for others: it changes without notice. */
typedef struct sc_convolutions sc_convolutions;

typedef struct {
    int64_t version;  /* SC_API_VERSION of the library */
    int64_t size;     /* sizeof(sc_api) of the library */
    const sc_convolutions *convolutions;

    const char *(*isa)(void);    /* name of the instruction set in use: "avx512", ... */
    int (*num_threads)(void);    /* the number of threads that the user has chosen, or the default */

    /* Runs a prepared call on these arrays, on the instruction set that it was prepared for. */
    int (*run)(const sc_call *call, const sc_operands *operands, int threads, sc_signals signals);

    int (*bias_gradient)(sc_bias_task *task, int threads, sc_signals signals);

    /* Masks, without a status: `bits` are (count + 7) / 8 bytes, lowest bit first. */
    int64_t (*count_above)(const float *data, int64_t count, float threshold);  /* magnitudes above it, NaN included */
    void (*mask_nonzero)(const float *data, int64_t count, uint8_t *bits);
    void (*mask_relu)(const float *data, int64_t count, float *out, uint8_t *bits);  /* out = max(data, 0); its bits */
    void (*mask_unpack)(const uint8_t *bits, int64_t count, uint8_t *bools);
    int64_t (*mask_live_vectors)(const float *data, int64_t count, int64_t width);  /* runs that are not all zeros */
    void (*mask_any)(const uint8_t *bools, int64_t count, int64_t width, uint8_t *any);  /* of each run of `width` */

    /* Packed nonzeros. count_blocks sets the offsets; compress packs, in one thread unless they are known; expand. */
    int (*count_blocks)(const sc_compress_task *task, int threads, sc_signals signals);
    int (*compress)(const sc_compress_task *task, int threads, sc_signals signals);
    int (*expand)(const sc_compress_task *task, int threads, sc_signals signals);

    int (*nm_mask)(sc_nm_task *task, int threads, sc_signals signals);
    int (*transposable_mask)(sc_transposable_task *task, int threads, sc_signals signals);
    int (*topk)(sc_topk_task *task, int64_t k, sc_topk_result *result, int threads, sc_signals signals);
    int (*above_mask)(sc_topk_task *task, int threads, sc_signals signals);  /* magnitudes above task->high; NaN is */
    int (*stochastic_prune)(sc_stochastic_task *task, int threads, sc_signals signals);
} sc_api;

/* NULL if a program that was compiled with this header can use the library, else what is wrong, for its user. */
static inline const char *sc_api_mismatch(const sc_api *api) {
    if (!api) return "sparseconv: got no C interface";
    if (api->version > SC_API_VERSION) {
        return "sparseconv: its C interface is of a later version than this program was compiled for: compile it again";
    }
    if (api->version < SC_API_VERSION || api->size < (int64_t)sizeof(sc_api)) {
        return "sparseconv: its C interface is older than this program needs: install a newer sparseconv";
    }
    return NULL;
}

#ifdef Py_PYTHON_H /* Python.h is included before */
/* The interface of the installed package; NULL, and an ImportError, if there is none that fits. Needs the GIL. */
static inline const sc_api *sc_import(void) {
    const sc_api *api = (const sc_api *)PyCapsule_Import(SC_API_CAPSULE, 0);
    const char *mismatch = api ? sc_api_mismatch(api) : NULL;
    if (mismatch) PyErr_SetString(PyExc_ImportError, mismatch);
    return mismatch ? NULL : api;
}
#endif

#ifdef __cplusplus
}
#endif
#endif
