/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <string.h>

#include "record.h"
#include "shm/range.h"

void warm_record_header_init(struct warm_record_header *h, const uint8_t fingerprint[16],
                             uint32_t n_groups, uint32_t primary, uint64_t n_records) {
        assert(n_groups >= 1 && n_groups <= WARM_PLAN_GROUPS_MAX);
        assert(primary < n_groups);
        *h = (struct warm_record_header){
                .magic = WARM_RECORD_MAGIC,
                .version = WARM_RECORD_VERSION,
                .record_bytes = sizeof(struct warm_record),
                .n_groups = n_groups,
                .primary = primary,
                .n_records = n_records,
        };
        memcpy(h->fingerprint, fingerprint, sizeof(h->fingerprint));
}

bool warm_record_header_equal(const struct warm_record_header *h, const uint8_t fingerprint[16],
                              uint32_t n_groups, uint32_t primary, uint64_t n_records) {
        struct warm_record_header wanted;

        warm_record_header_init(&wanted, fingerprint, n_groups, primary, n_records);
        return memcmp(h, &wanted, sizeof(wanted)) == 0;
}

bool warm_record_bytes(uint64_t n_records, uint64_t *ret_bytes) {
        uint64_t bytes;

        return warm_range_mul(n_records, sizeof(struct warm_record), &bytes) &&
               warm_range_add(bytes, sizeof(struct warm_record_header), ret_bytes);
}

bool warm_record_plausible(const struct warm_record *r, uint32_t group, uint32_t primary,
                           uint32_t n_blocks_primary) {
        assert(group < WARM_PLAN_GROUPS_MAX && primary < WARM_PLAN_GROUPS_MAX);
        if (r->state != WARM_RECORD_READY || r->group != group || r->uid == UINT32_MAX)
                return false;
        if (r->generation == 0 || r->generation == UINT64_MAX)
                return false;
        if (r->n_ready < 1 || r->n_ready > WARM_BLOCK_TOKENS)
                return false;
        if (r->parent == WARM_RECORD_NONE ? group != primary || r->parent_generation != 0
                                          : r->parent >= n_blocks_primary)
                return false;
        for (size_t i = 0; i < sizeof(r->zero) / sizeof(r->zero[0]); i++)
                if (r->zero[i] != 0)
                        return false;
        for (uint32_t i = 0; i < WARM_BLOCK_TOKENS; i++) {
                bool used = group == primary && i < r->n_ready;

                if (used ? r->tokens[i] < 0 : r->tokens[i] != 0)
                        return false;
        }
        return true;
}

void warm_record_reset(struct warm_record *r) {
        uint64_t generation = r->generation;

        __atomic_store_n(&r->state, WARM_RECORD_FREE, __ATOMIC_RELEASE);
        memset(r, 0, sizeof(*r));
        r->generation = generation;
}
