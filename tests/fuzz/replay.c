/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz-X-replay [--mutations N] [--seed S] [--only K] FILE...
 *
 * Feed a fuzz target without libFuzzer: each file as it is, then N mutations of them, a function of the seed alone. If
 * one ends the process, its number is printed; `--only K` repeats it. Half of all edits fall into the first 4 KiB,
 * where formats keep their headers. WARM_SEED sets the seed where the command line does not.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz.h"

#define HEAD_BYTES 4096U
#define EDITS_MAX  8U

struct file {
        const char *path;
        uint8_t *data;
        size_t n;
};

static uint64_t seed = 1;
static uint64_t current; /* mutation under way, for the report */

/* Provided by sanitizers only. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static void report(void) {
        char line[96];
        int n = snprintf(line, sizeof line, "mutation %" PRIu64 " of seed %" PRIu64 " failed\n",
                         current, seed);

        if (n > 0 && write(STDERR_FILENO, line, (size_t) n) < 0)
                _exit(1);
}

static void on_signal(int number) {
        report();
        (void) signal(number, SIG_DFL);
        (void) raise(number);
}

/* splitmix64 (Steele et al. 2014). */
static uint64_t next_random(uint64_t *state) {
        uint64_t z = *state += 0x9e3779b97f4a7c15;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
}

static size_t random_place(uint64_t *state, size_t n) {
        size_t within = next_random(state) % 2 && n > HEAD_BYTES ? HEAD_BYTES : n;

        return within > 0 ? next_random(state) % within : 0;
}

/* Overwrite up to 8 bytes with a number that code likes to get wrong. */
static void put_interesting(uint64_t *state, uint8_t *data, size_t n, size_t at) {
        static const uint64_t numbers[] = {
                0,
                1,
                2,
                7,
                8,
                9,
                31,
                32,
                64,
                127,
                128,
                255,
                256,
                4095,
                65535,
                65536,
                INT32_MAX,
                1ULL << 31,
                UINT32_MAX,
                1ULL << 32,
                INT64_MAX,
                1ULL << 63,
                UINT64_MAX - 31,
                UINT64_MAX,
        };
        uint64_t number = numbers[next_random(state) % (sizeof numbers / sizeof numbers[0])];
        size_t width = (size_t) 1 << next_random(state) % 4;

        memcpy(data + at, &number, width < n - at ? width : n - at);
}

/* One edit of data[n], which has room for twice n and 64 bytes. Return: the new length. */
static size_t edit(uint64_t *state, uint8_t *data, size_t n) {
        size_t at = random_place(state, n), from = random_place(state, n);
        size_t length = 1 + next_random(state) % 32;

        if (n == 0)
                return 0;
        switch (next_random(state) % 8) {
        case 0: /* one bit */
                data[at] ^= (uint8_t) (1U << next_random(state) % 8);
                return n;
        case 1: /* one byte */
                data[at] = (uint8_t) next_random(state);
                return n;
        case 2: /* bytes from elsewhere */
                length = length < n - at ? length : n - at;
                length = length < n - from ? length : n - from;
                memmove(data + at, data + from, length);
                return n;
        case 3: /* cut the end off */
                return at;
        case 4: /* leave bytes out */
                length = length < n - at ? length : n - at;
                memmove(data + at, data + at + length, n - at - length);
                return n - length;
        case 5: /* repeat bytes */
                length = length < n - at ? length : n - at;
                memmove(data + at + length, data + at, n - at);
                return n + length;
        default:
                put_interesting(state, data, n, at);
                return n;
        }
}

static void run(const uint8_t *data, size_t n) {
        /* Exactly n bytes, so that a sanitizer sees the first byte read beyond them. */
        uint8_t *exact = malloc(n > 0 ? n : 1);

        if (!exact)
                abort();
        if (n > 0)
                memcpy(exact, data, n);
        (void) LLVMFuzzerTestOneInput(exact, n);
        free(exact);
}

static void run_mutation(const struct file *files, size_t n_files, uint64_t k) {
        uint64_t state = seed * 0x9e3779b97f4a7c15 + k;
        const struct file *file = &files[next_random(&state) % n_files];
        size_t n = file->n, n_edits = 1 + next_random(&state) % EDITS_MAX;
        uint8_t *data = malloc(n + EDITS_MAX * 32);

        if (!data)
                abort();
        memcpy(data, file->data, n);
        current = k;
        for (size_t i = 0; i < n_edits; i++)
                n = edit(&state, data, n);
        run(data, n);
        free(data);
}

static bool read_file(const char *path, struct file *ret_file) {
        FILE *f = fopen(path, "rbe");
        long n = -1;

        *ret_file = (struct file){ .path = path };
        if (f && fseek(f, 0, SEEK_END) == 0)
                n = ftell(f);
        if (n >= 0) {
                rewind(f);
                ret_file->data = malloc((size_t) n + 1);
                ret_file->n = ret_file->data ? fread(ret_file->data, 1, (size_t) n, f) : 0;
        }
        if (f)
                (void) fclose(f);
        if (n < 0 || !ret_file->data || ret_file->n != (size_t) n) {
                (void) fprintf(stderr, "%s: cannot be read\n", path);
                return false;
        }
        return true;
}

/* Options in front of the files. Return: the index of the first file, or -1. */
static int parse(int argc, char **argv, uint64_t *ret_mutations, uint64_t *ret_only) {
        int i = 1;

        for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
                uint64_t v = strtoull(argv[i + 1], NULL, 0);

                if (strcmp(argv[i], "--mutations") == 0)
                        *ret_mutations = v;
                else if (strcmp(argv[i], "--seed") == 0)
                        seed = v;
                else if (strcmp(argv[i], "--only") == 0)
                        *ret_only = v;
                else
                        return -1;
        }
        return i < argc && strncmp(argv[i], "--", 2) != 0 ? i : -1;
}

int main(int argc, char **argv) {
        const char *from_environment = getenv("WARM_SEED");
        uint64_t mutations = 0, only = UINT64_MAX;
        struct file *files;
        int first, n_files;

        if (from_environment)
                seed = strtoull(from_environment, NULL, 0);
        first = parse(argc, argv, &mutations, &only);
        if (first < 0) {
                (void) fprintf(stderr, "usage: %s [--mutations N] [--seed S] [--only K] FILE...\n",
                               argv[0]);
                return 2;
        }
        if (__sanitizer_set_death_callback)
                __sanitizer_set_death_callback(report);
        (void) signal(SIGABRT, on_signal);
        if (!__sanitizer_set_death_callback) {
                (void) signal(SIGSEGV, on_signal);
                (void) signal(SIGBUS, on_signal);
                (void) signal(SIGFPE, on_signal);
        }
        n_files = argc - first;
        files = calloc((size_t) n_files, sizeof *files);
        if (!files)
                return 1;
        for (int i = 0; i < n_files; i++)
                if (!read_file(argv[first + i], &files[i]))
                        return 1;
        current = UINT64_MAX;
        for (int i = 0; i < n_files && only == UINT64_MAX; i++)
                run(files[i].data, files[i].n);
        if (only != UINT64_MAX)
                run_mutation(files, (size_t) n_files, only);
        for (uint64_t k = 0; k < mutations && only == UINT64_MAX; k++)
                run_mutation(files, (size_t) n_files, k);
        printf("%d files and %" PRIu64 " mutations of seed %" PRIu64 "\n", n_files, mutations,
               seed);
        for (int i = 0; i < n_files; i++)
                free(files[i].data);
        free(files);
        return 0;
}
