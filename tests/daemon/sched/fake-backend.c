/* SPDX-License-Identifier: Apache-2.0 */
#include "fake-backend.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define UNWRITTEN (-1)

/* What a block holds: in group 0 the tokens, in group 1 a state. */
union block {
        int32_t tokens[WARM_BLOCK_TOKENS];
        struct {
                uint64_t hash;
                uint32_t n_tokens;
        } state;
};

struct warm_weights {
        uint32_t n_groups;
        uint32_t n_blocks_max[FAKE_GROUPS];
        uint32_t n_chunks[FAKE_GROUPS];
        union block **chunks[FAKE_GROUPS]; /* [n_chunks][FAKE_BLOCKS]; NULL: no memory */
};

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

static uint64_t mix(uint64_t x) {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
}

/* Letters and merges are likely, lines end now and then, the text ends seldom, the rest never comes by itself. */
static float lift_of(uint32_t token, bool never_ends) {
        if (token == FAKE_END_TOKEN)
                return never_ends ? -50 : 4.4F;
        if ((token >= 'a' && token <= 'z') || token == ' ' || token == '\n')
                return 5;
        if (token >= 256 && token < FAKE_VOCAB - 16)
                return 4;
        return -20;
}

static uint64_t extend(uint64_t h, int32_t token) {
        return mix(h + (uint64_t) (token + 1) * 0x9e3779b97f4a7c15ULL);
}

void fake_logits(const int32_t *tokens, uint32_t n_tokens, bool never_ends, float *ret_logits) {
        uint64_t h = 0;

        for (uint32_t i = 0; i < n_tokens; i++)
                h = extend(h, tokens[i]);
        for (uint32_t v = 0; v < FAKE_VOCAB; v++)
                ret_logits[v] = (float) (mix(h + v) >> 40) * 0x1p-24F * 4 + lift_of(v, never_ends);
}

int32_t fake_choose(const float *logits, const uint64_t *allowed) {
        int32_t best = -1;

        for (uint32_t v = 0; v < FAKE_VOCAB; v++)
                if ((!allowed || allowed[v / 64] >> (v % 64) & 1) &&
                    (best < 0 || logits[v] > logits[best]))
                        best = (int32_t) v;
        return best;
}

float fake_logprob(const float *logits, int32_t token) {
        double sum = 0;

        for (uint32_t v = 0; v < FAKE_VOCAB; v++)
                sum += exp(logits[v]);
        return (float) (logits[token] - log(sum));
}

static void *fake_free(struct warm_backend *b) {
        struct fake_backend *f = (struct fake_backend *) b;

        close(f->timer_fd);
        free(f);
        return NULL;
}

static void fake_info(struct warm_backend *b, struct warm_backend_info *ret_info) {
        struct fake_backend *f = (struct fake_backend *) b;

        *ret_info = (struct warm_backend_info){ .name = "fake",
                                                .description = "tokens as KV",
                                                .numerics = 1,
                                                .kv_layout = 1,
                                                .memory_total = 1ULL << 40,
                                                .memory_free = atomic_load(&f->memory_free) };
}

static int fake_load(struct warm_backend *b, const struct warm_plan *plan,
                     struct warm_weights **ret_weights, char **ret_why) {
        struct warm_weights *w = calloc(1, sizeof(*w));

        (void) b, (void) ret_why;
        assert(plan->n_groups <= FAKE_GROUPS && !plan->groups[0].state);
        assert(plan->n_groups == 1 || plan->groups[1].state);
        if (!w)
                return -ENOMEM;
        w->n_groups = plan->n_groups;
        *ret_weights = w;
        return 0;
}

static void *fake_weights_free(struct warm_backend *b, struct warm_weights *w) {
        struct fake_backend *f = (struct fake_backend *) b;

        for (uint32_t g = 0; g < w->n_groups; g++) {
                for (uint32_t i = 0; i < w->n_chunks[g]; i++) {
                        if (w->chunks[g][i])
                                atomic_fetch_sub(&f->n_chunks, 1);
                        free(w->chunks[g][i]);
                }
                free(w->chunks[g]);
        }
        free(w);
        return NULL;
}

