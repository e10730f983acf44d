/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling without a sort. The order of tokens is that of a key: the logit's bits made ascending, then the id
 * descending; larger comes first, and no two are equal.
 *
 * sum_rows: a block a segment of 1,024 ids: largest logit, mass, best allowed token, and the best of each 128 ids
 *   (a subsegment). The last block of a row to finish merges its segments.
 * draw_rows: a row with a temperature: blocks count tokens and mass in bins of 1/64 nat below the largest logit. The
 *   last block of the row then finds where top_k, top_p and the draw end: the bin from prefix sums, the token in it by
 *   comparing each of its tokens with each. They are read from the few subsegments that reach the bin. A bin of more
 *   than NEAR tokens is narrowed down by radix selection first to last, a pass over the logits for each digit: slow
 *   and right. The most likely n: a block of its own: they lie in the n subsegments with the best bests.
 *
 * Sums over tokens are integers, so any order gives the same, and a row may be cut by the number of rows; float sums
 * have a fixed order.
 */
#include <float.h>

#include "launch.cuh"
#include "sample.h"

using namespace warm_sample;

#define INLINE __device__ __forceinline__
#define DEVICE static INLINE

#define SEGMENT     1024U /* as the CPU's, so that masses are summed alike */
#define SUBSEGMENT  128U  /* ids a warp reads at once */
#define SUM_THREADS (SEGMENT / 4)
#define SUM_BLOCKS  768U /* rows are cut into about as many pieces; 6 an SM of an H100 */

#define DRAW_THREADS 512U
#define DRAW_WARPS   (DRAW_THREADS / 32)
#define DRAW_BLOCKS  264U /* 2 an SM of an H100 */
#define TILE         (DRAW_THREADS * 4)
#define BINS         2048U
#define BINS_A_NAT   64.0F      /* weights under 2^-44, 30.5 nats below the largest, count as 0 */
#define MIN_P_BIN    (BINS - 1) /* not a bin: the mass of all tokens of min_p or more */
#define UNIT         0x1p43F    /* a weight of 1; 2^20 of them fit in 64 bits */
#define NEAR         DRAW_THREADS
#define DIGIT_BITS   5U /* a digit a lane */
#define PER_THREAD   (BINS / DRAW_THREADS)

struct segment {
        float max;
        float mass;    /* sum of exp(l - max) */
        uint64_t best; /* key of the best allowed token; 0: none */
};

/* What draw_rows needs of sum_rows. */
struct record {
        double all;    /* log(sum of exp(l)) */
        uint64_t best; /* key of the best allowed token; 0: none */
};

/* Scratch, each [n_rows_max][...]. */
struct scratch {
        unsigned long long *masses; /* [BINS], zero between calls */
        uint32_t *counts;           /* [BINS], zero between calls */
        struct record *records;
        struct segment *segments; /* [n_segments] */
        uint64_t *bests;          /* [n_segments][8] keys, allowed or not; 0: none */
        uint32_t *masks; /* [n_segments][32] allowed and not banned; written if anything is */
        uint32_t *done;  /* [2] blocks that have finished, zero between calls */
        uint64_t n_bytes;
};

struct work {
        struct warm_cuda_sample s;
        struct scratch m;
        uint32_t n_segments;
        uint32_t n_tiles;
};

/* A row in hand. */
struct job {
        const struct work &w;
        struct warm_cuda_want want;
        uint32_t row;

        INLINE uint64_t segment(uint32_t i) const { return (uint64_t) row * w.n_segments + i; }
        INLINE const float *logits() const { return w.s.d_logits + (uint64_t) row * w.s.ld; }
        INLINE bool masked() const {
                return want.allowed != WARM_CUDA_SAMPLE_NONE || want.n_banned;
        }
        INLINE bool draws() const { return want.want & WARM_WANT_TOKEN && want.temperature > 0; }
};

/* Logits of the four ids from id on; -FLT_MAX beyond the vocabulary. Rows are padded to a multiple of 4. */
DEVICE float4 load_four(const float *row, uint32_t id, uint32_t n_vocab) {
        float4 v = make_float4(-FLT_MAX, -FLT_MAX, -FLT_MAX, -FLT_MAX);

        if (id >= n_vocab)
                return v;
        v = *(const float4 *) (row + id);
        v.x = finite(v.x);
        v.y = id + 1 < n_vocab ? finite(v.y) : -FLT_MAX;
        v.z = id + 2 < n_vocab ? finite(v.z) : -FLT_MAX;
        v.w = id + 3 < n_vocab ? finite(v.w) : -FLT_MAX;
        return v;
}

