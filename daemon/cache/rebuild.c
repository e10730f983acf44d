/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adoption: a cache again from the records that an earlier process left.
 *
 * The records are hostile input: each field of each record is checked, and so are the links, by walking down from the
 * roots: what is not reached from a root (a cycle, a parent that is gone or was used again since) is not kept.
 * Keys, children, shares and the order of eviction are made afresh under this process's own secret.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"
#include "shm/memfd.h"

int warm_cache_adopt(const struct warm_cache_config *config, int records_fd,
                     struct warm_cache **ret_cache) {
        struct warm_cache *c;
        void *map;
        int r = warm_cache_half_new(config, &c);

        if (r < 0)
                return r;
        r = warm_memfd_map(records_fd, WARM_MEMFD_SEALS_STATE, c->map_bytes, PROT_READ | PROT_WRITE,
                           &map);
        if (r == 0) {
                c->header = map;
                c->records = (struct warm_record *) (c->header + 1);
                if (!warm_record_header_equal(c->header, config->fingerprint, config->n_groups,
                                              c->primary, c->base[config->n_groups]))
                        r = WARM_CACHE_E_FOREIGN;
        } else if (r > 0) {
                r = WARM_CACHE_E_FOREIGN;
        }
        if (r != 0) {
                warm_cache_free(c);
                return r;
        }
        c->records_fd = records_fd;
        c->adopted = c->adopting = true;
        *ret_cache = c;
        return 0;
}

void warm_cache_forget_record(struct warm_cache *c, uint32_t ref) {
        warm_record_reset(&c->records[ref]);
        if (c->records[ref].generation == UINT64_MAX)
                c->records[ref].generation = 0;
}

static bool plausible(const struct warm_cache *c, uint32_t g, uint32_t ref) {
        return c->blocks[ref].place == WARM_PLACE_FREE &&
               warm_record_plausible(&c->records[ref], g, c->primary,
                                     c->config.n_blocks_max[c->primary]);
}

/* Whether the record names an entry that can be what it says: a full one if a child asks. */
static bool names(const struct warm_record *r, const struct warm_record *entry, uint32_t n_ready) {
        return entry->generation == r->parent_generation && entry->uid == r->uid &&
               entry->n_ready >= n_ready;
}

/*
 * Hang each plausible entry under its parent, in lists through the age links, which free blocks do not use: left the
 * first child, right the next of the same list. Return: the list of first blocks.
 */
static uint32_t hang(struct warm_cache *c) {
        uint32_t base = c->base[c->primary], end = c->base[c->primary + 1], roots = NONE;

        for (uint32_t ref = base; ref < end; ref++)
                c->blocks[ref].age = (struct warm_links){ NONE, NONE };
        for (uint32_t ref = base; ref < end; ref++) {
                const struct warm_record *r = &c->records[ref];
                uint32_t parent, *list = &roots;

                if (!plausible(c, c->primary, ref))
                        continue;
                if (r->parent != WARM_RECORD_NONE) {
                        parent = base + r->parent;
                        if (!plausible(c, c->primary, parent) ||
                            !names(r, &c->records[parent], WARM_BLOCK_TOKENS))
                                continue;
                        list = &c->blocks[parent].age.left;
                }
                c->blocks[ref].age.right = *list;
                *list = ref;
        }
        return roots;
}

/* FREE -> HELD for the uid the record names. Return: false: too many uids. */
static bool hold(struct warm_cache *c, uint32_t g, uint32_t ref) {
        struct warm_block *b = &c->blocks[ref];
        uid_t uid = c->records[ref].uid;
        int slot = warm_pool_uid_find(c, uid);

        if (slot < 0 && c->n_uids == WARM_CACHE_UIDS_MAX)
                return false;
        slot = warm_pool_uid_get(c, uid);
        assert(slot >= 0);
        warm_pool_free_remove(c, g, ref);
        b->place = WARM_PLACE_HELD;
        b->uid_slot = (uint16_t) slot;
        b->sibling = b->age = (struct warm_links){ NONE, NONE };
        b->child_root = b->owner = NONE;
        c->uids[slot].n_used[g]++;
        c->uids[slot].n_pinned[g]++;
        return true;
}

static bool is_twin(struct warm_cache *c, uint32_t ref, uint32_t parent) {
        const struct warm_record *r = &c->records[ref];
        int slot = warm_pool_uid_find(c, r->uid);
        struct warm_neighbour before, after;

        if (slot < 0)
                return false;
        warm_order_neighbours(c, *warm_tree_children(c, (uint32_t) slot, parent), r->tokens,
                              r->n_ready, &before, &after);
        return before.ref != NONE && before.common == r->n_ready &&
               c->records[before.ref].n_ready == r->n_ready;
}

static bool restore_entry(struct warm_cache *c, uint32_t ref) {
        uint32_t parent = warm_tree_parent(c, ref);

        if (is_twin(c, ref, parent) || !hold(c, c->primary, ref))
                return false;
        warm_tree_link(c, ref, parent);
        warm_pool_unpin(c, ref);
        if (parent != NONE)
                warm_pool_age(c, parent);
        return true;
}

static uint32_t restore_side(struct warm_cache *c, uint32_t g) {
        uint32_t n = 0;

        for (uint32_t ref = c->base[g]; ref < c->base[g + 1]; ref++) {
                const struct warm_record *r = &c->records[ref];
                uint32_t entry;

                if (!plausible(c, g, ref))
                        continue;
                entry = c->base[c->primary] + r->parent;
                if (c->blocks[entry].place != WARM_PLACE_LINKED ||
                    !names(r, &c->records[entry], r->n_ready) || c->side[g][r->parent] != NONE ||
                    (warm_cache_is_state(c, g) && r->n_ready < WARM_BLOCK_TOKENS) ||
                    !hold(c, g, ref))
                        continue;
                warm_tree_attach(c, g, ref, entry);
                warm_pool_unpin(c, ref);
                n++;
        }
        return n;
}

uint32_t warm_cache_rebuild(struct warm_cache *c) {
        uint32_t todo, n = 0;

        assert(c->adopting && !c->sequences);
        todo = hang(c);
        while (todo != NONE) {
                uint32_t ref = todo, child = c->blocks[ref].age.left;

                todo = c->blocks[ref].age.right;
                if (!restore_entry(c, ref))
                        continue;
                n++;
                while (child != NONE) {
                        uint32_t next = c->blocks[child].age.right;

                        c->blocks[child].age.right = todo;
                        todo = child;
                        child = next;
                }
        }
        for (uint32_t g = 0; g < c->config.n_groups; g++)
                if (g != c->primary)
                        n += restore_side(c, g);
        for (uint32_t ref = 0; ref < c->base[c->config.n_groups]; ref++)
                if (c->blocks[ref].place == WARM_PLACE_FREE)
                        warm_cache_forget_record(c, ref);
        c->adopting = false;
        return n;
}
