#define SC_ISA neon
#include "simd/neon.h"
#include "isa/kernels.h"
