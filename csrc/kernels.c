/* Which row kernels this machine can run. */
#include "kernels.h"

#include "kernels_x86.h"

const stamp_kernels *stamp_kernels_at(int index)
{
    const stamp_kernels *all[] = {stamp_kernels_plain(), stamp_kernels_ssse3(), stamp_kernels_avx2()};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] != NULL && index-- == 0)
            return all[i];
    return NULL;
}

const stamp_kernels *stamp_kernels_best(void)
{
    const stamp_kernels *best = stamp_kernels_plain();
    for (int i = 1; stamp_kernels_at(i) != NULL; i++)
        best = stamp_kernels_at(i);
    return best;
}