/* Which of four ids exist, one bit each. */
DEVICE uint32_t present_of(uint32_t id, uint32_t n_vocab) {
        return id >= n_vocab ? 0 : n_vocab - id >= 4 ? 0xf : (1U << (n_vocab - id)) - 1;
}

/* Say that this block's work on a row is done. Return: it was the last; the same for all threads. */
DEVICE bool finish(uint32_t *done, uint32_t n_blocks, bool &shared_last) {
        __syncthreads();
        if (threadIdx.x == 0) {
                __threadfence();
                shared_last = atomicInc(done, n_blocks - 1) == n_blocks - 1;
                __threadfence();
        }
        __syncthreads();
        return shared_last;
}

/* Write to a row's answer, on the host and where wanted on the device. */
template <typename F> DEVICE void put(const struct job &job, F f) {
        f(job.w.s.answers[job.row]);
        if (job.w.s.d_answers)
                f(job.w.s.d_answers[job.row]);
}

DEVICE void put_token(const struct job &job, uint64_t key, double all) {
        int32_t token = key ? id_of(key) : -1;
        float logprob = key ? (float) ((double) logit_of(key) - all) : 0;

        put(job, [&](struct warm_cuda_answer &a) { a.token = token, a.logprob = logprob; });
}

struct sum_shared {
        uint32_t mask[32];
        /* Of even and odd segments: one is read while the next is written. */
        float max[2][SUM_THREADS / 32];
        float mass[2][SUM_THREADS / 32];
        uint64_t best[2][SUM_THREADS / 32];
        double total[SUM_THREADS / 32];
        bool last;
};

/* Key of the warp's best of four tokens a thread, those whose bit is set; 0: none. */
DEVICE uint64_t warp_best(const uint32_t order[4], uint32_t bits, uint32_t id) {
        uint32_t best = 0, first = UINT32_MAX;

        for (uint32_t i = 0; i < 4; i++)
                best = max(best, bits >> i & 1 ? order[i] : 0);
        best = __reduce_max_sync(ALL_LANES, best);
        for (uint32_t i = 4; i-- > 0;)
                if (bits >> i & 1 && order[i] == best)
                        first = id + i;
        first = __reduce_min_sync(ALL_LANES, first);
        return best ? key_of(best, first) : 0;
}

/* Which tokens of the segment may be sampled, into shared.mask and, for draw_rows, into scratch. */
DEVICE void make_mask(const struct job &job, uint32_t segment, struct sum_shared &shared) {
        const struct warm_cuda_want &want = job.want;
        uint32_t word = segment * 32 + threadIdx.x, bits = UINT32_MAX;

        if (threadIdx.x < 32) {
                if (want.allowed != WARM_CUDA_SAMPLE_NONE && word * 32 < job.w.s.n_vocab)
                        bits = ((const uint32_t *) (job.w.s.d_allowed + want.allowed))[word];
                shared.mask[threadIdx.x] = bits;
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < want.n_banned; i += SUM_THREADS) {
                uint32_t at = (uint32_t) job.w.s.d_banned[want.banned + i] - segment * SEGMENT;

                if (at < SEGMENT)
                        atomicAnd(&shared.mask[at / 32], ~(1U << at % 32));
        }
        __syncthreads();
        if (threadIdx.x < 32 && job.draws())
                job.w.m.masks[job.segment(segment) * 32 + threadIdx.x] = shared.mask[threadIdx.x];
}

