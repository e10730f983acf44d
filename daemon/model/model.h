/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model: plan + vocabulary + prompt format, read from a GGUF file that is untrusted input.
 *
 * Opened by the loop thread (or before threads exist). The plan's tensors point into the file's bytes; once the
 * backend has made its weights, warm_model_drop_file() lets go of them. All else is immutable until freed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/plan.h"
#include "vocab.h"

struct warm_gguf;
struct warm_memo;

#define WARM_FINGERPRINT_BYTES 16U

enum warm_order {
        WARM_ORDER_NONE,      /* no fill-in-the-middle tokens: continue the prefix */
        WARM_ORDER_PSM,       /* anchored: <PRE>before the anchor<SUF>suffix<MID>anchor to cursor */
        WARM_ORDER_SPM_JOINT, /* <PRE><SUF>suffix<MID>prefix */
};

/*
 * How a prompt is put together. Ids are -1 where the model has no such token; what has no id is left out. An order
 * other than none needs pre and suf; psm needs mid too, spm-joint does without (Codestral: <SUF>suffix<PRE>prefix).
 */
struct warm_prompt_format {
        int32_t pre, suf, mid, pad, repo, file_sep, eot;
        int32_t bos;           /* in front of every prompt, or -1 */
        enum warm_order order; /* the one in use */
        uint32_t orders;       /* bit WARM_ORDER_*: those the model knows */
        const int32_t *ends;   /* [n_ends] tokens that end a text: eos, eot, file_sep, ... */
        uint32_t n_ends;
};

/* What configuration may override; NULL: not set; the name of a token may be "": the model has none. */
struct warm_model_options {
        const char *name;  /* as clients call it; default: general.name or the file's name */
        const char *order; /* "none", "psm", "spm-joint" */
        const char *fim_pre, *fim_suf, *fim_mid, *fim_pad, *fim_repo,
                *fim_sep; /* names of tokens */
};

struct warm_model {
        char *name;
        char *path;
        char *architecture;
        char *quantization; /* the type that most weights have: "Q8_0" */
        struct warm_plan plan;
        struct warm_vocab *vocab;
        struct warm_prompt_format format;
        uint64_t n_parameters; /* elements of all tensors */
        uint64_t file_bytes;
        uint8_t content_hash
                [WARM_FINGERPRINT_BYTES]; /* of tensors, plan and tokenizer: warm_gguf_load() */
        struct warm_memo
                *memo; /* the loop's, owned here; NULL: none (SentencePiece, models made by hand) */
        bool unfinished;        /* warm_model_finish() has something to do */
        struct warm_gguf *gguf; /* NULL once dropped */
};

/*
 * Open a GGUF file: read every field checked, fill plan and vocabulary, find the prompt format.
 *
 * @param ret_why on errors but -ENOMEM a malloc'd sentence: what is wrong and what to do; may be NULL
 * Return: 0; -ENOMEM; -ENOENT, -EACCES, -EIO: the file; -EBADMSG: malformed; -EOPNOTSUPP: an architecture, type or
 * tokenizer that is not built, named; -EINVAL: an option names a token or an order that the model does not have.
 */
int warm_model_open(const char *path, const struct warm_model_options *options,
                    struct warm_model **ret_model, char **ret_why);

/*
 * The same, but the file's tensors are still being read and hashed when it returns, by threads of the model's own: time
 * to start a device. Until warm_model_finish() there is no content_hash, and where warm_model_has_data() says no, the
 * plan's tensors point at nothing yet. Return: as warm_model_open(), but for what reading the tensors would tell.
 */
int warm_model_begin(const char *path, const struct warm_model_options *options,
                     struct warm_model **ret_model, char **ret_why);
bool warm_model_has_data(const struct warm_model *m);

/*
 * Wait for what begin() left open, or do it. Sentences do not name the file. Return: 0, of a finished model at once;
 * as warm_model_open().
 */
int warm_model_finish(struct warm_model *m, char **ret_why);

/* As warm_model_open() for bytes in memory, borrowed until the file is dropped; `path` only names them. */
int warm_model_open_bytes(const void *bytes, uint64_t n_bytes, const char *path,
                          const struct warm_model_options *options, struct warm_model **ret_model,
                          char **ret_why);

/* Let go of the file's bytes (the plan's tensor pointers become NULL). Once or more often. */
void warm_model_drop_file(struct warm_model *m);
struct warm_model *warm_model_free(struct warm_model *m);

static inline bool warm_model_is_end(const struct warm_model *m, int32_t id) {
        for (uint32_t i = 0; i < m->format.n_ends; i++)
                if (m->format.ends[i] == id)
                        return true;
        return false;
}
