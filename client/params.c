/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "client-internal.h"

enum param_type { PARAM_TEXT, PARAM_UINT, PARAM_DOUBLE, PARAM_BOOL, PARAM_IDS };

struct param {
        char *key;  /* owned */
        void *data; /* owned; text, or ids */
        size_t n;
        uint64_t uint;
        double number;
        enum param_type type;
};

#define PARAMS_MAX 64U

struct warm_client_params {
        struct param params[PARAMS_MAX];
        uint32_t n_params;
        int error; /* the first; writing them reports it */
};

struct warm_client_params *warm_client_params_new(void) {
        return calloc(1, sizeof(struct warm_client_params));
}

struct warm_client_params *warm_client_params_free(struct warm_client_params *p) {
        if (!p)
                return NULL;
        for (uint32_t i = 0; i < p->n_params; i++) {
                free(p->params[i].key);
                free(p->params[i].data);
        }
        free(p);
        return NULL;
}

/* The next one, with its key and a copy of n bytes of data. NULL: an error was kept. */
static struct param *add(struct warm_client_params *p, const char *key, enum param_type type,
                         const void *data, size_t n) {
        struct param *a = &p->params[p->n_params];

        if (p->error)
                return NULL;
        if (p->n_params == PARAMS_MAX || n > WARM_FRAME_BYTES_MAX) {
                p->error = WARM_WIRE_E_FULL;
                return NULL;
        }
        *a = (struct param){
                .key = strdup(key), .type = type, .n = n, .data = n ? malloc(n) : NULL
        };
        if (!a->key || (n && !a->data)) {
                free(a->key);
                free(a->data);
                p->error = -ENOMEM;
                return NULL;
        }
        if (n)
                memcpy(a->data, data, n);
        p->n_params++;
        return a;
}

void warm_client_params_text(struct warm_client_params *p, const char *key, const void *data,
                             size_t n) {
        (void) add(p, key, PARAM_TEXT, data, n);
}

void warm_client_params_ids(struct warm_client_params *p, const char *key, const int32_t *ids,
                            size_t n) {
        (void) add(p, key, PARAM_IDS, ids, n * sizeof(*ids));
}

void warm_client_params_uint(struct warm_client_params *p, const char *key, uint64_t value) {
        struct param *a = add(p, key, PARAM_UINT, NULL, 0);

        if (a)
                a->uint = value;
}

void warm_client_params_double(struct warm_client_params *p, const char *key, double value) {
        struct param *a = add(p, key, PARAM_DOUBLE, NULL, 0);

        if (a)
                a->number = value;
}

void warm_client_params_bool(struct warm_client_params *p, const char *key, bool value) {
        struct param *a = add(p, key, PARAM_BOOL, NULL, 0);

        if (a)
                a->uint = value;
}

static void write_value(const struct param *a, struct warm_writer *w) {
        switch (a->type) {
        case PARAM_TEXT:
                warm_write_text(w, a->data ? a->data : "", a->n);
                break;
        case PARAM_UINT:
                warm_write_uint(w, a->uint);
                break;
        case PARAM_DOUBLE:
                warm_write_double(w, a->number);
                break;
        case PARAM_BOOL:
                warm_write_bool(w, a->uint);
                break;
        case PARAM_IDS:
                warm_write_ids(w, a->data, (uint32_t) (a->n / sizeof(int32_t)));
        }
}

void warm_client_params_write(const struct warm_client_params *p, struct warm_writer *w) {
        warm_write_map(w, p ? p->n_params : 0);
        if (p && p->error && w->error == 0)
                w->error = p->error;
        for (uint32_t i = 0; p && i < p->n_params; i++) {
                warm_write_string(w, p->params[i].key);
                write_value(&p->params[i], w);
        }
}
