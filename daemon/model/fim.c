/* SPDX-License-Identifier: Apache-2.0 */
/* See fim.h. */
#include <errno.h>
#include <string.h>

#include "fim.h"
#include "why.h"

#define PSM  (1U << WARM_ORDER_PSM)
#define SPM  (1U << WARM_ORDER_SPM_JOINT)
#define NONE UINT32_MAX

/*
 * Names of marks. Sources: model cards and papers of each family, and the names llama.cpp looks for.
 *
 * orders: both only where the family is known to have been trained in both (StarCoder, SantaCoder, Granite Code:
 * one permutation code, half psm, half spm-joint; Code Llama: the same halves, section 2.3 of its paper).
 *
 * Codestral and Seed-Coder have the suffix in front: [SUFFIX]suffix[PREFIX]prefix with no mark for the middle, and
 * <[fim-suffix]>suffix<[fim-prefix]>prefix<[fim-middle]>. Both count as spm-joint; prompt.c lays them out.
 */
static const struct family {
        const char *pre, *suf, *mid;
        uint32_t orders;
        const char *end; /* one more mark that ends a text, and nothing else */
} families[] = {
        { "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", PSM, NULL }, /* Qwen, CodeGemma */
        { "<fim_prefix>", "<fim_suffix>", "<fim_middle>", PSM | SPM,
          NULL }, /* StarCoder, Granite */
        { "<fim-prefix>", "<fim-suffix>", "<fim-middle>", PSM | SPM, NULL }, /* SantaCoder */
        { "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", PSM, NULL }, /* DeepSeek-Coder */
        { "▁<PRE>", "▁<SUF>", "▁<MID>", PSM | SPM, "▁<EOT>" },               /* Code Llama */
        { "<PRE>", "<SUF>", "<MID>", PSM | SPM, "<EOT>" },
        { "[PREFIX]", "[SUFFIX]", NULL, SPM, "[MIDDLE]" },                      /* Codestral */
        { "<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", SPM, NULL },    /* Seed-Coder */
        { "<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", PSM, NULL }, /* GLM */
        { "<|prefix|>", "<|suffix|>", "<|middle|>", PSM, NULL },
};

/* Names that count only where the file says control or user token: some of them are words of HTML. */
static const char *const pad_names[] = { "<|fim_pad|>", "<fim_pad>", "<fim-pad>", "<PAD>", NULL };
static const char *const repo_names[] = {
        "<|repo_name|>", "<|fim_repo|>", "<repo_name>", "<reponame>", "<fim-repo>", "<REPO>", NULL
};
static const char *const sep_names[] = { "<|file_sep|>", "<|file_separator|>", "<file_sep>",
                                         "<filename>", NULL };
static const char *const eot_names[] = {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|EOT|>", "<EOT>", "▁<EOT>", NULL,
};
static const char *const end_names[] = {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|EOT|>",
        "<EOT>",
        "▁<EOT>",
        "<|eom_id|>",
        "</s>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<｜end▁of▁sentence｜>",
        "<[end▁of▁sentence]>",
        "<eos>",
        NULL,
};

struct finder {
        const struct warm_gguf *g;
        struct warm_tokens *tokens;
        struct warm_prompt_format format;
        const struct family *family;
        uint32_t *marks; /* [n_marks] tokens spelled like one, so that few are compared; owned */
        uint32_t n_marks;
        int32_t ends[WARM_FIM_ENDS_MAX];
        char **ret_why;
};

static const char *const order_names[] = {
        [WARM_ORDER_NONE] = "none",
        [WARM_ORDER_PSM] = "psm",
        [WARM_ORDER_SPM_JOINT] = "spm-joint",
};

const char *warm_order_name(enum warm_order order) {
        return order_names[order];
}

/* Return: the order of that name, or NONE. */
static uint32_t order_of(struct warm_string name) {
        for (uint32_t i = 0; i < sizeof order_names / sizeof order_names[0]; i++)
                if (warm_string_is(name, order_names[i]))
                        return i;
        return NONE;
}

/* All names in the lists above begin with '<', '[' or U+2581 and end with '>' or ']'. */
static int find_candidates(struct finder *f) {
        uint32_t n_tokens = f->tokens->config.n_tokens;

        f->marks = malloc(n_tokens * sizeof *f->marks);
        if (!f->marks)
                return -ENOMEM;
        for (uint32_t i = 0; i < n_tokens; i++) {
                struct warm_string s = f->tokens->tokens[i];

                if (s.n > 2 && (s.data[s.n - 1] == '>' || s.data[s.n - 1] == ']') &&
                    (s.data[0] == '<' || s.data[0] == '[' || s.data[0] == "▁"[0]))
                        f->marks[f->n_marks++] = i;
        }
        return 0;
}

/* The first mark of exactly that name, or -1. */
static int32_t find_name(const struct finder *f, const char *name) {
        for (uint32_t i = 0; i < f->n_marks; i++)
                if (warm_string_is(f->tokens->tokens[f->marks[i]], name))
                        return (int32_t) f->marks[i];
        return -1;
}

