/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "dump-plan.h"

struct dump {
        FILE *json, *tensors, *raw;
        uint64_t at, raw_at;
};

FILE *dump_create(const char *folder, const char *name) {
        char path[4096];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", folder, name);
        f = fopen(path, "w");
        if (!f) {
                perror(path);
                exit(1);
        }
        return f;
}

void dump_put(FILE *f, const void *data, size_t bytes) {
        if (fwrite(data, 1, bytes, f) != bytes)
                exit(1);
}

static void put_tensor(struct dump *d, const char *name, const struct warm_tensor *t) {
        uint64_t n = t->n_rows * t->n_cols;
        float *values;

        if (!t->data)
                return;
        values = malloc(n * sizeof(*values));
        if (!values)
                exit(1);
        warm_type_dequantize(t->type, t->data, n, values);
        dump_put(d->tensors, values, n * sizeof(*values));
        dump_put(d->raw, t->data, t->bytes);
        fprintf(d->json,
                "\"%s\": {\"type\": \"%s\", \"rows\": %" PRIu64 ", \"cols\": %" PRIu64
                ", \"at\": %" PRIu64 ", \"raw\": %" PRIu64 ", \"bytes\": %" PRIu64 "},\n",
                name, warm_type_info(t->type)->name, t->n_rows, t->n_cols, d->at, d->raw_at,
                t->bytes);
        d->at += n;
        d->raw_at += t->bytes;
        free(values);
}

static void put_rope(struct dump *d, const struct warm_rope_params *p) {
        FILE *f = d->json;

        fprintf(f,
                "\"rope\": {\"kind\": %d, \"scaling\": %d, \"n_dims\": %u, \"base\": %.9g, "
                "\"scale\": %.9g, "
                "\"attention_factor\": %.9g, \"ext\": %.9g, \"fast\": %.9g, \"slow\": %.9g, "
                "\"original\": %u",
                p->kind, p->scaling, p->n_dims, (double) p->base, (double) p->scale,
                (double) p->attention_factor, (double) p->yarn_ext, (double) p->yarn_beta_fast,
                (double) p->yarn_beta_slow, p->n_context_original);
        for (uint32_t i = 0; p->factors && i < p->n_dims / 2; i++)
                fprintf(f, "%s%.9g", i ? ", " : ", \"factors\": [", (double) p->factors[i]);
        fprintf(f, "%s},\n", p->factors ? "]" : "");
}

static void put_layer(struct dump *d, const struct warm_plan_layer *l) {
        const struct {
                const char *name;
                const struct warm_tensor *tensor;
        } tensors[] = {
                { "mixer_norm", &l->mixer_norm },
                { "ffn_norm", &l->ffn_norm },
                { "q", &l->q },
                { "k", &l->k },
                { "v", &l->v },
                { "o", &l->o },
                { "q_bias", &l->q_bias },
                { "k_bias", &l->k_bias },
                { "v_bias", &l->v_bias },
                { "o_bias", &l->o_bias },
                { "q_norm", &l->q_norm },
                { "k_norm", &l->k_norm },
                { "gate", &l->gate },
                { "up", &l->up },
                { "down", &l->down },
                { "gate_bias", &l->gate_bias },
                { "up_bias", &l->up_bias },
                { "down_bias", &l->down_bias },
        };

        fprintf(d->json, "{");
        for (size_t i = 0; i < sizeof(tensors) / sizeof(*tensors); i++)
                put_tensor(d, tensors[i].name, tensors[i].tensor);
        put_rope(d, &l->rope);
        fprintf(d->json,
                "\"n_heads\": %u, \"n_kv_heads\": %u, \"head_dim_k\": %u, \"head_dim_v\": %u, "
                "\"window\": %u, "
                "\"attention_scale\": %.9g, \"soft_cap\": %.9g, \"epsilon\": %.9g, "
                "\"residual_scale\": %.9g, "
                "\"ffn\": %d, \"activation\": %d}",
                l->n_heads, l->n_kv_heads, l->head_dim_k, l->head_dim_v, l->window,
                (double) l->attention_scale, (double) l->attention_soft_cap,
                (double) l->norm_epsilon, (double) l->residual_scale, l->ffn, l->activation);
}

static void put_plan(struct dump *d, const struct warm_plan *p) {
        fprintf(d->json, "{");
        put_tensor(d, "embedding", &p->embedding);
        put_tensor(d, "output", &p->output);
        put_tensor(d, "output_norm", &p->output_norm);
        put_tensor(d, "output_bias", &p->output_bias);
        fprintf(d->json,
                "\"epsilon\": %.9g, \"embedding_scale\": %.9g, \"logit_scale\": %.9g, "
                "\"soft_cap\": %.9g,\n"
                "\"layers\": [",
                (double) p->norm_epsilon, (double) p->embedding_scale, (double) p->logit_scale,
                (double) p->logit_soft_cap);
        for (uint32_t i = 0; i < p->n_layers; i++) {
                put_layer(d, &p->layers[i]);
                fprintf(d->json, i + 1 < p->n_layers ? ",\n" : "]}\n");
        }
}

void dump_plan(const char *folder, const struct warm_plan *p) {
        struct dump d = {
                .json = dump_create(folder, "plan.json"),
                .tensors = dump_create(folder, "tensors.f32"),
                .raw = dump_create(folder, "tensors.raw"),
        };

        put_plan(&d, p);
        if (fclose(d.json) || fclose(d.tensors) || fclose(d.raw))
                exit(1);
}