/* One segment. Warp 0 merges what the warps found while the others go on to the next. */
DEVICE void sum_segment(const struct job &job, uint32_t segment, struct sum_shared &shared) {
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32, odd = segment % 2;
        uint32_t id = segment * SEGMENT + threadIdx.x * 4, n_vocab = job.w.s.n_vocab;
        uint32_t present = present_of(id, n_vocab);
        float4 v = load_four(job.logits(), id, n_vocab);
        uint32_t order[4] = { order_of(v.x), order_of(v.y), order_of(v.z), order_of(v.w) };
        uint64_t best = warp_best(order, present, id), allowed = best;
        float max = best ? logit_of(best) : -FLT_MAX, mass, own;

        mass = present & 1 ? exp_of(v.x - max) : 0;
        mass += present & 2 ? exp_of(v.y - max) : 0;
        mass += present & 4 ? exp_of(v.z - max) : 0;
        mass += present & 8 ? exp_of(v.w - max) : 0;
        mass = warp_sum(mass);
        if (job.masked()) {
                make_mask(job, segment, shared);
                present &= shared.mask[threadIdx.x / 8] >> threadIdx.x % 8 * 4;
                allowed = warp_best(order, present, id);
        }
        if (lane == 0) {
                shared.max[odd][warp] = max;
                shared.mass[odd][warp] = mass;
                shared.best[odd][warp] = allowed;
                if (!job.w.s.greedy)
                        job.w.m.bests[job.segment(segment) * 8 + warp] = best;
        }
        __syncthreads();
        if (warp != 0)
                return;
        own = lane < 8 ? shared.max[odd][lane] : -FLT_MAX;
        max = warp_max(own);
        mass = warp_sum(lane < 8 ? shared.mass[odd][lane] * exp_of(own - max) : 0);
        allowed = warp_max(lane < 8 ? shared.best[odd][lane] : 0);
        if (lane == 0)
                job.w.m.segments[job.segment(segment)] = { max, mass, allowed };
}

/* Merge a row's segments and answer what can be: all but draws and the most likely tokens. */
static __device__ void merge_row(const struct job &job, struct sum_shared &shared) {
        const uint4 *segments = (const uint4 *) (job.w.m.segments + job.segment(0));
        const struct warm_cuda_want &want = job.want;
        uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        float max = -FLT_MAX, own, scored = 0;
        uint64_t best = 0;
        double mass = 0, all;

        if (want.want & WARM_WANT_LOGPROB && (uint32_t) want.scored < job.w.s.n_vocab)
                scored = finite(job.logits()[want.scored]);
        for (uint32_t i = threadIdx.x; i < job.w.n_segments; i += SUM_THREADS) {
                uint4 s = __ldcg(segments + i); /* from other blocks: past the nearest cache */

                own = __uint_as_float(s.x);
                mass *= exp_of(fminf(max - own, 0));
                max = fmaxf(max, own);
                mass += (double) __uint_as_float(s.y) * exp_of(own - max);
                best = ::max(best, (uint64_t) s.w << 32 | s.z);
        }
        own = max;
        max = warp_max(max);
        best = warp_max(best);
        if (lane == 0) {
                shared.max[0][warp] = max;
                shared.best[0][warp] = best;
        }
        __syncthreads();
        for (uint32_t i = 0; i < SUM_THREADS / 32; i++) {
                max = fmaxf(max, shared.max[0][i]);
                best = ::max(best, shared.best[0][i]);
        }
        mass = warp_sum(mass * exp_of(own - max));
        if (lane == 0)
                shared.total[warp] = mass;
        __syncthreads();
        if (threadIdx.x)
                return;
        for (uint32_t i = 1; i < SUM_THREADS / 32; i++)
                mass += shared.total[i];
        all = max + log(mass);
        if (!job.w.s.greedy)
                job.w.m.records[job.row] = { all, best };
        if (!job.draws() || best == 0)
                put_token(job, want.want & WARM_WANT_TOKEN ? best : 0, all);
        scored = want.want & WARM_WANT_LOGPROB ? (float) ((double) scored - all) : 0;
        put(job, [&](struct warm_cuda_answer &a) {
                a.scored_logprob = scored;
                if (!(want.want & WARM_WANT_TOP))
                        a.n_top = 0;
        });
}

static __global__ void __launch_bounds__(SUM_THREADS, 6) sum_rows(const struct work w) {
        __shared__ struct sum_shared shared;
        uint32_t n_rows, length = 1, n_pieces;

        warm_let_next_start();
        warm_wait_for_before();
        n_rows = *w.s.d_n_rows;
        if (w.s.n_rows_max * w.n_segments > SUM_BLOCKS)
                length = (n_rows * w.n_segments + SUM_BLOCKS - 1) / SUM_BLOCKS;
        n_pieces = length > 1 ? (w.n_segments + length - 1) / length : w.n_segments;
        for (uint32_t i = blockIdx.x; i < w.s.n_rows_max * n_pieces; i += gridDim.x) {
                uint32_t row = i / n_pieces, first = i % n_pieces * length;
                const struct job job = { w, w.s.d_wants[row], row };

                if (row >= n_rows)
                        return;
                if (!(job.want.want & (WARM_WANT_TOKEN | WARM_WANT_TOP | WARM_WANT_LOGPROB)))
                        continue;
                for (uint32_t j = first; j < min(first + length, w.n_segments); j++)
                        sum_segment(job, j, shared);
                if (finish(&w.m.done[row * 2], n_pieces, shared.last))
                        merge_row(job, shared);
        }
}

