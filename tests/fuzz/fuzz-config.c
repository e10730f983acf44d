/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration out of arbitrary bytes. What is refused says why, and names the file; what is read can be let go of,
 * and keeps the limits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "sys/config.h"

static void must(bool holds) {
        if (!holds)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        struct warm_config c;
        char *why = NULL;
        int r;

        warm_config_init(&c);
        r = warm_config_parse(&c, "fuzz.conf", (const char *) data, n, &why);
        must(r == 0 || r == -EINVAL || r == -E2BIG || r == -ENOMEM);
        must((r == 0 || r == -ENOMEM) == (why == NULL));
        must(!why || strncmp(why, "fuzz.conf", 9) == 0);
        must(c.n_models <= WARM_CONFIG_MODELS_MAX && c.n_threads <= 1024 && c.chunk_ms <= 1000);
        for (size_t i = 0; i < c.n_models; i++)
                must(c.models[i].path || c.models[i].section);
        free(why);
        warm_config_deinit(&c);
        return 0;
}
