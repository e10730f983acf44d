/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A step's description is written down, and its kernels are launched: of a narrow step as a captured graph, of others
 * one by one; so, too, the first narrow step of a kind, while which runs the graph is made.
 */
#include <errno.h>
#include <string.h>

#include "gpu.h"
#include "kernels/sample.h"

/* Bounds of hi that graphs are captured for: attention's grid grows with it, and up to the first it has clusters. */
static const uint32_t slot_bounds[] = { 1024, 2048, 8192, 32768, 131072, UINT32_MAX };

#define FEW 2U /* rows: graphs for so many, or less, have grids for just as many */

/* A description being written. */
struct writer {
        struct warm_weights *w;
        const struct warm_step *step;
        struct warm_cuda_places at;
        struct warm_cuda_header *header;
        uint64_t used; /* bytes so far */
        uint32_t n_slots, n_unit_rows;
        bool greedy, logits;
};

static void write_rows(struct writer *t) {
        struct warm_cuda_row *rows = (void *) (t->w->step + t->at.rows);
        struct warm_cuda_unit *units = (void *) (t->w->step + t->at.units);
        uint32_t n_units = 0, most = t->step->n_rows > WARM_CUDA_NARROW
                                             ? WARM_CUDA_UNIT_ROWS_WIDE
                                             : WARM_CUDA_UNIT_ROWS_NARROW;

        for (uint32_t i = 0; i < t->step->n_rows; i++) {
                const struct warm_row *r = &t->step->rows[i];

                rows[i] = (struct warm_cuda_row){
                        .mask = r->mask,
                        .token = r->token,
                        .position = r->position,
                        .slot = r->slot,
                        .lo = r->lo,
                        .hi = r->hi,
                        .sequence = r->sequence,
                };
                t->n_slots = r->slot + 1 > t->n_slots ? r->slot + 1 : t->n_slots;
                t->n_slots = r->hi > t->n_slots ? r->hi : t->n_slots;
                if (i > 0 && r[-1].sequence == r->sequence && units[n_units - 1].n_rows < most)
                        units[n_units - 1].n_rows++;
                else
                        units[n_units++] = (struct warm_cuda_unit){ .first_row = i, .n_rows = 1 };
                if (units[n_units - 1].n_rows > t->n_unit_rows)
                        t->n_unit_rows = units[n_units - 1].n_rows;
        }
        t->header->counts[WARM_CUDA_N_ROWS] = t->step->n_rows;
        t->header->counts[WARM_CUDA_N_UNITS] = n_units;
}

static void write_tables(struct writer *t) {
        const struct warm_weights *w = t->w;
        uint32_t *tables = (void *) (w->step + t->at.tables);

        for (uint32_t s = 0; s < t->step->n_sequences; s++) {
                const struct warm_step_sequence *q = &t->step->sequences[s];
                uint32_t n = q->n_blocks < w->table_ld ? q->n_blocks : w->table_ld;

                for (uint32_t g = 0; g < w->n_groups; g++)
                        if (q->blocks[g])
                                memcpy(tables + ((uint64_t) s * w->n_groups + g) * w->table_ld,
                                       q->blocks[g], n * sizeof(uint32_t));
        }
        t->used = t->at.tables +
                  (uint64_t) t->step->n_sequences * w->n_groups * w->table_ld * sizeof(uint32_t);
        t->used = (t->used + 15) / 16 * 16;
}

/* Append bytes. Return: their place; 0: there is no room. */
static uint64_t append(struct writer *t, const void *from, uint64_t bytes) {
        uint64_t at = t->used;

        if (bytes > t->w->step_bytes - at)
                return 0;
        memcpy(t->w->step + at, from, bytes);
        t->used = (at + bytes + 15) / 16 * 16;
        return at;
}

