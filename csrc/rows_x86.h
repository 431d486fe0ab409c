/* The SIMD row kernels of x86, or none. */
#ifndef STAMP_ROWS_X86_H
#define STAMP_ROWS_X86_H

#include "rows.h"

/* NULL where the processor (or the architecture) lacks SSSE3. */
const stamp_kernels *stamp_kernels_x86(void);

#endif
