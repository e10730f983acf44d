/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* linux/memfd.h of Linux 6.3 */
#endif
#define CHUNK_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static uint64_t type_bytes(enum warm_type type) {
        return type == WARM_TYPE_F32 ? 4 : 2;
}

static int group_setup(struct warm_kv_group *g, uint64_t block_bytes, uint32_t n_blocks_max) {
        uint64_t page = (uint64_t) sysconf(_SC_PAGESIZE), bytes;
        void *base;

        g->block_bytes = block_bytes;
        if (block_bytes == 0 || n_blocks_max == 0)
                return 0;
        g->chunk_shift = warm_kv_chunk_shift(block_bytes, n_blocks_max);
        if (__builtin_mul_overflow(block_bytes, 1ULL << g->chunk_shift, &bytes) ||
            bytes > UINT64_MAX - page)
                return -ENOMEM;
        g->chunk_bytes = (bytes + page - 1) / page * page;
        g->n_chunks_max = ((n_blocks_max - 1) >> g->chunk_shift) + 1;
        if (__builtin_mul_overflow(g->chunk_bytes, g->n_chunks_max, &bytes))
                return -ENOMEM;
        g->fds = malloc(g->n_chunks_max * sizeof(*g->fds));
        if (!g->fds)
                return -ENOMEM;
        for (uint32_t i = 0; i < g->n_chunks_max; i++)
                g->fds[i] = -1;
        base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED)
                return -ENOMEM;
        g->base = base;
        g->n_blocks_max = n_blocks_max;
        return 0;
}

void warm_kv_deinit(struct warm_kv *kv) {
        for (uint32_t i = 0; i < kv->n_groups; i++) {
                struct warm_kv_group *g = &kv->groups[i];

                if (g->base)
                        munmap(g->base, g->chunk_bytes * g->n_chunks_max);
                for (uint32_t c = 0; g->fds && c < g->n_chunks_max; c++)
                        if (g->fds[c] >= 0)
                                close(g->fds[c]);
                free(g->fds);
        }
        *kv = (struct warm_kv){ 0 };
}

int warm_kv_setup(struct warm_kv *kv, const struct warm_kv_config *config, uint32_t n_groups,
                  const uint64_t *block_values, struct warm_kv_info *ret_info) {
        struct warm_kv_info info = { 0 };
        struct warm_kv made = { .type = config->type, .n_groups = n_groups };

        if (kv->ready)
                return -EEXIST;
        if (config->type != WARM_TYPE_F16 && config->type != WARM_TYPE_BF16 &&
            config->type != WARM_TYPE_F32)
                return -EINVAL;
        for (uint32_t i = 0; i < n_groups; i++) {
                uint64_t bytes;
                int r = -ENOMEM;

                if (!__builtin_mul_overflow(block_values[i], type_bytes(config->type), &bytes))
                        r = group_setup(&made.groups[i], bytes, config->n_blocks_max[i]);
                if (r < 0) {
                        warm_kv_deinit(&made);
                        return r;
                }
                info.block_bytes[i] = bytes;
                info.blocks_per_chunk[i] = 1U << made.groups[i].chunk_shift;
        }
        *kv = made;
        kv->ready = true;
        *ret_info = info;
        return 0;
}

static uint8_t *chunk_address(const struct warm_kv_group *g, uint32_t chunk_index) {
        return g->base + chunk_index * g->chunk_bytes;
}