/* Tokens and their mass, by bin or digit. Masses in two words: shared memory has no 64-bit sum of its own. */
template <uint32_t n> struct tally {
        uint32_t count[n];
        uint32_t low[n];
        uint32_t high[n];

        __device__ void clear() {
                for (uint32_t i = threadIdx.x; i < n; i += DRAW_THREADS)
                        count[i] = low[i] = high[i] = 0;
        }

        __device__ uint64_t mass(uint32_t i) const { return (uint64_t) high[i] << 32 | low[i]; }

        /* Add a live token a lane. Called by whole warps; one that agrees on the place adds once. */
        INLINE void add(bool live, uint32_t at, uint64_t some) {
                uint32_t lanes = __ballot_sync(ALL_LANES, live), n_tokens = 1, first;

                if (lanes == 0)
                        return;
                first = __shfl_sync(ALL_LANES, at, __ffs(lanes) - 1);
                if (__popc(lanes) > 4 && __all_sync(ALL_LANES, !live || at == first)) {
                        some = warp_sum(live ? some : 0);
                        n_tokens = __popc(lanes);
                        live = threadIdx.x % 32 == __ffs(lanes) - 1;
                }
                if (!live)
                        return;
                uint32_t word = (uint32_t) some, before = atomicAdd(&low[at], word);
                uint32_t rest = (uint32_t) (some >> 32) + (before + word < before);

                atomicAdd(&count[at], n_tokens);
                if (rest)
                        atomicAdd(&high[at], rest);
        }
};

struct found {
        uint64_t key;
        uint64_t mass; /* its own and of all before it */
};

struct seek_shared {
        struct tally<1U << DIGIT_BITS> tally;
        uint32_t digit;
        bool alone;
        uint64_t need, before;
        struct found found;
};

struct draw_shared {
        union {
                struct tally<BINS> tally;
                struct {
                        uint64_t mass[BINS]; /* of a bin and all before it */
                        uint32_t count[BINS];
                        uint64_t keys[NEAR]; /* tokens of one bin, in any order */
                        uint64_t units[NEAR];
                } head;
                uint64_t tops[WARM_TOP_N_MAX * SUBSEGMENT]; /* keys, in any order */
        };
        struct seek_shared seek;
        uint64_t warp_mass[DRAW_WARPS];
        uint32_t warp_count[DRAW_WARPS];
        uint32_t n_list, bin;
        bool last;
};

/* A row's logits as draw_rows reads them. */
struct row_view {
        const float *logits;
        const uint64_t *bests;
        const uint32_t *mask; /* NULL: all */
        uint32_t n_vocab;
        uint32_t n_bests;
        float temperature;
        float shift; /* the largest allowed logit over the temperature */

        INLINE row_view(const struct job &job, bool masked)
            : logits(job.logits()), bests(job.w.m.bests + job.segment(0) * 8),
              mask(masked ? job.w.m.masks + job.segment(0) * 32 : NULL), n_vocab(job.w.s.n_vocab),
              n_bests(job.w.n_segments * 8), temperature(finite(job.want.temperature)), shift(0) {}

        INLINE float scaled(float logit) const { return finite(__fdiv_rn(logit, temperature)); }

        INLINE uint32_t bin_of(float logit) const {
                float depth = (shift - scaled(logit)) * BINS_A_NAT;

                return depth < MIN_P_BIN - 1 ? (uint32_t) depth : MIN_P_BIN - 1;
        }

        INLINE float weight(float logit) const { return exp_of(scaled(logit) - shift); }

        INLINE uint64_t units(float logit) const { return __float2ull_rn(weight(logit) * UNIT); }

        /* Which of the four ids from id on exist and may be taken. */
        INLINE uint32_t live_of(uint32_t id) const {
                uint32_t live = present_of(id, n_vocab);

                return mask && live ? live & mask[id / 32] >> id % 32 : live;
        }

