/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model's tensors come into memory, and its hash: what makes two files the same model to a cache.
 *
 * Both go by pieces, which threads take in the order of the file: a piece that is not there is read, then hashed while
 * it is in the CPU's cache. One thread hashes 15 GB in 1.5 s, which is most of the time that a large model needs to
 * start; so there are as many as help, and they work while their owner does something else.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "gguf-internal.h"
#include "gguf.h"
#include "kernels/thread.h"

#define THREADS_MAX 8U  /* four bring 40 GB/s on a server; untuned guess */
#define PIECES_FEW  64U /* for which a thread would be started for nothing */

/* Of one tensor, at most WARM_BYTES_CHUNK. */
struct piece {
        uint64_t start, end; /* in the file */
        XXH128_canonical_t hash;
};

struct warm_gguf_load {
        struct warm_gguf *g;
        struct piece *pieces; /* [n], all tensors' in the order of the data */
        uint64_t n;
        uint64_t next; /* atomic: the piece that nobody has taken */
        pthread_t threads[THREADS_MAX];
        uint32_t n_threads;

        pthread_mutex_t lock; /* holds what is below; no other is taken under it */
        int result;           /* the first error */
        char *why;            /* with its sentence; owned */
};

static bool starts_with(struct warm_string s, const char *text) {
        size_t n = strlen(text);

        return s.n >= n && memcmp(s.data, text, n) == 0;
}

/* Names, licences and the like do not change what a model computes. */
static bool is_description(const struct warm_gguf_key *key) {
        return starts_with(key->name, "general.") &&
               !warm_string_is(key->name, "general.architecture");
}

/* Everybody stops at the first error. Takes over the sentence. */
static void fail(struct warm_gguf_load *l, int error, char *why) {
        __atomic_store_n(&l->next, l->n, __ATOMIC_RELAXED);
        pthread_mutex_lock(&l->lock);
        if (l->result == 0) {
                l->result = error;
                l->why = why;
                why = NULL;
        }
        pthread_mutex_unlock(&l->lock);
        free(why);
}

/* Take pieces until there are none. On any thread. */
static void *work(void *arg) {
        struct warm_gguf_load *l = arg;
        const struct warm_bytes *bytes = &l->g->bytes;
        char *why = NULL;

        for (uint64_t i; (i = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED)) < l->n;) {
                struct piece *p = &l->pieces[i];
                int e = warm_bytes_read(bytes, p->start, p->end, &why);

                if (e < 0) {
                        fail(l, e, why);
                        break;
                }
                XXH128_canonicalFromHash(&p->hash,
                                         XXH3_128bits(bytes->data + p->start, p->end - p->start));
        }
        return NULL;
}

static uint64_t n_pieces_of(const struct warm_gguf_tensor *t) {
        return (t->bytes + WARM_BYTES_CHUNK - 1) / WARM_BYTES_CHUNK;
}

/* Return: all pieces, none taken; NULL: no memory. */
static struct warm_gguf_load *load_new(struct warm_gguf *g) {
        struct warm_gguf_load *l = calloc(1, sizeof(*l));
        uint64_t n = 0;

        if (!l)
                return NULL;
        for (uint32_t i = 0; i < g->n_tensors; i++)
                n += n_pieces_of(&g->tensors[i]);
        l->pieces = malloc((n ? n : 1) * sizeof(*l->pieces));
        if (!l->pieces) {
                free(l);
                return NULL;
        }
        for (uint32_t i = 0; i < g->n_tensors; i++) {
                uint64_t at = g->data_offset + g->by_offset[i]->offset,
                         end = at + g->by_offset[i]->bytes;

                for (; at < end; at = l->pieces[l->n++].end)
                        l->pieces[l->n] = (struct piece){
                                .start = at,
                                .end = end - at < WARM_BYTES_CHUNK ? end : at + WARM_BYTES_CHUNK,
                        };
        }
        assert(l->n == n);
        l->g = g;
        pthread_mutex_init(&l->lock, NULL);
        return l;
}

/* Threads beside the one that will finish. Where none can be had, that one does it. */
static void start_threads(struct warm_gguf_load *l) {
        uint32_t wanted = l->n < PIECES_FEW ? 1 : warm_cores(THREADS_MAX);

        while (l->n_threads + 1 < wanted &&
               warm_thread_start(&l->threads[l->n_threads], work, l) == 0)
                l->n_threads++;
}

static void join(struct warm_gguf_load *l) {
        while (l->n_threads > 0)
                pthread_join(l->threads[--l->n_threads], NULL);
}

int warm_gguf_load_begin(struct warm_gguf *g) {
        assert(!g->load);
        g->load = load_new(g);
        if (!g->load)
                return -ENOMEM;
        start_threads(g->load);
        return 0;
}

void warm_gguf_load_end(struct warm_gguf *g) {
        struct warm_gguf_load *l = g->load;

        if (!l)
                return;
        __atomic_store_n(&l->next, l->n, __ATOMIC_RELAXED);
        join(l);
        pthread_mutex_destroy(&l->lock);
        free(l->why);
        free(l->pieces);
        free(l);
        g->load = NULL;
}

/* The hash of the keys that count, and of the tensors with their pieces' hashes. */
static int hash_all(const struct warm_gguf *g, const struct warm_gguf_load *l,
                    XXH128_canonical_t *ret_hash) {
        const struct piece *p = l->pieces;
        XXH3_state_t *hash = XXH3_createState();

        if (!hash)
                return -ENOMEM;
        XXH3_128bits_reset(hash);
        for (uint32_t i = 0; i < g->n_keys; i++)
                if (!is_description(&g->keys[i]))
                        XXH3_128bits_update(hash, g->key_starts[i],
                                            (size_t) (g->key_starts[i + 1] - g->key_starts[i]));
        for (uint32_t i = 0; i < g->n_tensors; i++) {
                const struct warm_gguf_tensor *t = g->by_offset[i];

                XXH3_128bits_update(hash, t->header, t->header_bytes);
                for (uint64_t n = n_pieces_of(t); n > 0; n--)
                        XXH3_128bits_update(hash, &p++->hash, sizeof(p->hash));
        }
        XXH128_canonicalFromHash(ret_hash, XXH3_128bits_digest(hash));
        XXH3_freeState(hash);
        return 0;
}

int warm_gguf_load(struct warm_gguf *g, uint8_t ret_hash[WARM_GGUF_HASH_BYTES], char **ret_why) {
        XXH128_canonical_t hash;
        int e = g->load ? 0 : warm_gguf_load_begin(g);

        static_assert(sizeof hash == WARM_GGUF_HASH_BYTES, "a hash is 16 bytes");
        if (e < 0)
                return e;
        work(g->load);
        join(g->load);
        e = g->load->result;
        if (e == 0)
                e = hash_all(g, g->load, &hash);
        if (e == 0)
                memcpy(ret_hash, &hash, sizeof hash);
        else if (ret_why) {
                *ret_why = g->load->why;
                g->load->why = NULL;
        }
        warm_gguf_load_end(g);
        return e;
}