/* Map a chunk's file at its place; on success the group owns the fd. */
static int chunk_map(struct warm_kv_group *g, uint32_t chunk_index, int fd) {
        if (mmap(chunk_address(g, chunk_index), g->chunk_bytes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
                return WARM_BACKEND_E_MEMORY;
        g->fds[chunk_index] = fd;
        return 0;
}

int warm_kv_chunk_add(struct warm_kv *kv, uint32_t group, uint32_t chunk_index) {
        struct warm_kv_group *g;
        int fd, r = WARM_BACKEND_E_MEMORY;

        if (group >= kv->n_groups || chunk_index >= kv->groups[group].n_chunks_max)
                return -ERANGE;
        g = &kv->groups[group];
        if (g->fds[chunk_index] >= 0)
                return -EEXIST;
        fd = memfd_create("warm-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
        if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
                fd = memfd_create("warm-kv", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return WARM_BACKEND_E_MEMORY;
        if (ftruncate(fd, (off_t) g->chunk_bytes) == 0 && fcntl(fd, F_ADD_SEALS, CHUNK_SEALS) == 0)
                r = chunk_map(g, chunk_index, fd);
        if (r)
                close(fd);
        return r;
}

int warm_kv_chunk_remove(struct warm_kv *kv, uint32_t group, uint32_t chunk_index) {
        struct warm_kv_group *g;

        if (group >= kv->n_groups || chunk_index >= kv->groups[group].n_chunks_max ||
            kv->groups[group].fds[chunk_index] < 0)
                return -ENOENT;
        g = &kv->groups[group];
        /* the reservation stays; if that map fails (limits), the range is simply unusable until added again */
        (void) mmap(chunk_address(g, chunk_index), g->chunk_bytes, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        close(g->fds[chunk_index]);
        g->fds[chunk_index] = -1;
        return 0;
}

int warm_kv_export_fds(struct warm_kv *kv, int *fds, uint32_t n_fds_max, uint32_t *ret_n_fds) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < kv->n_groups; i++)
                n += kv->groups[i].n_chunks_max;
        if (n > n_fds_max)
                return -ENOSPC;
        n = 0;
        for (uint32_t i = 0; i < kv->n_groups; i++) {
                for (uint32_t c = 0; c < kv->groups[i].n_chunks_max; c++, n++) {
                        int fd = kv->groups[i].fds[c];

                        fds[n] = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
                        if (fd >= 0 && fds[n] < 0) {
                                int r = -errno;

                                while (n-- > 0)
                                        if (fds[n] >= 0)
                                                close(fds[n]);
                                return r;
                        }
                }
        }
        *ret_n_fds = n;
        return 0;
}

/* Only what a chunk of ours is: a memfd of the exact size that nobody can cut short any more. */
static bool fd_is_chunk(int fd, uint64_t chunk_bytes) {
        struct stat st;
        int seals = fcntl(fd, F_GET_SEALS);

        return seals >= 0 && (seals & CHUNK_SEALS) == CHUNK_SEALS && fstat(fd, &st) == 0 &&
               S_ISREG(st.st_mode) && (uint64_t) st.st_size == chunk_bytes;
}

/* Let go of the chunks that the first n of fds became. */
static void import_undo(struct warm_kv *kv, const int *fds, uint32_t n) {
        uint32_t at = 0;

        for (uint32_t i = 0; i < kv->n_groups; i++)
                for (uint32_t c = 0; c < kv->groups[i].n_chunks_max && at < n; c++, at++)
                        if (fds[at] >= 0)
                                (void) warm_kv_chunk_remove(kv, i, c);
}

int warm_kv_import_fds(struct warm_kv *kv, const int *fds, uint32_t n_fds) {
        uint32_t n = 0;

        for (uint32_t i = 0; i < kv->n_groups; i++) {
                const struct warm_kv_group *g = &kv->groups[i];

                for (uint32_t c = 0; c < g->n_chunks_max; c++, n++) {
                        if (n >= n_fds)
                                return -EINVAL;
                        if (fds[n] < 0)
                                continue;
                        if (g->fds[c] >= 0)
                                return -EEXIST;
                        if (!fd_is_chunk(fds[n], g->chunk_bytes))
                                return -EINVAL;
                }
        }
        if (n != n_fds)
                return -EINVAL;
        n = 0;
        for (uint32_t i = 0; i < kv->n_groups; i++) {
                struct warm_kv_group *g = &kv->groups[i];

                for (uint32_t c = 0; c < g->n_chunks_max; c++, n++) {
                        int fd, r;

                        if (fds[n] < 0)
                                continue;
                        fd = fcntl(fds[n], F_DUPFD_CLOEXEC, 3);
                        r = fd < 0 ? -errno : chunk_map(g, c, fd);
                        if (r) {
                                if (fd >= 0)
                                        close(fd);
                                import_undo(kv, fds, n);
                                return r;
                        }
                }
        }
        return 0;
}

/*
 * Four independent lanes of multiply and rotate over 8-byte words, folded by SplitMix64's finaliser. Not
 * cryptographic: it tells what a crash or a foreign layout did to a block, not what an attacker did.
 */
static uint64_t fold(uint64_t x) {
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
}

static uint64_t bytes_sum(const uint8_t *bytes, uint64_t n) {
        uint64_t lanes[4] = { n, ~n, n << 32, 0x9e3779b97f4a7c15ULL };
        uint64_t sum = 0, i = 0;

        for (; i + 32 <= n; i += 32) {
                for (uint32_t j = 0; j < 4; j++) {
                        uint64_t word;

                        memcpy(&word, bytes + i + j * 8, 8);
                        lanes[j] = (lanes[j] ^ word) * 0x9fb21c651e98df25ULL;
                        lanes[j] = lanes[j] << 29 | lanes[j] >> 35;
                }
        }
        for (; i < n; i++)
                lanes[i % 4] = fold(lanes[i % 4] ^ bytes[i]);
        for (uint32_t j = 0; j < 4; j++)
                sum = fold(sum ^ lanes[j]) + j;
        return sum;
}

int warm_kv_block_sum(const struct warm_kv *kv, uint32_t group, uint32_t block, uint64_t *ret_sum) {
        if (group >= kv->n_groups || !warm_kv_has(kv, group, block))
                return -ENOENT;
        *ret_sum = bytes_sum(warm_kv_block(kv, group, block), kv->groups[group].block_bytes);
        return 0;
}
