/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings of the daemon: defaults, then warmd.conf with its drop-ins, then the command line; the later wins, key by
 * key. Keys and options have the same names (docs/warmd.conf.5).
 *
 * Files: <dir>/warmd/warmd.conf, then <dir>/warmd/warmd.conf.d/<name>.conf in the order of their names. <dir> is
 * /etc for the system's daemon and $XDG_CONFIG_HOME (or ~/.config) for a user's own.
 *
 * A file is trusted as to its meaning (an administrator wrote it), not as to its form: every error is a sentence
 * that names file, section and key.
 *
 * Thread: main, before any other exists. Immutable afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

#define WARM_CONFIG_MODELS_MAX 16U
#define WARM_CONFIG_LINE_MAX   199U /* inih reads longer lines in pieces; they are refused before */
#define WARM_CONFIG_FILE_MAX   (256U << 10)
#define WARM_CONFIG_FILES_MAX  64U

enum warm_device {
        WARM_DEVICE_AUTO,
        WARM_DEVICE_CPU,
        WARM_DEVICE_CUDA,
};

/* What to do where a GPU has less memory free than kv-memory asks for. */
enum warm_memory_short {
        WARM_MEMORY_SHRINK, /* take what there is */
        WARM_MEMORY_REFUSE, /* all of it, at the start, or no start */
};

/* One model to load, with what overrides its file. Strings owned. */
struct warm_config_model {
        char *section; /* [model NAME], or NULL: from --model or `model =` */
        char *path;
        char *name;
        char *order;
        char *fim_pre, *fim_suf, *fim_mid, *fim_pad, *fim_repo, *fim_sep;
};

struct warm_config {
        struct warm_config_model models[WARM_CONFIG_MODELS_MAX];
        size_t n_models;
        bool models_from_command_line; /* the first --model replaces those of the files */
        char *socket;                  /* NULL: see warm_socket_default_path() */
        enum warm_device device;
        uint32_t cuda_device;
        uint64_t kv_memory; /* bytes; 0: 16 contexts, at most a quarter of what is free */
        enum warm_type kv_type;
        uint32_t n_context;         /* 0: the model's */
        uint32_t gpu_memory_wait_s; /* how long to wait for room on a GPU; 0: not */
        enum warm_memory_short gpu_memory_short;
        uint32_t n_threads; /* 0: one for each core this process may use */
        uint32_t chunk_ms;  /* 0: the engine's default */
        char *admin_group;  /* whose members may load, unload and trim for everybody */
};

void warm_config_init(struct warm_config *c);
void warm_config_deinit(struct warm_config *c);
void warm_config_drop_models(struct warm_config *c);

/*
 * Set one key, as from a command line or a file.
 *
 * @param section "warmd", or "model NAME"
 * Return: 0; -ENOMEM; -EINVAL with *ret_why: a malloc'd sentence.
 */
int warm_config_set(struct warm_config *c, const char *section, const char *key, const char *value,
                    char **ret_why);

/* Read one file's text. Return: as warm_config_set, the sentence naming `name`; -E2BIG: larger than the limit. */
int warm_config_parse(struct warm_config *c, const char *name, const char *text, size_t n,
                      char **ret_why);

/* Read one file. Return: as above; -errno of opening and reading it, with *ret_why. */
int warm_config_read_file(struct warm_config *c, const char *path, char **ret_why);

/* Read <dir>/warmd.conf and <dir>/warmd.conf.d/?*.conf; none there is no error. */
int warm_config_read_dir(struct warm_config *c, const char *dir, char **ret_why);

/* "512M", "2G", "1.5G", "65536": bytes, powers of 1024. Return: 0; -EINVAL; -ERANGE. */
int warm_parse_size(const char *text, uint64_t *ret_bytes);

/* What the model's reader wants of one entry. Borrowed from it. */
struct warm_model_options warm_config_model_options(const struct warm_config_model *m);