        /*
         * Call f(live, key) for the tokens whose key is floor or more and whose logit is hi or less, by whole warps.
         * Subsegments that do not reach floor are not read; of those that do, four are loaded at once.
         */
        template <typename F> INLINE void each(uint64_t floor, float hi, F f) const {
                uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
                uint32_t own = lane * DRAW_WARPS + warp;
                uint64_t next = own < n_bests ? bests[own] : 0;
                float lo = logit_of(floor);

                for (uint32_t from = 0; from < n_bests; from += DRAW_THREADS) {
                        uint32_t lanes = __ballot_sync(ALL_LANES, next >= floor), id[4];

                        own += DRAW_THREADS;
                        next = own < n_bests ? bests[own] : 0;
                        while (lanes) {
                                float4 v[4];

#pragma unroll
                                for (uint32_t i = 0; i < 4; i++) {
                                        uint32_t at = from + (__ffs(lanes) - 1) * DRAW_WARPS + warp;

                                        id[i] = lanes ? at * SUBSEGMENT + lane * 4 : UINT32_MAX;
                                        v[i] = load_four(logits, id[i], n_vocab);
                                        lanes &= lanes - 1;
                                }
#pragma unroll
                                for (uint32_t i = 0; i < 4; i++)
                                        each_of(v[i], id[i], lo, hi, f);
                        }
                }
        }

        /* The same for four ids a lane. Few are in: a lane takes its next in each turn. */
        template <typename F>
        INLINE void each_of(float4 v, uint32_t id, float lo, float hi, F f) const {
                uint32_t in = (v.x >= lo && v.x <= hi) | (v.y >= lo && v.y <= hi) << 1 |
                              (v.z >= lo && v.z <= hi) << 2 | (v.w >= lo && v.w <= hi) << 3;

                if (!__any_sync(ALL_LANES, in))
                        return;
                for (in &= live_of(id); __any_sync(ALL_LANES, in); in &= in - 1) {
                        uint32_t i = in ? __ffs(in) - 1 : 0;
                        float logit = i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;

                        f(in != 0, key_of(order_of(logit), id + i));
                }
        }
};

/* Tokens to select from: keys in memory, 0: none; without mass. */
struct key_source {
        const uint64_t *keys;
        uint32_t n;

        INLINE float lo() const { return -FLT_MAX; }
        INLINE float hi() const { return FLT_MAX; }

        template <typename F> INLINE void each(F f) const {
                for (uint32_t from = 0; from < n; from += DRAW_THREADS) {
                        uint64_t key = from + threadIdx.x < n ? keys[from + threadIdx.x] : 0;

                        f(key != 0, key, (uint64_t) 0);
                }
        }
};

/* The tokens of a bin that have mass. */
struct bin_source {
        const struct row_view &view;
        uint32_t bin;

        /*
         * What a bin holds is what bin_of() says; asked only of logits near it. Scaling rounds four times, by 2^-24 of
         * a number not larger than |shift| + 32.
         */
        INLINE float border(float depth, float slack) const {
                return view.temperature *
                       (view.shift - depth / BINS_A_NAT + slack * (fabsf(view.shift) + 32));
        }

        INLINE float lo() const { return border((float) (bin + 1), -1e-6F); }
        INLINE float hi() const { return border((float) bin, 1e-6F); }

        template <typename F> INLINE void each(F f) const {
                uint64_t units = 0;
                float last = NAN; /* whose units these are: equal logits come in long runs */

                view.each(key_of(order_of(finite(lo())), ID_LAST), hi(),
                          [&](bool live, uint64_t key) {
                                  float logit = logit_of(key);

                                  if (logit != last)
                                          units = view.bin_of(logit) == bin ? view.units(logit) : 0;
                                  last = logit;
                                  f(live && units, key, units);
                          });
        }
};

/* The digit, descending, where the count or mass reaches shared.need. Called by warp 0; found for any need in reach. */
static __device__ void pick_digit(struct seek_shared &shared, bool by_count) {
        uint32_t digit = 31 - threadIdx.x, count = shared.tally.count[digit];
        uint64_t mass = shared.tally.mass(digit), need = shared.need;
        uint64_t mass_before = warp_scan(mass) - mass;
        uint64_t before = by_count ? warp_scan(count) - count : mass_before;

        __syncwarp();
        if (before < need && need <= before + (by_count ? count : mass)) {
                shared.digit = digit;
                shared.alone = count == 1;
                shared.need = need - before;
                shared.before = mass_before;
        }
}

/*
 * The first token in order with which the count, or the mass, of a source reaches need. Digits of the keys, most
 * significant first, from the first that is not the same in the source's borders.
 *
 * @param need 1 to the count (mass) of the source
 */
