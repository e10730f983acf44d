/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "corpus.h"

char *corpus_read(const char *const *names, size_t n_names, size_t n_max, size_t *ret_n) {
        const char *root = getenv("WARM_SOURCE_ROOT");
        char *text = malloc(n_max);
        size_t n = 0;

        assert_non_null(text);
        for (size_t i = 0; i < n_names; i++) {
                char path[4096];
                FILE *f;

                snprintf(path, sizeof(path), "%s/%s", root ? root : ".", names[i]);
                f = fopen(path, "re");
                if (!f)
                        fail_msg("%s cannot be read", path);
                n += fread(text + n, 1, n_max - n, f);
                fclose(f);
        }
        *ret_n = n;
        return text;
}