static uint64_t fake_weights_bytes(struct warm_backend *b, struct warm_weights *w) {
        (void) b, (void) w;
        return 1000;
}

static int fake_kv_init(struct warm_backend *b, struct warm_weights *w,
                        const struct warm_kv_config *config, struct warm_kv_info *ret_info) {
        (void) b;
        for (uint32_t g = 0; g < w->n_groups; g++) {
                uint32_t n_chunks = (config->n_blocks_max[g] + FAKE_BLOCKS - 1) / FAKE_BLOCKS;

                w->chunks[g] = calloc(n_chunks, sizeof(*w->chunks[g]));
                if (!w->chunks[g])
                        return -ENOMEM;
                w->n_blocks_max[g] = config->n_blocks_max[g];
                w->n_chunks[g] = n_chunks;
        }
        *ret_info = (struct warm_kv_info){ .block_bytes = { 4096, 4096 },
                                           .blocks_per_chunk = { FAKE_BLOCKS, FAKE_BLOCKS } };
        return 0;
}

static int fake_kv_add(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                       uint32_t chunk_index) {
        struct fake_backend *f = (struct fake_backend *) b;

        union block *chunk;

        if (group >= w->n_groups || chunk_index >= w->n_chunks[group])
                return -ERANGE;
        if (w->chunks[group][chunk_index])
                return -EEXIST;
        if (atomic_load(&f->n_chunks) >= atomic_load(&f->n_chunks_max))
                return WARM_BACKEND_E_MEMORY;
        chunk = malloc(FAKE_BLOCKS * sizeof(*chunk));
        if (!chunk)
                return WARM_BACKEND_E_MEMORY;
        for (uint32_t i = 0; i < FAKE_BLOCKS * WARM_BLOCK_TOKENS; i++)
                chunk[i / WARM_BLOCK_TOKENS].tokens[i % WARM_BLOCK_TOKENS] = UNWRITTEN;
        w->chunks[group][chunk_index] = chunk;
        atomic_fetch_add(&f->n_chunks, 1);
        return 0;
}

static int fake_kv_remove(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                          uint32_t chunk_index) {
        struct fake_backend *f = (struct fake_backend *) b;

        if (chunk_index >= w->n_chunks[group] || !w->chunks[group][chunk_index])
                return -ENOENT;
        free(w->chunks[group][chunk_index]);
        w->chunks[group][chunk_index] = NULL;
        atomic_fetch_sub(&f->n_chunks, 1);
        return 0;
}

static union block *block_of(struct warm_weights *w, uint32_t group, uint32_t block) {
        assert(group < w->n_groups && block < w->n_blocks_max[group]);
        assert(w->chunks[group][block / FAKE_BLOCKS]);
        return w->chunks[group][block / FAKE_BLOCKS] + block % FAKE_BLOCKS;
}

static int32_t *slot_of(struct warm_weights *w, const struct warm_step_sequence *s, uint32_t slot) {
        assert(slot / WARM_BLOCK_TOKENS < s->n_blocks);
        return block_of(w, 0, s->blocks[0][slot / WARM_BLOCK_TOKENS])->tokens +
               slot % WARM_BLOCK_TOKENS;
}

static void compute_top(const float *logits, struct warm_result *result, uint32_t n_top) {
        bool used[FAKE_VOCAB] = { false };

        result->n_top = n_top;
        for (uint32_t i = 0; i < n_top; i++) {
                int32_t best = -1;

                for (uint32_t v = 0; v < FAKE_VOCAB; v++)
                        if (!used[v] && (best < 0 || logits[v] > logits[best]))
                                best = (int32_t) v;
                used[best] = true;
                result->top[i] = (struct warm_top){ best, fake_logprob(logits, best) };
        }
}

