/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenize-file MODEL [-p PRE] [-s]: tokenize each file named on standard input, one a line; print the ids of each on one
 * line, in JSON. -p replaces the pre-tokenizer, -s tokenizes as the start of a document. For compare-tokens.py.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "read-vocab.h"

static void print_file(const struct warm_vocab *v, const char *path, unsigned flags) {
        FILE *f = fopen(path, "rb");
        size_t n, n_ids;
        char *text;
        int32_t *ids;

        assert(f);
        fseek(f, 0, SEEK_END);
        n = (size_t) ftell(f);
        rewind(f);
        text = malloc(n + 1);
        ids = malloc((n + 1) * sizeof *ids);
        assert(text && ids && fread(text, 1, n, f) == n);
        fclose(f);
        if (warm_vocab_tokenize(v, text, n, flags, ids, n + 1, &n_ids) < 0)
                abort();
        putchar('[');
        for (size_t i = 0; i < n_ids; i++)
                printf("%s%d", i ? ", " : "", ids[i]);
        puts("]");
        fflush(stdout);
        free(text);
        free(ids);
}

int main(int argc, char **argv) {
        const char *pre = NULL;
        unsigned flags = 0;
        struct warm_vocab *v;
        char *line = NULL;
        size_t n_line = 0;
        ssize_t n;
        int c;

        while (c = getopt(argc, argv, "p:s"), c >= 0) {
                if (c == 'p')
                        pre = optarg;
                else if (c == 's')
                        flags = WARM_TOKENIZE_START;
                else
                        return 2;
        }
        if (optind + 1 != argc)
                return 2;
        v = read_vocab(argv[optind], pre);
        while (n = getline(&line, &n_line, stdin), n > 0) {
                line[strcspn(line, "\n")] = 0;
                print_file(v, line, flags);
        }
        free(line);
        warm_vocab_free(v);
        return 0;
}
