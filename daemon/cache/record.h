/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record memfd: what outlives the process. One header, then one record for each block that may ever exist, all
 * of group 0 first. No pointers, no keys, no secret. Sealed WARM_MEMFD_SEALS_STATE. Native byte order: the fd never
 * leaves the machine.
 *
 * Header, 64 bytes
 *   offset  bytes  field
 *        0      8  magic "warmrec\0"
 *        8      4  version 1
 *       12      4  bytes of a record (192)
 *       16     16  fingerprint of the model
 *       32      4  n_groups 1..8
 *       36      4  primary: the group whose blocks are the tree's entries
 *       40      8  n_records, of all groups together
 *       48     16  zero
 *
 * Record, 192 bytes (three cache lines)
 *        0      8  generation: counts the uses of this block, never 0 once used
 *        8      8  parent_generation
 *       16      8  sum of the block's bytes as the backend computes it; 0: not known
 *       24      4  state: 0 FREE, 1 WRITING, 2 READY
 *       28      4  uid
 *       32      4  parent: block number in the primary group; 0xffffffff: the root.
 *                  In a block of another group: the entry it belongs to.
 *       36      4  n_ready 1..32: tokens below it are immutable. State group: 32, for the end of its entry.
 *       40      4  group
 *       44     20  zero
 *       64    128  tokens[32], zero from n_ready on; all zero in blocks of other groups than the primary
 *
 * WRITING is stored before the first device write of a step is submitted, READY after its completion was seen: what
 * a crash leaves in WRITING is not proven, and is dropped.
 */
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/plan.h"

#define WARM_RECORD_VERSION 1U
#define WARM_RECORD_MAGIC   "warmrec"
#define WARM_RECORD_NONE    UINT32_MAX

enum warm_record_state {
        WARM_RECORD_FREE,
        WARM_RECORD_WRITING,
        WARM_RECORD_READY,
};

struct warm_record_header {
        char magic[8];
        uint32_t version;
        uint32_t record_bytes;
        uint8_t fingerprint[16];
        uint32_t n_groups;
        uint32_t primary;
        uint64_t n_records;
        uint8_t zero[16];
};

struct warm_record {
        uint64_t generation;
        uint64_t parent_generation;
        uint64_t sum;
        uint32_t state;
        uint32_t uid;
        uint32_t parent;
        uint32_t n_ready;
        uint32_t group;
        uint32_t zero[5];
        int32_t tokens[WARM_BLOCK_TOKENS];
};

static_assert(sizeof(struct warm_record_header) == 64, "header");
static_assert(offsetof(struct warm_record_header, version) == 8, "header");
static_assert(offsetof(struct warm_record_header, record_bytes) == 12, "header");
static_assert(offsetof(struct warm_record_header, fingerprint) == 16, "header");
static_assert(offsetof(struct warm_record_header, n_groups) == 32, "header");
static_assert(offsetof(struct warm_record_header, primary) == 36, "header");
static_assert(offsetof(struct warm_record_header, n_records) == 40, "header");
static_assert(offsetof(struct warm_record_header, zero) == 48, "header");

static_assert(sizeof(struct warm_record) == 192, "record");
static_assert(offsetof(struct warm_record, generation) == 0, "record");
static_assert(offsetof(struct warm_record, parent_generation) == 8, "record");
static_assert(offsetof(struct warm_record, sum) == 16, "record");
static_assert(offsetof(struct warm_record, state) == 24, "record");
static_assert(offsetof(struct warm_record, uid) == 28, "record");
static_assert(offsetof(struct warm_record, parent) == 32, "record");
static_assert(offsetof(struct warm_record, n_ready) == 36, "record");
static_assert(offsetof(struct warm_record, group) == 40, "record");
static_assert(offsetof(struct warm_record, zero) == 44, "record");
static_assert(offsetof(struct warm_record, tokens) == 64, "record");

/* Fill a header. */
void warm_record_header_init(struct warm_record_header *h, const uint8_t fingerprint[16],
                             uint32_t n_groups, uint32_t primary, uint64_t n_records);

/* Whether a header that somebody else wrote says exactly what warm_record_header_init would. */
bool warm_record_header_equal(const struct warm_record_header *h, const uint8_t fingerprint[16],
                              uint32_t n_groups, uint32_t primary, uint64_t n_records);

/* Bytes of the memfd. Return: false: too many. */
bool warm_record_bytes(uint64_t n_records, uint64_t *ret_bytes);

/*
 * Whether a record can be what this program wrote as READY, as far as the record alone tells. Links to other
 * records are the caller's to check.
 */
bool warm_record_plausible(const struct warm_record *r, uint32_t group, uint32_t primary,
                           uint32_t n_blocks_primary);

/* Back to FREE. The generation stays: it must never repeat. */
void warm_record_reset(struct warm_record *r);
