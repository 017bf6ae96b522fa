#define SC_ISA amx
#define SC_VECTOR_ISA avx512
#include "simd/avx512.h"
#include "amx/registers.h"
#include "amx/kernels.h"