template <typename Source>
static __device__ __noinline__ struct found seek(const Source &source, struct seek_shared &shared,
                                                 bool by_count, uint64_t need) {
        uint32_t order = order_of(finite(source.hi()));
        uint32_t top = ID_BITS + 32 - __clz(order ^ order_of(finite(source.lo())));
        uint64_t prefix = ((uint64_t) order << ID_BITS) >> top, before = 0;

        if (threadIdx.x == 0)
                shared.need = need;
        do {
                uint32_t shift = top > DIGIT_BITS ? top - DIGIT_BITS : 0;

                shared.tally.clear();
                __syncthreads();
                source.each([&](bool live, uint64_t key, uint64_t units) {
                        shared.tally.add(live && key >> top == prefix,
                                         (uint32_t) (key >> shift) & ((1U << (top - shift)) - 1),
                                         units);
                });
                __syncthreads();
                if (threadIdx.x < 32)
                        pick_digit(shared, by_count);
                __syncthreads();
                prefix = prefix << (top - shift) | shared.digit;
                before += shared.before;
                top = shift;
        } while (top && !shared.alone);
        source.each([&](bool live, uint64_t key, uint64_t units) {
                if (live && key >> top == prefix)
                        shared.found = { key, before + units };
        });
        __syncthreads();
        return shared.found;
}

/* Take over the row's sums, clear them for the next call, and turn them into prefix sums. */
static __device__ void take_sums(const struct job &job, struct draw_shared &shared) {
        uint32_t from = threadIdx.x * PER_THREAD, warp = threadIdx.x / 32, n = 0;
        unsigned long long *masses = job.w.m.masses + (uint64_t) job.row * BINS + from;
        uint32_t *counts = job.w.m.counts + (uint64_t) job.row * BINS + from;
        uint64_t sum = 0, mass[PER_THREAD];
        uint32_t count[PER_THREAD];

        for (uint32_t i = 0; i < PER_THREAD; i++) {
                mass[i] = __ldcg(masses + i);
                count[i] = __ldcg(counts + i);
        }
        for (uint32_t i = 0; i < PER_THREAD; i++) {
                masses[i] = 0;
                counts[i] = 0;
                mass[i] = sum += mass[i];
                count[i] = n += count[i];
        }
        sum = warp_scan(sum);
        n = warp_scan(n);
        if (threadIdx.x % 32 == 31) {
                shared.warp_mass[warp] = sum;
                shared.warp_count[warp] = n;
        }
        sum -= mass[PER_THREAD - 1];
        n -= count[PER_THREAD - 1];
        __syncthreads();
        for (uint32_t i = 0; i < warp; i++) {
                sum += shared.warp_mass[i];
                n += shared.warp_count[i];
        }
        for (uint32_t i = 0; i < PER_THREAD; i++) {
                shared.head.mass[from + i] = sum + mass[i];
                shared.head.count[from + i] = n + count[i];
        }
        __syncthreads();
}

/* Tokens, or mass, in the bins before. */
DEVICE uint64_t sum_before(const struct draw_shared &shared, bool by_count, uint32_t bin) {
        return bin == 0 ? 0 : by_count ? shared.head.count[bin - 1] : shared.head.mass[bin - 1];
}

/* The first token with which the count or mass of the row reaches need; found.mass from the row's start. */
static __device__ struct found reach(const struct row_view &view, struct draw_shared &shared,
                                     bool by_count, uint64_t need) {
        uint32_t bin, n, count = 0;
        uint64_t key, mass = 0, units;

        if (threadIdx.x == 0)
                shared.n_list = 0;
        for (bin = threadIdx.x; bin < MIN_P_BIN; bin += DRAW_THREADS)
                if (sum_before(shared, by_count, bin) < need &&
                    need <= sum_before(shared, by_count, bin + 1))
                        shared.bin = bin;
        __syncthreads();
        bin = shared.bin;
        n = (uint32_t) (sum_before(shared, true, bin + 1) - sum_before(shared, true, bin));
        need -= sum_before(shared, by_count, bin);
        if (n > NEAR) {
                struct found f = seek(bin_source{ view, bin }, shared.seek, by_count, need);

                f.mass += sum_before(shared, false, bin);
                return f;
        }
        bin_source{ view, bin }.each([&](bool live, uint64_t token, uint64_t its_units) {
                if (!live)
                        return;
                uint32_t at = atomicAdd(&shared.n_list, 1);
                shared.head.keys[at] = token;
                shared.head.units[at] = its_units;
        });
        __syncthreads();
        key = threadIdx.x < n ? shared.head.keys[threadIdx.x] : UINT64_MAX;
        for (uint32_t i = 0; i < n && key != UINT64_MAX; i++) {
                bool before = shared.head.keys[i] > key;

                count += before;
                mass += before ? shared.head.units[i] : 0;
        }
        units = threadIdx.x < n ? shared.head.units[threadIdx.x] : 0;
        if (units && (by_count ? count + 1 == need : mass < need && need <= mass + units))
                shared.seek.found = { key, sum_before(shared, false, bin) + mass + units };
        __syncthreads();
        return shared.seek.found;
}

