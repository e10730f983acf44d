/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step held against what exists, before anything is computed: tokens, positions, slots, visible ranges, blocks,
 * what results need. After this the computation checks nothing.
 */
#include <errno.h>
#include <math.h>

#include "step-check.h"

#define WANT_ALL (WARM_WANT_TOKEN | WARM_WANT_TOP | WARM_WANT_LOGPROB | WARM_WANT_LOGITS)

/* What the rows of a sequence touch. */
struct extent {
        bool used;
        uint32_t last_slot;
        uint32_t lo[WARM_PLAN_GROUPS_MAX]; /* the windows of the groups' layers considered */
};

static bool sampling_valid(const struct warm_sampling *s) {
        return s && s->temperature >= 0 && isfinite(s->temperature) && s->top_p > 0 &&
               s->top_p <= 1 && s->min_p >= 0 && s->min_p < 1 && (s->n_banned == 0 || s->banned);
}

static bool wants_valid(const struct warm_step_limits *w, const struct warm_row *row) {
        if (row->want == 0)
                return true;
        if ((row->want & ~WANT_ALL) || !row->result)
                return false;
        if ((row->want & WARM_WANT_TOKEN) && !sampling_valid(row->sampling))
                return false;
        if ((row->want & WARM_WANT_TOP) && row->n_top > WARM_TOP_N_MAX)
                return false;
        if ((row->want & WARM_WANT_LOGPROB) &&
            (row->scored < 0 || (uint32_t) row->scored >= w->n_vocab))
                return false;
        return !(row->want & WARM_WANT_LOGITS) || row->result->logits;
}

static bool row_valid(const struct warm_step_limits *w, const struct warm_step *step,
                      const struct warm_row *row, struct extent *extents) {
        struct extent *e;

        if (row->token < 0 || (uint32_t) row->token >= w->n_vocab ||
            row->position >= w->n_context || row->sequence >= step->n_sequences ||
            row->adapter != 0 || row->kind > WARM_ROW_SAMPLED || !wants_valid(w, row))
                return false;
        if (row->lo >= row->hi || row->hi - 1 > row->slot ||
            row->slot / WARM_BLOCK_TOKENS >= step->sequences[row->sequence].n_blocks)
                return false;
        e = &extents[row->sequence];
        if (e->used && row->slot <= e->last_slot)
                return false;
        for (uint32_t g = 0; g < w->n_groups; g++) {
                uint32_t behind =
                        row->slot < w->group_windows[g] ? 0 : row->slot - w->group_windows[g] + 1;
                uint32_t lo = row->lo > behind ? row->lo : behind;

                lo = lo < row->slot ? lo : row->slot;
                if (!e->used || lo < e->lo[g])
                        e->lo[g] = lo;
        }
        e->used = true;
        e->last_slot = row->slot;
        return true;
}

/* Every block between the first slot that a row sees and the last one written has memory behind it. */
static bool blocks_valid(const struct warm_step_limits *w,
                         const struct warm_step_sequence *sequence, const struct extent *e) {
        for (uint32_t g = 0; e->used && g < w->n_groups; g++) {
                if (w->block_values[g] == 0)
                        continue;
                if (!sequence->blocks[g])
                        return false;
                for (uint32_t i = e->lo[g] / WARM_BLOCK_TOKENS;
                     i <= e->last_slot / WARM_BLOCK_TOKENS; i++)
                        if (!w->has(w->kv, g, sequence->blocks[g][i]))
                                return false;
        }
        return true;
}

int warm_step_check(const struct warm_step_limits *w, const struct warm_step *step) {
        struct extent extents[WARM_STEP_SEQUENCES_MAX];

        if (!w->kv || step->n_rows > WARM_STEP_ROWS_MAX ||
            step->n_sequences > WARM_STEP_SEQUENCES_MAX || step->n_copies > WARM_STEP_COPIES_MAX)
                return -EINVAL;
        for (uint32_t i = 0; i < step->n_copies; i++) {
                const struct warm_block_copy *c = &step->copies[i];

                if (c->group >= w->n_groups || !w->has(w->kv, c->group, c->source) ||
                    !w->has(w->kv, c->group, c->target))
                        return -EINVAL;
        }
        for (uint32_t i = 0; i < step->n_sequences; i++)
                extents[i].used = false;
        for (uint32_t i = 0; i < step->n_rows; i++)
                if (!row_valid(w, step, &step->rows[i], extents))
                        return -EINVAL;
        for (uint32_t i = 0; i < step->n_sequences; i++)
                if (!blocks_valid(w, &step->sequences[i], &extents[i]))
                        return -EINVAL;
        return 0;
}
