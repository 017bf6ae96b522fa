#define SC_ISA neon
#include "simd_neon.h"
#include "kernels.h"