/* Cut the order at top_k, top_p, min_p, and draw from the mass that is left. */
DEVICE uint64_t draw_token(const struct row_view &view, struct draw_shared &shared,
                           const struct warm_cuda_want &want) {
        uint64_t kept = shared.head.mass[MIN_P_BIN - 1], u = (uint64_t) (want.u * 0x1p24F);
        uint64_t above = shared.head.mass[MIN_P_BIN] - kept;

        if (want.top_k && want.top_k < shared.head.count[MIN_P_BIN - 1])
                kept = reach(view, shared, true, want.top_k).mass;
        if (want.top_p < 1) {
                double need = ceil((double) want.top_p * (double) kept);

                kept = reach(view, shared, false, need < 1 ? 1 : min((uint64_t) need, kept)).mass;
        }
        if (want.min_p > 0)
                kept = min(kept, above);
        /* The first whose cumulative mass exceeds u * kept: whole numbers, so the floor of it and 1 more. */
        return reach(view, shared, false, (__umul64hi(u, kept) << 40 | u * kept >> 24) + 1).key;
}

/* Count the tokens and masses of tiles first, first + step, ... into the row's bins. */
DEVICE void count_tiles(const struct job &job, const struct row_view &view, uint32_t first,
                        uint32_t step, struct draw_shared &shared) {
        float min_p = job.want.min_p;
        uint32_t id = (first * DRAW_THREADS + threadIdx.x) * 4;
        float4 next = load_four(view.logits, id, view.n_vocab);

        shared.tally.clear();
        __syncthreads();
        for (uint32_t tile = first; tile < job.w.n_tiles; tile += step) {
                float logits[4] = { next.x, next.y, next.z, next.w };
                uint32_t live = view.live_of(id);

                id += step * TILE;
                if (tile + step < job.w.n_tiles)
                        next = load_four(view.logits, id, view.n_vocab);
                for (uint32_t i = 0; i < 4; i++) {
                        uint64_t units = live >> i & 1 ? view.units(logits[i]) : 0;

                        shared.tally.add(units, view.bin_of(logits[i]), units);
                        if (min_p > 0)
                                shared.tally.add(units && view.weight(logits[i]) >= min_p,
                                                 MIN_P_BIN, units);
                }
        }
        __syncthreads();
        for (uint32_t i = threadIdx.x; i < BINS; i += DRAW_THREADS) {
                uint64_t at = (uint64_t) job.row * BINS + i;

                if (shared.tally.count[i] == 0)
                        continue;
                atomicAdd(&job.w.m.counts[at], shared.tally.count[i]);
                atomicAdd(&job.w.m.masses[at], shared.tally.mass(i));
        }
}

/* The most likely n tokens of a row, allowed or not: they lie in the n subsegments with the best bests. */
DEVICE void find_top(const struct job &job, const struct row_view &view, double all,
                     struct draw_shared &shared) {
        uint32_t n = min(min(job.want.n_top, WARM_TOP_N_MAX), view.n_vocab), n_list;
        uint64_t floor = key_of(order_of(-FLT_MAX), ID_LAST);

        if (n > 0 && n <= (view.n_vocab + SUBSEGMENT - 1) / SUBSEGMENT)
                floor = seek(key_source{ view.bests, view.n_bests }, shared.seek, true, n).key;
        if (threadIdx.x == 0) {
                shared.n_list = 0;
                put(job, [&](struct warm_cuda_answer &a) { a.n_top = n; });
        }
        __syncthreads();
        view.each(n ? floor : UINT64_MAX, FLT_MAX, [&](bool live, uint64_t key) {
                if (live && key >= floor)
                        shared.tops[atomicAdd(&shared.n_list, 1)] = key;
        });
        __syncthreads();
        n_list = shared.n_list;
        if (n_list > DRAW_THREADS)
                floor = seek(key_source{ shared.tops, n_list }, shared.seek, true, n).key;
        for (uint32_t i = threadIdx.x; i < n_list; i += DRAW_THREADS) {
                uint64_t key = shared.tops[i];
                struct warm_top top = { id_of(key), (float) ((double) logit_of(key) - all) };
                uint32_t rank = 0;

                for (uint32_t j = 0; j < n_list && key >= floor && rank < n; j++)
                        rank += shared.tops[j] > key;
                if (key >= floor && rank < n)
                        put(job, [&](struct warm_cuda_answer &a) { a.top[rank] = top; });
        }
}

