#define SC_ISA scalar
#include "simd_scalar.h"
#include "kernels.h"