/* Return: 0; -EINVAL: more bitmaps and banned ids than a step can carry. */
static int write_want(struct writer *t, const struct warm_row *r, struct warm_cuda_want *to) {
        const struct warm_sampling *s = r->sampling;

        *to = (struct warm_cuda_want){
                .want = r->want,
                .scored = r->scored,
                .n_top = r->n_top,
                .allowed = WARM_CUDA_SAMPLE_NONE,
        };
        t->logits |= (r->want & WARM_WANT_LOGITS) != 0;
        t->greedy &= (r->want & WARM_WANT_TOP) == 0;
        if (!(r->want & WARM_WANT_TOKEN))
                return 0;
        to->temperature = s->temperature;
        to->top_p = s->top_p;
        to->min_p = s->min_p;
        to->top_k = s->top_k;
        to->u = warm_uniform(s->seed, (uint64_t) r->position + 1);
        t->greedy &= s->temperature == 0;
        if (s->allowed) {
                uint64_t at = append(t, s->allowed, (t->w->n_vocab + 63) / 64 * 8);

                if (at == 0)
                        return -EINVAL;
                to->allowed = (uint32_t) (at / 8);
        }
        if (s->n_banned) {
                uint64_t at = append(t, s->banned, (uint64_t) s->n_banned * sizeof(int32_t));

                if (at == 0)
                        return -EINVAL;
                to->banned = (uint32_t) (at / sizeof(int32_t));
                to->n_banned = s->n_banned;
        }
        return 0;
}

static int write_wants(struct writer *t, uint32_t *ret_n_wanted) {
        uint32_t *wanted = (void *) (t->w->step + t->at.wanted), n = 0;
        struct warm_cuda_want *wants = (void *) (t->w->step + t->at.wants);

        memset(t->header->n_wanted, 0, sizeof(t->header->n_wanted));
        for (uint32_t i = 0; i < t->step->n_rows; i++) {
                int r;

                if (t->step->rows[i].want == 0)
                        continue;
                r = write_want(t, &t->step->rows[i], &wants[n]);
                if (r < 0)
                        return r;
                t->header->n_wanted[n / WARM_CUDA_WANTED]++;
                wanted[n++] = i;
        }
        *ret_n_wanted = n;
        return 0;
}

static struct warm_cuda_kind kind_of(const struct writer *t, uint32_t n_wanted) {
        uint32_t n = t->step->n_rows, bound = 0;
        struct warm_cuda_kind k = { .greedy = t->greedy, .gather = n_wanted != n && n_wanted > 0 };

        if (n > WARM_CUDA_NARROW) {
                k.n_rows_max = n;
                k.n_units_max = t->header->counts[WARM_CUDA_N_UNITS];
                k.n_unit_rows_max = t->n_unit_rows;
                k.n_slots_max = t->n_slots;
                k.n_wanted_max = n_wanted;
                k.gather = n_wanted > 0; /* the output's product is narrow */
                return k;
        }
        k.n8 = warm_cuda_n8(n);
        k.n_rows_max = k.n_units_max = n <= FEW ? n : k.n8 * 8;
        k.n_unit_rows_max =
                t->n_unit_rows > 1 ? WARM_CUDA_UNIT_ROWS_NARROW : 1; /* decode, or a prompt's end */
        while (slot_bounds[bound] < t->n_slots)
                bound++;
        k.n_slots_max = slot_bounds[bound] < t->w->n_context ? slot_bounds[bound] : t->w->n_context;
        k.n_slots_max = k.n_slots_max < t->n_slots ? t->n_slots : k.n_slots_max;
        if (n_wanted)
                k.n_wanted_max = !k.gather         ? k.n_rows_max
                                 : n_wanted <= FEW ? n_wanted
                                                   : warm_cuda_n8(n_wanted) * 8;
        return k;
}

static bool same_kind(const struct warm_cuda_kind *a, const struct warm_cuda_kind *b) {
        return a->n8 == b->n8 && a->n_rows_max == b->n_rows_max &&
               a->n_unit_rows_max == b->n_unit_rows_max && a->n_slots_max == b->n_slots_max &&
               a->n_wanted_max == b->n_wanted_max && a->gather == b->gather &&
               a->greedy == b->greedy;
}