/* The first token of any name that configuration chose, or -1. */
static int32_t find_any(const struct finder *f, const char *name) {
        for (uint32_t i = 0; i < f->tokens->config.n_tokens; i++)
                if (warm_string_is(f->tokens->tokens[i], name))
                        return (int32_t) i;
        return -1;
}

static bool is_special(const struct finder *f, int32_t id) {
        int32_t kind = f->tokens->kinds[id];

        return kind == WARM_TOKEN_CONTROL || kind == WARM_TOKEN_USER;
}

/* The first of these names that is a special token, or -1. */
static int32_t find_special(const struct finder *f, const char *const *names) {
        for (; *names; names++) {
                int32_t id = find_name(f, *names);

                if (id >= 0 && is_special(f, id))
                        return id;
        }
        return -1;
}

/* An id from the metadata, under its name or its older one. */
static int get_id(struct finder *f, const char *key, const char *older, int32_t *ret_id) {
        uint32_t n = f->tokens->config.n_tokens;
        int r = warm_tokens_get_id(f->g, key, n, ret_id, f->ret_why);

        if (r == 0 && *ret_id < 0 && older)
                r = warm_tokens_get_id(f->g, older, n, ret_id, f->ret_why);
        return r;
}

/* The family whose marks are all there. */
static const struct family *find_family(const struct finder *f) {
        for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
                const struct family *x = &families[i];

                if (find_name(f, x->pre) >= 0 && find_name(f, x->suf) >= 0 &&
                    (!x->mid || find_name(f, x->mid) >= 0))
                        return x;
        }
        return NULL;
}

/* The metadata's marks over the family's. */
static int find_marks(struct finder *f) {
        struct warm_prompt_format *format = &f->format;
        int32_t pre, suf, mid;
        int r = get_id(f, "tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id",
                       &pre);

        if (r == 0)
                r = get_id(f, "tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.suffix_token_id",
                           &suf);
        if (r == 0)
                r = get_id(f, "tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.middle_token_id",
                           &mid);
        if (r < 0)
                return r;
        f->family = find_family(f);
        format->pre = format->suf = format->mid = -1;
        if (f->family) {
                format->pre = find_name(f, f->family->pre);
                format->suf = find_name(f, f->family->suf);
                format->mid = f->family->mid ? find_name(f, f->family->mid) : -1;
                if ((pre >= 0 && pre != format->pre) || (suf >= 0 && suf != format->suf) ||
                    (f->family->mid && mid >= 0 && mid != format->mid))
                        f->family = NULL; /* other marks: their training is unknown */
                else
                        return 0;
        }
        format->pre = pre >= 0 ? pre : format->pre;
        format->suf = suf >= 0 ? suf : format->suf;
        format->mid = mid >= 0 ? mid : format->mid;
        return 0;
}

static int find_others(struct finder *f) {
        struct warm_prompt_format *format = &f->format;
        int r = get_id(f, "tokenizer.ggml.fim_pad_token_id", NULL, &format->pad);

        if (r == 0)
                r = get_id(f, "tokenizer.ggml.fim_rep_token_id", NULL, &format->repo);
        if (r == 0)
                r = get_id(f, "tokenizer.ggml.fim_sep_token_id", NULL, &format->file_sep);
        if (r == 0)
                r = get_id(f, "tokenizer.ggml.eot_token_id", NULL, &format->eot);
        if (r < 0)
                return r;
        if (format->pad < 0)
                format->pad = find_special(f, pad_names);
        if (format->repo < 0)
                format->repo = find_special(f, repo_names);
        if (format->file_sep < 0)
                format->file_sep = find_special(f, sep_names);
        if (format->eot < 0)
                format->eot = find_special(f, eot_names);
        return 0;
}

/* The names that configuration gives; an empty one means: none. */
static int apply_options(struct finder *f, const struct warm_model_options *o) {
        struct warm_prompt_format *format = &f->format;
        const struct {
                const char *option, *name;
                int32_t *id;
        } overrides[] = {
                { "fim-prefix", o->fim_pre, &format->pre },
                { "fim-suffix", o->fim_suf, &format->suf },
                { "fim-middle", o->fim_mid, &format->mid },
                { "fim-pad", o->fim_pad, &format->pad },
                { "repo-name", o->fim_repo, &format->repo },
                { "file-sep", o->fim_sep, &format->file_sep },
        };

        for (size_t i = 0; i < sizeof overrides / sizeof overrides[0]; i++) {
                if (!overrides[i].name)
                        continue;
                *overrides[i].id = -1;
                if (overrides[i].name[0] == '\0')
                        continue;
                *overrides[i].id = find_any(f, overrides[i].name);
                if (*overrides[i].id < 0)
                        return warm_why(f->ret_why, -EINVAL,
                                        "has no token named %s, which the option %s asks for",
                                        overrides[i].name, overrides[i].option);
                if (i < 3)
                        f->family = NULL;
        }
        return 0;
}

