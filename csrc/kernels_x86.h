/* The SIMD row kernels of x86, or none. */
#ifndef STAMP_KERNELS_X86_H
#define STAMP_KERNELS_X86_H

#include "kernels.h"

/* NULL where the processor (or the architecture) lacks the instructions. */
const stamp_kernels *stamp_kernels_ssse3(void);
const stamp_kernels *stamp_kernels_avx2(void);

#endif
