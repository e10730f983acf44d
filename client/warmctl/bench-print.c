/* SPDX-License-Identifier: Apache-2.0 */
/* What warmctl bench found, as a table or as one line of JSON. */
#include <json-c/json.h>

#include "bench.h"

/* Of one kind, ascending. */
struct series {
        const char *name, *key;
        double values[BENCH_ROUNDS];
        size_t n;
};

#define N_SERIES 5U

static void collect(const struct bench *b, struct series *series) {
        for (size_t i = 0; i < BENCH_ROUNDS; i++) {
                const struct bench_sample *s = &b->samples[i];

                series[0].values[series[0].n++] = s->cold_ms;
                series[1].values[series[1].n++] = s->warm_ms;
                series[2].values[series[2].n++] = s->prefill_tokens;
                if (s->decoded)
                        series[3].values[series[3].n++] = s->decode_ms;
                series[4].values[series[4].n++] = s->socket_us;
        }
        for (size_t i = 0; i < N_SERIES; i++)
                bench_sort(series[i].values, series[i].n);
}

/* ---- JSON ---- */

static void add(struct json_object *o, const char *key, double value) {
        json_object_object_add(o, key, json_object_new_double(value));
}

/* null where it is not known */
static void add_known(struct json_object *o, const char *key, double value) {
        json_object_object_add(o, key, value > 0 ? json_object_new_double(value) : NULL);
}

static struct json_object *row_json(const struct bench_row *row) {
        struct json_object *o = json_object_new_object();
        double ms = bench_row_ms(row);

        json_object_object_add(o, "name", json_object_new_string(row->name));
        json_object_object_add(o, "depth", json_object_new_int64(row->depth));
        json_object_object_add(o, "batch", json_object_new_int64(row->batch));
        json_object_object_add(o, "tokens", json_object_new_int64(row->n_tokens));
        add(o, "bytes", row->bytes);
        add(o, "flop", row->flop);
        add_known(o, "floor_ms", row->floor_ms);
        add_known(o, "measured_ms", ms);
        add_known(o, "low_ms", row->n_ms ? row->ms[0] : 0);
        add_known(o, "high_ms", row->n_ms ? row->ms[row->n_ms - 1] : 0);
        add_known(o, "tokens_per_s", ms > 0 ? 1e3 * row->batch * row->n_tokens / ms : 0);
        add_known(o, "share", bench_row_share(row));
        return o;
}

static struct json_object *model_json(const struct bench_model *m) {
        struct json_object *o = json_object_new_object();

        json_object_object_add(o, "name", json_object_new_string(m->name));
        json_object_object_add(o, "quantization", json_object_new_string(m->quantization));
        json_object_object_add(o, "context", json_object_new_int64(m->context));
        add(o, "weights_bytes", m->weights_bytes);
        add(o, "kv_token_bytes", m->kv_token_bytes);
        add(o, "row_flop", m->row_flop);
        add(o, "visible_flop", m->visible_flop);
        add(o, "output_flop", m->output_flop);
        return o;
}

static struct json_object *machine_json(const struct bench_machine *m) {
        struct json_object *o = json_object_new_object();

        json_object_object_add(o, "backend", json_object_new_string(m->backend));
        json_object_object_add(o, "description", json_object_new_string(m->description));
        add_known(o, "copy_bytes_per_s", m->copy_bytes_per_s);
        add_known(o, "matmul_flop_per_s", m->flop_per_s);
        return o;
}

static void print_json(const struct bench *b, const struct series *series) {
        struct json_object *o = json_object_new_object(), *rows = json_object_new_array();

        for (size_t i = 0; i < N_SERIES; i++) {
                const struct series *s = &series[i];
                struct json_object *x = json_object_new_object();

                add(x, "median", s->n ? s->values[s->n / 2] : 0);
                add(x, "low", s->n ? s->values[0] : 0);
                add(x, "high", s->n ? s->values[s->n - 1] : 0);
                json_object_object_add(o, s->key, x);
        }
        json_object_object_add(o, "machine", machine_json(&b->machine));
        json_object_object_add(o, "model", model_json(&b->model));
        for (uint32_t i = 0; i < b->n_rows; i++)
                json_object_array_add(rows, row_json(&b->rows[i]));
        json_object_object_add(o, "rows", rows);
        puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN |
                                                       JSON_C_TO_STRING_NOSLASHESCAPE));
        json_object_put(o);
}

/* ---- The table ---- */

static void print_number(double value, int width, int digits) {
        if (value > 0)
                printf(" %*.*f", width, digits, value);
        else
                printf(" %*s", width, "-");
}

static void print_row(const struct bench_row *row) {
        double ms = bench_row_ms(row), share = bench_row_share(row);

        printf("%-10s %6u %5u %6u", row->name, row->depth, row->batch, row->n_tokens);
        print_number(row->bytes / 1e6, 10, 1);
        print_number(row->flop / 1e9, 10, 2);
        print_number(row->floor_ms, 10, 3);
        print_number(ms, 11, 3);
        print_number(ms > 0 ? 1e3 * row->batch * row->n_tokens / ms : 0, 10, 1);
        if (share > 0)
                printf(" %5.1f%%\n", 100 * share);
        else
                printf(" %6s\n", "-");
}

static void print_table(const struct bench *b, const struct series *series) {
        printf("%-44s %10s   %s\n", "", "median", "lowest .. highest");
        for (size_t i = 0; i < N_SERIES; i++) {
                const struct series *s = &series[i];

                if (s->n > 0)
                        printf("%-44s %10.2f   %.2f .. %.2f\n", s->name, s->values[s->n / 2],
                               s->values[0], s->values[s->n - 1]);
        }
        printf("\n%s, %s", b->model.name, b->model.quantization);
        if (b->machine.backend[0])
                printf(", on %s: %s", b->machine.backend, b->machine.description);
        if (b->machine.copy_bytes_per_s > 0 && b->machine.flop_per_s > 0)
                printf("\ncopies %.1f GB/s, multiplies %.3f TFLOP/s\n",
                       b->machine.copy_bytes_per_s / 1e9, b->machine.flop_per_s / 1e12);
        else
                printf("\nwhat the device can do at most is not known: no floor\n");
        printf("\n%-10s %6s %5s %6s %10s %10s %10s %11s %10s %6s\n", "", "depth", "batch", "tokens",
               "MB", "GFLOP", "floor ms", "measured ms", "tokens/s", "share");
        for (uint32_t i = 0; i < b->n_rows; i++)
                print_row(&b->rows[i]);
}

void bench_print(const struct bench *b) {
        struct series series[N_SERIES] = {
                { .name = "first token, nothing cached, ms", .key = "cold_ms" },
                { .name = "first token after one typed character, ms", .key = "warm_ms" },
                { .name = "prefill, tokens/s", .key = "prefill_tokens_per_s" },
                { .name = "decode, ms a token", .key = "decode_ms" },
                { .name = "socket and client beside the daemon, us", .key = "socket_us" },
        };

        collect(b, series);
        if (b->ctl->json)
                print_json(b, series);
        else
                print_table(b, series);
}