/* Orders that the file lists; names we do not know are somebody's future. Return: 0 or -errno. */
static int get_listed_orders(struct finder *f, uint32_t *ret_orders) {
        struct warm_string *names = NULL;
        uint32_t n = 0;
        int r = warm_gguf_get_strings(f->g, "warm.fim.orders", &names, &n, f->ret_why);

        if (r < 0)
                return r;
        if (r == 0)
                *ret_orders = 0;
        for (uint32_t i = 0; i < n; i++) {
                uint32_t order = order_of(names[i]);

                if (order != NONE)
                        *ret_orders |= 1U << order;
        }
        free(names);
        return 0;
}

static int choose_order(struct finder *f, const struct warm_model_options *o) {
        struct warm_prompt_format *format = &f->format;
        uint32_t orders = f->family ? f->family->orders : PSM;
        bool joint = format->pre >= 0 && format->suf >= 0, psm = joint && format->mid >= 0;
        int r = get_listed_orders(f, &orders);
        uint32_t order;

        if (r < 0)
                return r;
        orders &= (psm ? PSM : 0) | (joint ? SPM : 0);
        format->order = orders & SPM   ? WARM_ORDER_SPM_JOINT
                        : orders & PSM ? WARM_ORDER_PSM
                                       : WARM_ORDER_NONE;
        format->orders = orders;
        if (!o->order)
                return 0;
        order = order_of((struct warm_string){ o->order, strlen(o->order) });
        if (order == NONE)
                return warm_why(f->ret_why, -EINVAL,
                                "the option order is %s; it can be none, psm or spm-joint",
                                o->order);
        if ((order == WARM_ORDER_PSM && !psm) || (order == WARM_ORDER_SPM_JOINT && !joint))
                return warm_why(
                        f->ret_why, -EINVAL,
                        "has not the fill-in-the-middle marks that the order %s needs; name "
                        "them with fim-prefix, fim-suffix and fim-middle",
                        o->order);
        format->order = (enum warm_order) order;
        format->orders |= order == WARM_ORDER_NONE ? 0 : 1U << order;
        return 0;
}

static void add_end(struct finder *f, int32_t id) {
        if (id < 0)
                return;
        for (uint32_t i = 0; i < f->format.n_ends; i++)
                if (f->ends[i] == id)
                        return;
        if (f->format.n_ends < WARM_FIM_ENDS_MAX)
                f->ends[f->format.n_ends++] = id;
}

/* Marks are never text, whatever the file calls them. */
static void add_mark(struct finder *f, int32_t id) {
        if (id < 0)
                return;
        f->tokens->kinds[id] = WARM_TOKEN_CONTROL;
        add_end(f, id);
}

static int find_ends(struct finder *f) {
        const struct warm_prompt_format *format = &f->format;
        int32_t eom, *ends;
        int r = get_id(f, "tokenizer.ggml.eom_token_id", NULL, &eom);

        if (r < 0)
                return r;
        add_end(f, f->tokens->config.eos);
        add_end(f, format->eot);
        add_end(f, eom);
        for (const char *const *name = end_names; *name; name++) {
                int32_t id = find_name(f, *name);

                if (id >= 0 && is_special(f, id))
                        add_end(f, id);
        }
        add_mark(f, format->pre);
        add_mark(f, format->suf);
        add_mark(f, format->mid);
        add_mark(f, format->pad);
        add_mark(f, format->repo);
        add_mark(f, format->file_sep);
        if (f->family && f->family->end)
                add_mark(f, find_name(f, f->family->end));
        ends = malloc((format->n_ends + 1) * sizeof *ends);
        if (!ends)
                return -ENOMEM;
        memcpy(ends, f->ends, format->n_ends * sizeof *ends);
        f->format.ends = ends;
        return 0;
}

int warm_fim_find(const struct warm_gguf *g, const struct warm_model_options *options,
                  struct warm_tokens *tokens, struct warm_prompt_format *ret_format,
                  char **ret_why) {
        static const struct warm_model_options nothing = { 0 };
        struct finder f = { .g = g, .tokens = tokens, .ret_why = ret_why };
        const struct warm_model_options *o = options ? options : &nothing;
        int r;

        f.format.bos = tokens->config.add_bos ? tokens->config.bos : -1;
        r = find_candidates(&f);
        if (r == 0)
                r = find_marks(&f);
        if (r == 0)
                r = find_others(&f);
        if (r == 0)
                r = apply_options(&f, o);
        if (r == 0)
                r = choose_order(&f, o);
        if (r == 0)
                r = find_ends(&f);
        free(f.marks);
        if (r == 0)
                *ret_format = f.format;
        return r;
}

void warm_fim_deinit(struct warm_prompt_format *format) {
        free((void *) (uintptr_t) format->ends);
        format->ends = NULL;
        format->n_ends = 0;
}
