/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "strings.h"

static uint32_t hash_of(const void *data, size_t n) {
        uint64_t h = XXH3_64bits(data, n);

        return (uint32_t) (h ^ h >> 32);
}

int warm_strings_init(struct warm_strings *s, uint32_t n_hint, uint64_t n_bytes_hint) {
        uint32_t n_slots = 16;

        if (n_hint > 1U << 29 || n_bytes_hint > WARM_STRINGS_BYTES_MAX)
                return -E2BIG;
        while (n_slots < 2 * n_hint)
                n_slots *= 2;
        *s = (struct warm_strings){ .n_max = n_hint + 1,
                                    .n_slots = n_slots,
                                    .n_bytes_max = n_bytes_hint + 1 };
        s->bytes = malloc(s->n_bytes_max);
        s->at = malloc(((size_t) s->n_max + 1) * sizeof *s->at);
        s->slots = calloc(n_slots, sizeof *s->slots);
        if (!s->bytes || !s->at || !s->slots) {
                warm_strings_deinit(s);
                return -ENOMEM;
        }
        s->at[0] = 0;
        return 0;
}

void warm_strings_deinit(struct warm_strings *s) {
        free(s->bytes);
        free(s->at);
        free(s->slots);
        *s = (struct warm_strings){ 0 };
}

static void place(uint64_t *slots, uint32_t n_slots, uint64_t slot) {
        uint32_t i = (uint32_t) (slot >> 32) & (n_slots - 1);

        while (slots[i])
                i = (i + 1) & (n_slots - 1);
        slots[i] = slot;
}

static int grow(struct warm_strings *s, size_t n) {
        if (s->n_bytes + n > WARM_STRINGS_BYTES_MAX || s->n >= UINT32_MAX / 4)
                return -E2BIG;
        if (s->n_bytes + n > s->n_bytes_max) {
                uint64_t more = 2 * s->n_bytes_max + n;
                char *bytes = realloc(s->bytes, more);

                if (!bytes)
                        return -ENOMEM;
                s->bytes = bytes;
                s->n_bytes_max = more;
        }
        if (s->n == s->n_max) {
                uint32_t more = 2 * s->n_max;
                uint32_t *at = realloc(s->at, ((size_t) more + 1) * sizeof *at);

                if (!at)
                        return -ENOMEM;
                s->at = at;
                s->n_max = more;
        }
        if (2 * s->n_indexed >= s->n_slots) {
                uint64_t *slots = calloc(2 * (size_t) s->n_slots, sizeof *slots);

                if (!slots)
                        return -ENOMEM;
                for (uint32_t i = 0; i < s->n_slots; i++)
                        if (s->slots[i])
                                place(slots, 2 * s->n_slots, s->slots[i]);
                free(s->slots);
                s->slots = slots;
                s->n_slots *= 2;
        }
        return 0;
}

int warm_strings_add(struct warm_strings *s, const void *data, size_t n) {
        int r = grow(s, n);

        if (r < 0)
                return r;
        if (n)
                memcpy(s->bytes + s->n_bytes, data, n);
        s->n_bytes += n;
        s->at[++s->n] = (uint32_t) s->n_bytes;
        return 0;
}

static uint32_t find(const struct warm_strings *s, uint32_t hash, const void *data, size_t n) {
        for (uint32_t i = hash & (s->n_slots - 1); s->slots[i]; i = (i + 1) & (s->n_slots - 1)) {
                uint32_t number = (uint32_t) s->slots[i] - 1;

                if (s->slots[i] >> 32 == hash && s->at[number + 1] - s->at[number] == n &&
                    memcmp(s->bytes + s->at[number], data, n) == 0)
                        return number;
        }
        return WARM_STRINGS_NONE;
}

int warm_strings_intern(struct warm_strings *s, const void *data, size_t n, uint32_t *ret_number) {
        uint32_t hash = hash_of(data, n), number = find(s, hash, data, n);
        int r;

        if (number == WARM_STRINGS_NONE) {
                number = s->n;
                r = warm_strings_add(s, data, n);
                if (r < 0)
                        return r;
                place(s->slots, s->n_slots, (uint64_t) hash << 32 | s->n);
                s->n_indexed++;
        }
        *ret_number = number;
        return 0;
}

uint32_t warm_strings_find(const struct warm_strings *s, const void *data, size_t n) {
        return find(s, hash_of(data, n), data, n);
}

uint64_t warm_strings_memory_bytes(const struct warm_strings *s) {
        return s->n_bytes_max + ((uint64_t) s->n_max + 1) * sizeof *s->at +
               (uint64_t) s->n_slots * sizeof *s->slots;
}