/* Return: 0 and the graph; a cudaError_t. */
static int capture(struct warm_cuda_backend *b, struct warm_weights *w,
                   const struct warm_cuda_kind *kind, cudaGraphExec_t *ret_exec) {
        cudaGraph_t graph = NULL;
        int ended, r = (int) cudaStreamBeginCapture(b->stream, cudaStreamCaptureModeThreadLocal);

        if (r)
                return r;
        r = warm_cuda_step_queue(b, w, kind, NULL);
        ended = (int) cudaStreamEndCapture(b->stream, &graph);
        r = r ? r : ended;
        if (r == 0)
                r = (int) cudaGraphInstantiate(ret_exec, graph, 0);
        if (graph)
                (void) cudaGraphDestroy(graph);
        return r;
}

/*
 * A kind's graph, in the place of the one that was not used for longest; NULL where memory is short: kernels launched
 * one by one do as well. Return: 0; a cudaError_t.
 */
static int add_graph(struct warm_cuda_backend *b, struct warm_weights *w,
                     const struct warm_cuda_kind *kind, struct warm_cuda_graph **ret_graph) {
        struct warm_cuda_graph *to = &w->graphs[0];
        int r;

        for (uint32_t i = 1; i < WARM_CUDA_GRAPHS; i++)
                if (w->graphs[i].used < to->used)
                        to = &w->graphs[i];
        if (to->exec)
                (void) cudaGraphExecDestroy(to->exec);
        *to = (struct warm_cuda_graph){ .kind = *kind };
        r = capture(b, w, kind, &to->exec);
        *ret_graph = r ? NULL : to;
        if (r != (int) cudaErrorMemoryAllocation)
                return r;
        (void) cudaGetLastError();
        return 0;
}

static struct warm_cuda_graph *find_graph(struct warm_weights *w,
                                          const struct warm_cuda_kind *kind) {
        for (uint32_t i = 0; i < WARM_CUDA_GRAPHS; i++)
                if (w->graphs[i].exec && same_kind(&w->graphs[i].kind, kind))
                        return &w->graphs[i];
        return NULL;
}

static int copy_blocks(struct warm_cuda_backend *b, struct warm_weights *w,
                       const struct warm_step *step) {
        struct warm_cuda_kv kv[WARM_PLAN_GROUPS_MAX];

        if (step->n_copies == 0)
                return 0;
        for (uint32_t g = 0; g < w->n_groups; g++)
                kv[g] = warm_cuda_kv_get(&w->kv, g);
        return warm_cuda_blocks_copy(kv, step->copies, step->n_copies, b->stream);
}

int warm_cuda_step_submit(struct warm_cuda_backend *b, struct warm_weights *w,
                          const struct warm_step *step, uint64_t ticket) {
        struct writer t = {
                .w = w,
                .step = step,
                .at = warm_cuda_places_of(step->n_rows),
                .header = (void *) w->step,
                .greedy = true,
        };
        struct warm_cuda_graph *graph = NULL;
        struct warm_cuda_kind kind;
        uint32_t n_wanted = 0;
        bool graphs;
        int r;

        write_rows(&t);
        if (t.n_slots > w->table_ld * WARM_BLOCK_TOKENS)
                return -EINVAL; /* beyond the context, and so beyond the tables */
        write_tables(&t);
        r = write_wants(&t, &n_wanted);
        if (r < 0)
                return r;
        t.header->ticket = ticket;
        t.header->words = (uint32_t) (t.used / 16);
        kind = kind_of(&t, n_wanted);
        if (copy_blocks(b, w, step))
                return warm_cuda_lost(b, (int) cudaPeekAtLastError(), "copying blocks");
        graphs = kind.n8 > 0 && !t.logits;
        graph = graphs ? find_graph(w, &kind) : NULL;
        r = graph ? (int) cudaGraphLaunch(graph->exec, b->stream)
                  : warm_cuda_step_queue(b, w, &kind, t.logits ? step : NULL);
        if (r == 0 && graphs && !graph)
                r = add_graph(b, w, &kind, &graph);
        if (r)
                return warm_cuda_lost(b, r, "launching a step");
        b->pending.expected = &w->wide[warm_cuda_width(step->n_rows)];
        b->pending.expected_rows = step->n_rows;
        if (graph) {
                graph->used = ticket;
                b->pending.expected = &graph->expected;
                b->pending.expected_rows = 1;
        }
        return 0;
}
