/* SPDX-License-Identifier: Apache-2.0 */
#include "model/cost.h"

static void add_matrix(struct warm_cost *c, const struct warm_tensor *t) {
        c->weights_bytes += t->bytes;
        c->row_flop += 2 * t->n_cols * t->n_rows;
}

static void add_layer(struct warm_cost *c, const struct warm_plan_layer *l) {
        const struct warm_tensor *const matrices[] = { &l->q,    &l->k,  &l->v,   &l->o,
                                                       &l->gate, &l->up, &l->down };
        const struct warm_tensor *const vectors[] = {
                &l->mixer_norm, &l->mixer_post_norm, &l->ffn_norm,  &l->ffn_post_norm, &l->q_bias,
                &l->k_bias,     &l->v_bias,          &l->o_bias,    &l->q_norm,        &l->k_norm,
                &l->gate_bias,  &l->up_bias,         &l->down_bias,
        };

        for (unsigned i = 0; i < sizeof(matrices) / sizeof(matrices[0]); i++)
                add_matrix(c, matrices[i]);
        for (unsigned i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++)
                c->weights_bytes += vectors[i]->bytes;
        c->visible_flop += 2 * (uint64_t) l->n_heads * (l->head_dim_k + l->head_dim_v);
}

void warm_cost_of_plan(const struct warm_plan *plan, struct warm_cost *ret_cost) {
        const struct warm_tensor *output =
                plan->output.n_rows > 0 ? &plan->output : &plan->embedding;
        struct warm_cost c = {
                .weights_bytes = output->bytes + plan->output_norm.bytes + plan->output_bias.bytes,
                .output_flop = 2 * output->n_cols * output->n_rows,
        };

        for (uint32_t i = 0; i < plan->n_layers; i++)
                add_layer(&c, &plan->layers[i]);
        *ret_cost = c;
}