static __global__ void __launch_bounds__(DRAW_THREADS, 2) draw_rows(const struct work w) {
        __shared__ struct draw_shared shared;
        uint32_t n_rows, n_parts;

        warm_let_next_start();
        warm_wait_for_before();
        n_rows = *w.s.d_n_rows;
        n_parts = n_rows * 2 < DRAW_BLOCKS ? min(DRAW_BLOCKS / max(n_rows, 1U) - 1, w.n_tiles) : 1;
        for (uint32_t i = blockIdx.x; i < n_rows * (n_parts + 1); i += gridDim.x) {
                uint32_t row = i / (n_parts + 1), part = i % (n_parts + 1);
                const struct job job = { w, w.s.d_wants[row], row };
                bool is_top = part == n_parts;
                struct record record;
                uint64_t key;

                if (is_top ? !(job.want.want & WARM_WANT_TOP) : !job.draws())
                        continue;
                __syncthreads(); /* shared memory may still be read for the item before */
                record = w.m.records[row];
                struct row_view view(job, !is_top && job.masked());
                if (is_top)
                        find_top(job, view, record.all, shared);
                if (is_top || record.best == 0)
                        continue;
                view.shift = view.scaled(logit_of(record.best));
                count_tiles(job, view, part, n_parts, shared);
                if (!finish(&w.m.done[row * 2 + 1], n_parts, shared.last))
                        continue;
                take_sums(job, shared);
                key = draw_token(view, shared, job.want);
                if (threadIdx.x == 0)
                        put_token(job, key, record.all);
        }
}

/* Where everything lies in scratch, widest alignment first. */
static struct scratch lay_out(void *base, uint64_t n, uint32_t n_segments) {
        struct scratch m;

        m.segments = (struct segment *) base;
        m.records = (struct record *) (m.segments + n * n_segments);
        m.masses = (unsigned long long *) (m.records + n);
        m.bests = (uint64_t *) (m.masses + n * BINS);
        m.counts = (uint32_t *) (m.bests + n * n_segments * 8);
        m.masks = m.counts + n * BINS;
        m.done = m.masks + n * n_segments * 32;
        m.n_bytes = (uint64_t) ((uintptr_t) (m.done + n * 2) - (uintptr_t) base);
        return m;
}

uint64_t warm_cuda_sample_scratch_bytes(uint32_t n_rows_max, uint32_t n_vocab) {
        return lay_out(NULL, n_rows_max, (n_vocab + SEGMENT - 1) / SEGMENT).n_bytes;
}

int warm_cuda_sample_run(const struct warm_cuda_sample *s, cudaStream_t stream) {
        struct work w = {};
        int r;

        if (s->n_vocab == 0 || s->n_vocab > WARM_CUDA_SAMPLE_VOCAB_MAX || s->ld < s->n_vocab ||
            s->ld % 4 || s->n_rows_max == 0 || s->n_rows_max > WARM_STEP_ROWS_MAX)
                return cudaErrorInvalidValue;
        w.s = *s;
        w.n_segments = (s->n_vocab + SEGMENT - 1) / SEGMENT;
        w.n_tiles = (s->n_vocab + TILE - 1) / TILE;
        w.m = lay_out(s->d_scratch, s->n_rows_max, w.n_segments);
        r = warm_launch(sum_rows, dim3(min(s->n_rows_max * w.n_segments, SUM_BLOCKS)),
                        dim3(SUM_THREADS), 0, stream, s->overlap, w);
        if (r || s->greedy)
                return r;
        return warm_launch(draw_rows, dim3(min(s->n_rows_max * (w.n_tiles + 1), DRAW_BLOCKS)),
                           dim3(DRAW_THREADS), 0, stream, s->overlap, w);
}
