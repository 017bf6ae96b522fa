#define SC_ISA avx512
#include "simd/avx512.h"
#include "isa/kernels.h"
