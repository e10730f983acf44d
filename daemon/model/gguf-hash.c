/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash of a model: what makes two files the same model to a cache.
 *
 * Tensors are hashed in pieces, and the pieces' hashes in order. Pieces of a mapped file are taken by as many threads
 * as help: one thread hashes 15 GB in 1.5 s, which is most of the time that a large model needs to start.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "gguf-internal.h"
#include "gguf.h"

#define THREADS_MAX 8U  /* four bring 40 GB/s on a server; untuned guess */
#define PIECES_FEW  64U /* of which a thread would be started for nothing */

/* Pieces of one tensor. */
struct pieces {
        const uint8_t *data;
        uint64_t bytes;
        XXH128_canonical_t *hashes; /* [n] */
        uint64_t n;
        uint64_t next; /* atomic: the piece that nobody has taken */
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

static void hash_piece(struct pieces *p, uint64_t i) {
        uint64_t at = i * WARM_BYTES_CHUNK, left = p->bytes - at;

        XXH128_canonicalFromHash(&p->hashes[i],
                                 XXH3_128bits(p->data + at, left < WARM_BYTES_CHUNK
                                                                    ? (size_t) left
                                                                    : WARM_BYTES_CHUNK));
}

static void *hash_worker(void *arg) {
        struct pieces *p = arg;

        for (uint64_t i; (i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED)) < p->n;)
                hash_piece(p, i);
        return NULL;
}

/* All pieces, by this thread and, if they are many, by others. */
static void hash_all(struct pieces *p) {
        long n_cores = sysconf(_SC_NPROCESSORS_ONLN);
        pthread_t threads[THREADS_MAX];
        uint32_t n = 0, wanted = n_cores > (long) THREADS_MAX ? THREADS_MAX
                                 : n_cores > 0                ? (uint32_t) n_cores
                                                              : 1;

        if (p->n < PIECES_FEW)
                wanted = 1;
        while (n + 1 < wanted && pthread_create(&threads[n], NULL, hash_worker, p) == 0)
                n++; /* where no thread can be had, this one does it */
        hash_worker(p);
        while (n > 0)
                pthread_join(threads[--n], NULL);
}

/* Bring a tensor into memory; hashes of its pieces. A piece that was just read is still in the cache. */
static int load_and_hash(struct warm_gguf *g, const struct warm_gguf_tensor *t, struct pieces *p,
                         char **ret_why) {
        uint64_t start = g->data_offset + t->offset;

        if (g->bytes.n_ready >= start + t->bytes) {
                hash_all(p);
                return 0;
        }
        for (uint64_t i = 0; i < p->n; i++) {
                uint64_t at = i * WARM_BYTES_CHUNK, left = t->bytes - at;
                int e = warm_bytes_fill(
                        &g->bytes, start + at + (left < WARM_BYTES_CHUNK ? left : WARM_BYTES_CHUNK),
                        ret_why);

                if (e < 0)
                        return e;
                hash_piece(p, i);
        }
        return 0;
}

static int hash_tensor(struct warm_gguf *g, const struct warm_gguf_tensor *t, XXH3_state_t *hash,
                       char **ret_why) {
        struct pieces p = {
                .data = t->data,
                .bytes = t->bytes,
                .n = (t->bytes + WARM_BYTES_CHUNK - 1) / WARM_BYTES_CHUNK,
        };
        int e;

        p.hashes = calloc(p.n ? p.n : 1, sizeof(*p.hashes));
        if (!p.hashes)
                return -ENOMEM;
        e = load_and_hash(g, t, &p, ret_why);
        if (e == 0) {
                XXH3_128bits_update(hash, t->header, t->header_bytes);
                XXH3_128bits_update(hash, p.hashes, p.n * sizeof(*p.hashes));
        }
        free(p.hashes);
        return e;
}

int warm_gguf_load(struct warm_gguf *g, uint8_t ret_hash[WARM_GGUF_HASH_BYTES], char **ret_why) {
        XXH128_canonical_t canonical;
        XXH3_state_t *hash = XXH3_createState();
        int e = 0;

        static_assert(sizeof canonical == WARM_GGUF_HASH_BYTES, "a hash is 16 bytes");
        if (!hash)
                return -ENOMEM;
        XXH3_128bits_reset(hash);
        for (uint32_t i = 0; i < g->n_keys; i++)
                if (!is_description(&g->keys[i]))
                        XXH3_128bits_update(hash, g->key_starts[i],
                                            (size_t) (g->key_starts[i + 1] - g->key_starts[i]));
        for (uint32_t i = 0; i < g->n_tensors && e == 0; i++)
                e = hash_tensor(g, g->by_offset[i], hash, ret_why);
        if (e == 0) {
                XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(hash));
                memcpy(ret_hash, &canonical, sizeof canonical);
        }
        XXH3_freeState(hash);
        return e;
}
