/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a model file: opened, or refused by a typed error with a sentence. An opened one tokenizes. */
#include <errno.h>
#include <stdlib.h>

#include "daemon/model/model.h"
#include "fuzz.h"

static void check(int promise) {
        if (!promise)
                abort();
}

/* Every byte string tokenizes, if the vocabulary says it can. */
static void use(struct warm_model *m) {
        static const char text[] = "int main(void) {\n\treturn \"\xc3\xa4\xff\"; }\n";
        int32_t ids[sizeof text + 1];
        size_t n_ids = 0;
        int r = warm_vocab_tokenize(m->vocab, text, sizeof text - 1, WARM_TOKENIZE_START, ids,
                                    sizeof text + 1, &n_ids);

        check(r == 0);
        for (size_t i = 0; i < n_ids; i++)
                check(ids[i] >= 0 && (uint32_t) ids[i] < warm_vocab_n_tokens(m->vocab));
        check(m->plan.n_vocab == warm_vocab_n_tokens(m->vocab));
        for (uint32_t i = 0; i < m->format.n_ends; i++)
                check(m->format.ends[i] >= 0 && (uint32_t) m->format.ends[i] < m->plan.n_vocab);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        struct warm_model *m = NULL;
        char *why = NULL;
        int r = warm_model_open_bytes(data, n, "fuzz", NULL, &m, &why);

        if (r == 0)
                use(m);
        else
                check((r == -EBADMSG || r == -EOPNOTSUPP) && why && why[0]);
        free(why);
        warm_model_free(m);
        return 0;
}