/* Move the sequence's state on by a row: from state_in if it is the first of the step. */
static void advance(struct fake_backend *f, struct warm_weights *w, const struct warm_row *row,
                    const struct warm_step_sequence *s, bool first, const int32_t *visible) {
        union block *out = block_of(w, 1, s->state_out[1]), in = { .state = { 0, 0 } };
        uint64_t hash = 0;

        if (!first)
                in = *out;
        else if (s->state_in[1] != WARM_STATE_NONE)
                in = *block_of(w, 1, s->state_in[1]);
        atomic_fetch_add(&f->n_resumed, first && s->state_in[1] != WARM_STATE_NONE &&
                                                s->state_in[1] != s->state_out[1]);
        assert(in.state.n_tokens == row->slot);
        out->state.n_tokens = row->slot + 1;
        out->state.hash = extend(in.state.hash, row->token);
        for (uint32_t i = 0; i < row->hi; i++)
                hash = extend(hash, visible[i]);
        assert(hash == out->state.hash);
}

static void compute_row(struct fake_backend *f, struct warm_weights *w, const struct warm_row *row,
                        const struct warm_step_sequence *s, bool first) {
        struct warm_result *result = row->result;
        int32_t visible[FAKE_CONTEXT_MAX];
        float logits[FAKE_VOCAB];

        assert(row->hi == row->slot + 1 && row->lo == 0 && row->mask == UINT64_MAX);
        assert(row->position == row->slot);
        *slot_of(w, s, row->slot) = row->token;
        if (!row->want && w->n_groups == 1)
                return;
        assert(row->hi <= FAKE_CONTEXT_MAX);
        for (uint32_t i = 0; i < row->hi; i++) {
                visible[i] = *slot_of(w, s, i);
                assert(visible[i] != UNWRITTEN);
        }
        if (w->n_groups > 1)
                advance(f, w, row, s, first, visible);
        if (!row->want)
                return;
        assert(result);
        fake_logits(visible, row->hi, atomic_load(&f->never_ends), logits);
        if (row->want & WARM_WANT_TOKEN) {
                result->token = fake_choose(logits, row->sampling->allowed);
                result->logprob = result->token < 0 ? 0 : fake_logprob(logits, result->token);
        }
        if (row->want & WARM_WANT_LOGPROB)
                result->scored_logprob = fake_logprob(logits, row->scored);
        if (row->want & WARM_WANT_LOGITS)
                memcpy(result->logits, logits, sizeof(logits));
        compute_top(logits, result, row->want & WARM_WANT_TOP ? row->n_top : 0);
}

static void compute(struct fake_backend *f, struct warm_weights *w, const struct warm_step *step) {
        uint32_t n_prefill = 0;

        for (uint32_t i = 0; i < step->n_copies; i++)
                *block_of(w, step->copies[i].group, step->copies[i].target) =
                        *block_of(w, step->copies[i].group, step->copies[i].source);
        for (uint32_t i = 0; i < step->n_rows; i++) {
                const struct warm_row *row = &step->rows[i];

                assert(row->sequence < step->n_sequences);
                compute_row(f, w, row, &step->sequences[row->sequence],
                            i == 0 || row[-1].sequence != row->sequence);
                n_prefill += row->want == 0;
        }
        atomic_fetch_add(&f->n_rows, step->n_rows);
        atomic_fetch_add(&f->n_copies, step->n_copies);
        if (step->n_sequences > atomic_load(&f->n_sequences_most))
                atomic_store(&f->n_sequences_most, step->n_sequences);
        if (n_prefill > atomic_load(&f->n_prefill_rows_most))
                atomic_store(&f->n_prefill_rows_most, n_prefill);
}

static void arm(struct fake_backend *f, uint64_t due_in_ns) {
        uint64_t ns = due_in_ns - atomic_load(&f->early_ns);
        struct itimerspec t = { .it_value = { .tv_sec = (time_t) (ns / 1000000000U),
                                              .tv_nsec = (long) (ns % 1000000000U) } };

        f->due_ns = now_ns() + due_in_ns;
        timerfd_settime(f->timer_fd, 0, &t, NULL);
}

