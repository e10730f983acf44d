/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which instruction sets this machine has. One choice at start, then tables of function pointers: no code of an
 * instruction set runs before its table was asked for and found present. Any thread.
 */
#pragma once

enum warm_isa {
        WARM_ISA_PLAIN,  /* C, the oracle */
        WARM_ISA_AVX2,   /* AVX2, FMA, F16C */
        WARM_ISA_AVX512, /* AVX-512 F, BW, VL, DQ, VNNI */
        WARM_ISA_AMX,    /* AVX-512 as above and AMX int8 tiles, for many rows */
        WARM_ISA_NEON,   /* AArch64 with the dot product */
        _WARM_ISA_N,
};

/*
 * The best instruction set of this machine. The first call that may return AMX asks the kernel for the tile
 * state (arch_prctl, for the whole process); refused means not present.
 *
 * @param most no better one than this (tests); _WARM_ISA_N: no limit
 */
enum warm_isa warm_isa_detect(enum warm_isa most);

/* Return: nonzero if this machine (and this build) has it. */
int warm_isa_present(enum warm_isa isa);

/* Return: static, as people write it: "AVX-512 VNNI". */
const char *warm_isa_name(enum warm_isa isa);
