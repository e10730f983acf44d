/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stddef.h>

#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux: asm/prctl.h of kernels >= 5.16; the number of AMX's tile data among the extended states. */
#define REQ_XCOMP_PERM  0x1023
#define XSTATE_TILEDATA 18

#define XCR0_AVX    0x6U                     /* SSE and AVX state */
#define XCR0_AVX512 (XCR0_AVX | 0xe0U)       /* and masks, upper halves, upper sixteen */
#define XCR0_AMX    (XCR0_AVX512 | 0x60000U) /* and tile configuration and data */

#define ECX1_FMA        (1U << 12)
#define ECX1_OSXSAVE    (1U << 27)
#define ECX1_F16C       (1U << 29)
#define EBX7_AVX2       (1U << 5)
#define EBX7_AVX512F    (1U << 16)
#define EBX7_AVX512DQ   (1U << 17)
#define EBX7_AVX512BW   (1U << 30)
#define EBX7_AVX512VL   (1U << 31)
#define ECX7_AVX512VNNI (1U << 11)
#define EDX7_AMX_TILE   (1U << 24)
#define EDX7_AMX_INT8   (1U << 25)

static uint32_t xcr0(void) {
        uint32_t low, high;

        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return low;
}

/* What the processor has and the kernel saves at a context switch. */
static int present(enum warm_isa isa) {
        const uint32_t avx512 = EBX7_AVX512F | EBX7_AVX512DQ | EBX7_AVX512BW | EBX7_AVX512VL;
        const uint32_t amx = EDX7_AMX_TILE | EDX7_AMX_INT8;
        uint32_t a, b, c, d, c1, state;

        if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 & ECX1_OSXSAVE))
                return 0;
        state = xcr0();
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
                return 0;
        if ((c1 & (ECX1_FMA | ECX1_F16C)) != (ECX1_FMA | ECX1_F16C) || !(b & EBX7_AVX2) ||
            (state & XCR0_AVX) != XCR0_AVX)
                return 0;
        if (isa == WARM_ISA_AVX2)
                return 1;
        if ((b & avx512) != avx512 || !(c & ECX7_AVX512VNNI) ||
            (state & XCR0_AVX512) != XCR0_AVX512)
                return 0;
        if (isa == WARM_ISA_AVX512)
                return 1;
        return isa == WARM_ISA_AMX && (d & amx) == amx && (state & XCR0_AMX) == XCR0_AMX &&
               syscall(SYS_arch_prctl, REQ_XCOMP_PERM, XSTATE_TILEDATA) == 0;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

#define HWCAP_DOT_PRODUCT (1UL << 20) /* HWCAP_ASIMDDP */

static int present(enum warm_isa isa) {
        return isa == WARM_ISA_NEON && (getauxval(AT_HWCAP) & HWCAP_DOT_PRODUCT);
}

#else

static int present(enum warm_isa isa) {
        (void) isa;
        return 0;
}

#endif

int warm_isa_present(enum warm_isa isa) {
        assert((unsigned int) isa < _WARM_ISA_N);
        return isa == WARM_ISA_PLAIN || present(isa);
}

enum warm_isa warm_isa_detect(enum warm_isa most) {
        int isa = most < _WARM_ISA_N ? (int) most : _WARM_ISA_N - 1;

        while (!warm_isa_present((enum warm_isa) isa))
                isa--;
        return (enum warm_isa) isa;
}

const char *warm_isa_name(enum warm_isa isa) {
        static const char *const names[_WARM_ISA_N] = {
                [WARM_ISA_PLAIN] = "plain C",       [WARM_ISA_AVX2] = "AVX2",
                [WARM_ISA_AVX512] = "AVX-512 VNNI", [WARM_ISA_AMX] = "AVX-512 VNNI, AMX int8",
                [WARM_ISA_NEON] = "NEON",
        };

        assert((unsigned int) isa < _WARM_ISA_N);
        return names[isa];
}