static int fake_submit(struct warm_backend *b, struct warm_weights *w, const struct warm_step *step,
                       uint64_t *ret_ticket) {
        struct fake_backend *f = (struct fake_backend *) b;
        uint64_t n = atomic_fetch_add(&f->n_steps, 1) + 1;
        struct timespec pause = { .tv_nsec = (long) (atomic_load(&f->step_ns) +
                                                     atomic_load(&f->row_ns) * step->n_rows) };

        assert(!f->pending_step && step->n_rows > 0 && step->n_rows <= WARM_STEP_ROWS_MAX);
        f->due_ns = 0;
        if (n == atomic_load(&f->lose_at) && !atomic_load(&f->lose_in_poll))
                return WARM_BACKEND_E_LOST;
        if (pause.tv_nsec > 0)
                nanosleep(&pause, NULL);
        if (n == atomic_load(&f->hang_at))
                f->due_ns = UINT64_MAX;
        else if (atomic_load(&f->async_ns) > 0)
                arm(f, atomic_load(&f->async_ns));
        f->pending_weights = w;
        f->pending_step = step;
        *ret_ticket = f->ticket = n;
        return 0;
}

static int fake_poll(struct warm_backend *b, uint64_t ticket) {
        struct fake_backend *f = (struct fake_backend *) b;

        assert(ticket == f->ticket && f->pending_step);
        if (f->due_ns == UINT64_MAX && atomic_load(&f->lose_hanging))
                return WARM_BACKEND_E_LOST;
        if (now_ns() < f->due_ns)
                return WARM_BACKEND_E_PENDING;
        if (ticket == atomic_load(&f->lose_at))
                return WARM_BACKEND_E_LOST;
        compute(f, f->pending_weights, f->pending_step);
        f->pending_step = NULL;
        return 0;
}

static int fake_event_fd(struct warm_backend *b) {
        return ((struct fake_backend *) b)->timer_fd;
}

static const char *fake_fault(struct warm_backend *b) {
        (void) b;
        return "a made-up fault";
}

static int fake_sum_block(struct warm_backend *b, struct warm_weights *w, uint32_t group,
                          uint32_t block, uint64_t *ret_sum) {
        struct fake_backend *f = (struct fake_backend *) b;
        const union block *x = block_of(w, group, block);
        uint64_t sum = 1;

        assert(!f->pending_step);
        for (uint32_t i = 0; i < WARM_BLOCK_TOKENS; i++)
                sum = extend(sum, x->tokens[i]);
        *ret_sum = sum;
        atomic_fetch_add(&f->n_sums, 1);
        return 0;
}

static int fake_measure(struct warm_backend *b, double *ret_copy_bytes_per_s,
                        double *ret_flop_per_s) {
        struct fake_backend *f = (struct fake_backend *) b;
        int r = atomic_load(&f->measure_result);

        assert(!f->pending_step);
        if (r != 0)
                return r;
        *ret_copy_bytes_per_s = 1e9 * (double) (1 + atomic_fetch_add(&f->n_measured, 1));
        *ret_flop_per_s = 2e9;
        return 0;
}

static const struct warm_backend_ops fake_ops = {
        .free = fake_free,
        .info = fake_info,
        .load = fake_load,
        .weights_free = fake_weights_free,
        .weights_bytes = fake_weights_bytes,
        .kv_init = fake_kv_init,
        .kv_add = fake_kv_add,
        .kv_remove = fake_kv_remove,
        .submit = fake_submit,
        .poll = fake_poll,
        .event_fd = fake_event_fd,
        .fault = fake_fault,
        .sum_block = fake_sum_block,
        .measure = fake_measure,
};

struct fake_backend *fake_backend_new(void) {
        struct fake_backend *f = calloc(1, sizeof(*f));

        assert(f);
        f->base.ops = &fake_ops;
        f->n_chunks_max = UINT64_MAX;
        f->memory_free = 1ULL << 40;
        f->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        assert(f->timer_fd >= 0);
        return f;
}
