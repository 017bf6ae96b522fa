#define SC_ISA scalar
#include "simd/scalar.h"
#include "isa/kernels.h"
