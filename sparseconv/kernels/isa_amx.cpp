#define SC_ISA amx
#define SC_VECTOR_ISA avx512
#include "simd_avx512.h"
#include "tiles_amx.h"
#include "tile_kernels.h"
