/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "twin.h"

struct twin *twin_new(const struct warm_cache_config *config) {
        struct twin *t = calloc(1, sizeof(*t));

        assert(t);
        t->n_groups = config->n_groups;
        for (uint32_t g = 0; g < config->n_groups; g++) {
                t->n_blocks[g] = config->n_blocks_max[g];
                t->slots[g] = calloc(t->n_blocks[g], sizeof(*t->slots[g]));
                t->states[g] = calloc(t->n_blocks[g], sizeof(*t->states[g]));
                assert(t->slots[g] && t->states[g]);
        }
        return t;
}

void twin_free(struct twin *t) {
        for (uint32_t g = 0; g < t->n_groups; g++) {
                free(t->slots[g]);
                free(t->states[g]);
        }
        free(t);
}

static uint64_t extend(uint64_t history, int32_t token) {
        return (history ^ (uint32_t) token) * 0x9e3779b97f4a7c15ULL + 0x632be59bd9b4e019ULL;
}

static uint64_t history_of(const struct warm_cache_sequence *s, uint32_t n) {
        uint64_t h = s->uid + 1;

        for (uint32_t i = 0; i < n; i++)
                h = extend(h, s->tokens[i]);
        return h;
}

/* The state that the sequence goes on from is the one after all its tokens. */
static void verify_state(const struct twin *t, const struct warm_cache_sequence *s, uint32_t g) {
        const struct twin_state *state;

        assert((s->n_tokens == 0) == (s->state_in[g] == WARM_STATE_NONE));
        if (s->n_tokens == 0)
                return;
        state = &t->states[g][s->state_in[g]];
        assert(state->n_tokens == s->n_tokens);
        assert(state->history == history_of(s, s->n_tokens));
}

void twin_step(struct twin *t, const struct warm_cache_sequence *s, const int32_t *tokens,
               uint32_t n) {
        uint64_t h = history_of(s, s->n_tokens);

        for (uint32_t k = 0; k < s->n_copies; k++)
                memcpy(t->slots[s->copies[k].group][s->copies[k].target],
                       t->slots[s->copies[k].group][s->copies[k].source], sizeof(t->slots[0][0]));
        for (uint32_t i = 0; i < n; i++) {
                uint32_t slot = s->n_tokens + i;

                h = extend(h, tokens[i]);
                for (uint32_t g = 0; g < t->n_groups; g++) {
                        if (s->cache->config.groups[g].state)
                                continue;
                        assert(s->blocks[g][slot / WARM_BLOCK_TOKENS] < t->n_blocks[g]);
                        t->slots[g][s->blocks[g][slot / WARM_BLOCK_TOKENS]]
                                [slot % WARM_BLOCK_TOKENS] = (struct twin_slot){ tokens[i], h };
                }
        }
        for (uint32_t g = 0; g < t->n_groups; g++) {
                if (!s->cache->config.groups[g].state)
                        continue;
                verify_state(t, s, g);
                t->states[g][s->blocks[g][0]] = (struct twin_state){ s->n_tokens + n, h };
        }
}

static uint32_t source_of(const struct warm_cache_sequence *s, uint32_t g, uint32_t i) {
        for (uint32_t k = 0; k < s->n_copies; k++)
                if (s->copies[k].group == g && s->copies[k].target == s->blocks[g][i])
                        return s->copies[k].source;
        return s->blocks[g][i];
}

void twin_verify(const struct twin *t, const struct warm_cache_sequence *s) {
        uint64_t h = s->uid + 1;

        for (uint32_t i = 0; i < s->n_tokens; i++) {
                h = extend(h, s->tokens[i]);
                for (uint32_t g = 0; g < t->n_groups; g++) {
                        const struct warm_plan_group *group = &s->cache->config.groups[g];
                        const struct twin_slot *slot;

                        if (group->state || (group->window > 0 && i + group->window < s->n_tokens))
                                continue;
                        slot = &t->slots[g][source_of(s, g, i / WARM_BLOCK_TOKENS)]
                                        [i % WARM_BLOCK_TOKENS];
                        assert(slot->token == s->tokens[i]);
                        assert(slot->history == h);
                }
        }
        for (uint32_t g = 0; g < t->n_groups; g++)
                if (s->cache->config.groups[g].state)
                        verify_state(t, s, g);
}

uint64_t twin_sum(const struct twin *t, uint32_t group, uint32_t block) {
        return XXH3_64bits(t->slots[group][block], sizeof(t->slots[group][block])) ^
               XXH3_64bits(&t->states[group][block].history, sizeof(uint64_t));
}

void twin_verify_sums(const struct twin *t, const struct warm_cache *c) {
        for (uint32_t g = 0; g < t->n_groups; g++)
                for (uint32_t i = 0; i < t->n_blocks[g]; i++) {
                        const struct warm_record *r = &c->records[c->base[g] + i];

                        if (r->sum != 0 && r->state == WARM_RECORD_READY)
                                assert(r->sum == twin_sum(t, g, i));
                        assert(r->sum == 0 || r->state == WARM_RECORD_READY);
                }
}

static uint32_t longest_from(const struct warm_cache *c, uid_t uid, const int32_t *tokens,
                             uint32_t n, uint32_t parent) {
        uint32_t best = 0, base = c->base[c->primary];

        for (uint32_t i = 0; i < c->config.n_blocks_max[c->primary]; i++) {
                const struct warm_record *r = &c->records[base + i];
                uint32_t k = 0;

                if (c->blocks[base + i].place != WARM_PLACE_LINKED || r->uid != uid ||
                    r->parent != parent ||
                    (parent != NONE &&
                     r->parent_generation != c->records[base + parent].generation))
                        continue;
                while (k < r->n_ready && k < n && r->tokens[k] == tokens[k])
                        k++;
                if (k == WARM_BLOCK_TOKENS)
                        k += longest_from(c, uid, tokens + k, n - k, i);
                if (k > best)
                        best = k;
        }
        return best;
}

uint32_t twin_longest(const struct warm_cache *c, uid_t uid, const int32_t *tokens, uint32_t n) {
        return longest_from(c, uid, tokens, n - 1, NONE);
}

/* Whether the text from the root to the end of this entry is the beginning of tokens. */
static bool spells(const struct warm_cache *c, uint32_t entry, const int32_t *tokens) {
        const struct warm_record *r = &c->records[entry];
        uint32_t n_before = c->blocks[entry].depth * WARM_BLOCK_TOKENS;

        return memcmp(r->tokens, tokens + n_before, sizeof(r->tokens)) == 0 &&
               (n_before == 0 || spells(c, c->base[c->primary] + r->parent, tokens));
}

uint32_t twin_longest_snapshot(const struct warm_cache *c, uid_t uid, const int32_t *tokens,
                               uint32_t n, uint32_t g) {
        uint32_t best = 0;

        for (uint32_t ref = c->base[g]; ref < c->base[g + 1]; ref++) {
                const struct warm_block *b = &c->blocks[ref];
                uint32_t length = (b->depth + 1) * WARM_BLOCK_TOKENS;

                if (b->place == WARM_PLACE_LINKED && c->records[ref].uid == uid && length < n &&
                    length > best && spells(c, b->owner, tokens))
                        best = length;
        }
        return best;
}
