/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory-fixture.h"

struct warm_cuda_memory memory;
struct warm_cuda_blocks blocks;
cudaStream_t stream;
uint32_t n_failed;
bool failed;
const uint64_t block_values[GROUPS] = { 96 << 10, 2 << 10 };

uint64_t random_next(uint64_t *state) {
        uint64_t x = *state += 0x9e3779b97f4a7c15ULL;

        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
        return x ^ (x >> 31);
}

void random_fill(uint8_t *bytes, uint64_t n, uint64_t seed) {
        for (uint64_t i = 0; i < n; i += 8) {
                uint64_t word = random_next(&seed);

                memcpy(bytes + i, &word, n - i < 8 ? n - i : 8);
        }
}

uint64_t host_sum(const uint8_t *bytes, uint64_t n) {
        uint64_t sum = 0, key = 0, state;

        for (uint64_t i = 0; i < n; i += 8) {
                uint64_t word;

                memcpy(&word, bytes + i, 8);
                key += 0x9e3779b97f4a7c15ULL;
                state = (word ^ key) - 0x9e3779b97f4a7c15ULL;
                sum += random_next(&state);
        }
        state = (n ^ sum) - 0x9e3779b97f4a7c15ULL;
        return random_next(&state);
}

uint64_t memory_free(void) {
        size_t n_free = 0, n_total = 0;

        CHECK_IS(cudaMemGetInfo(&n_free, &n_total), 0);
        return n_free;
}

bool memory_is_back(uint64_t before) {
        uint64_t n_free = memory_free();

        /* the driver cleans up behind the dead in its own time */
        for (uint32_t i = 0; i < 100 && n_free + 8 * MIB < before; i++) {
                usleep(20000);
                n_free = memory_free();
        }
        return n_free + 8 * MIB >= before;
}

void device_put(void *d_at, const void *bytes, uint64_t n) {
        CHECK_IS(cudaMemcpy(d_at, bytes, n, cudaMemcpyHostToDevice), 0);
        CHECK_IS(cudaDeviceSynchronize(), 0);
}

void device_set(void *d_at, uint8_t byte, uint64_t n) {
        CHECK_IS(cudaMemset(d_at, byte, n), 0);
        CHECK_IS(cudaDeviceSynchronize(), 0);
}

struct warm_cuda_kv_memory kv_new(struct warm_kv_info *ret_info) {
        struct warm_kv_config config = { WARM_TYPE_F16, { N_BLOCKS, N_BLOCKS } };
        struct warm_cuda_kv_memory kv = { 0 };

        CHECK_IS(warm_cuda_kv_setup(&kv, &memory, stream, &config, GROUPS, block_values, ret_info),
                 0);
        return kv;
}

struct warm_cuda_kv_memory kv_filled(uint64_t (*ret_sums)[N_BLOCKS]) {
        struct warm_kv_info info = { 0 };
        struct warm_cuda_kv_memory kv = kv_new(&info);
        uint8_t *host = malloc(block_values[0] * 2);

        for (uint32_t g = 0; g < GROUPS; g++) {
                struct warm_cuda_kv view = warm_cuda_kv_get(&kv, g);

                for (uint32_t c = 0; c < kv.groups[g].range.n_chunks; c++)
                        CHECK_IS(warm_cuda_kv_chunk_add(&kv, g, c), 0);
                CHECK_IS(cudaStreamSynchronize(stream), 0);
                for (uint32_t b = 0; b < N_BLOCKS; b++) {
                        uint8_t *d_block = view.d_base +
                                           (b >> view.chunk_shift) * view.chunk_bytes +
                                           (b % info.blocks_per_chunk[g]) * view.block_bytes;

                        random_fill(host, view.block_bytes, g * 1000 + b);
                        device_put(d_block, host, view.block_bytes);
                        ret_sums[g][b] = host_sum(host, view.block_bytes);
                }
        }
        free(host);
        return kv;
}

bool kv_sums_are(const struct warm_cuda_kv_memory *kv, uint64_t (*sums)[N_BLOCKS]) {
        uint32_t list[N_BLOCKS];
        uint64_t got[N_BLOCKS] = { 0 };
        bool same = true;

        for (uint32_t b = 0; b < N_BLOCKS; b++)
                list[b] = b;
        for (uint32_t g = 0; g < GROUPS; g++) {
                struct warm_cuda_kv view = warm_cuda_kv_get(kv, g);

                CHECK_IS(warm_cuda_blocks_sum(&blocks, &view, list, N_BLOCKS, got), 0);
                same = same && memcmp(got, sums[g], sizeof(got)) == 0;
        }
        return same;
}

int sink_take(void *userdata, const void *d_raw, uint64_t first_row, uint64_t n_rows,
              cudaStream_t from) {
        struct sink *sink = userdata;

        sink->n_seen += n_rows;
        if (first_row % sink->rows_step ||
            (n_rows % sink->rows_step && first_row + n_rows != sink->n_rows))
                return -EPROTO;
        if (sink->result)
                return sink->result;
        return warm_cuda_error((int) cudaMemcpyAsync(sink->d_target + first_row * sink->row_bytes,
                                                     d_raw, n_rows * sink->row_bytes,
                                                     cudaMemcpyDeviceToDevice, from));
}

int cuda_setup(void) {
        int r = warm_cuda_memory_init(&memory, 0);

        if (r)
                return r;
        CHECK_IS(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), 0);
        CHECK_IS(warm_cuda_blocks_init(&blocks, stream), 0);
        return 0;
}

void cuda_end(void) {
        warm_cuda_blocks_deinit(&blocks);
        CHECK_IS(cudaStreamDestroy(stream), 0);
}

void run(const char *sentence, void (*test)(void)) {
        failed = false;
        test();
        printf("%s - %s\n", failed ? "not ok" : "ok", sentence);
        fflush(stdout);
        n_failed += failed;
}
