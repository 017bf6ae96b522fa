#define SC_ISA avx2
#include "simd/avx2.h"
#include "isa/kernels.h"
