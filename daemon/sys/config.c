/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config.h"

void warm_config_init(struct warm_config *c) {
        *c = (struct warm_config){ .device = WARM_DEVICE_AUTO, .kv_type = WARM_TYPE_F16 };
}

static void config_model_deinit(struct warm_config_model *m) {
        char *const strings[] = { m->section, m->path,    m->name,    m->order,    m->fim_pre,
                                  m->fim_suf, m->fim_mid, m->fim_pad, m->fim_repo, m->fim_sep };

        for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
                free(strings[i]);
        *m = (struct warm_config_model){};
}

void warm_config_drop_models(struct warm_config *c) {
        for (size_t i = 0; i < c->n_models; i++)
                config_model_deinit(&c->models[i]);
        c->n_models = 0;
}

void warm_config_deinit(struct warm_config *c) {
        warm_config_drop_models(c);
        free(c->socket);
        free(c->admin_group);
        *c = (struct warm_config){};
}

/* Set *ret_why to a sentence and return error; -ENOMEM if there is no room for it. */
static int __attribute__((format(printf, 3, 4)))
because(char **ret_why, int error, const char *format, ...) {
        va_list ap;
        char *why = NULL;
        int n;

        if (!ret_why)
                return error;
        va_start(ap, format);
        n = vasprintf(&why, format, ap);
        va_end(ap);
        if (n < 0)
                return -ENOMEM;
        *ret_why = why;
        return error;
}

static int replace(char **slot, const char *value) {
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*slot);
        *slot = copy;
        return 0;
}

int warm_parse_size(const char *text, uint64_t *ret_bytes) {
        static const char units[] = "KMGT";
        char *end = NULL;
        double value;
        unsigned shift = 0;

        if (text[0] < '0' || text[0] > '9')
                return -EINVAL;
        value = strtod(text, &end);
        if (*end != '\0') {
                const char *unit = strchr(units, *end >= 'a' && *end <= 'z' ? *end - 32 : *end);

                if (!unit)
                        return -EINVAL;
                shift = 10 * (unsigned) (unit - units + 1);
                end++;
                if (end[0] == 'i' && end[1] == 'B')
                        end += 2;
                if (*end != '\0')
                        return -EINVAL;
        }
        value *= (double) (1ULL << shift);
        if (!(value <= 0x1p52))
                return -ERANGE;
        *ret_bytes = (uint64_t) value;
        return 0;
}

static int parse_uint32(const char *text, uint32_t most, uint32_t *ret_value) {
        char *end = NULL;
        unsigned long value;

        if (text[0] < '0' || text[0] > '9')
                return -EINVAL;
        errno = 0;
        value = strtoul(text, &end, 10);
        if (errno || *end != '\0' || value > most)
                return -EINVAL;
        *ret_value = (uint32_t) value;
        return 0;
}

static int set_model(struct warm_config *c, const char *value, char **ret_why) {
        if (c->n_models == WARM_CONFIG_MODELS_MAX)
                return because(ret_why, -EINVAL, "at most %u models can be loaded at once",
                               WARM_CONFIG_MODELS_MAX);
        if (value[0] == '\0')
                return because(ret_why, -EINVAL, "model: give the path of a GGUF file");
        if (replace(&c->models[c->n_models].path, value) < 0)
                return -ENOMEM;
        c->n_models++;
        return 0;
}

static int set_device(struct warm_config *c, const char *value, char **ret_why) {
        if (strcmp(value, "auto") == 0)
                c->device = WARM_DEVICE_AUTO;
        else if (strcmp(value, "cpu") == 0)
                c->device = WARM_DEVICE_CPU;
        else if (strncmp(value, "cuda:", 5) == 0 &&
                 parse_uint32(value + 5, 255, &c->cuda_device) == 0)
                c->device = WARM_DEVICE_CUDA;
        else
                return because(ret_why, -EINVAL, "device: \"%s\" is none of auto, cpu, cuda:N",
                               value);
        return 0;
}

static int set_kv_type(struct warm_config *c, const char *value, char **ret_why) {
        static const struct {
                const char *name;
                enum warm_type type;
        } types[] = { { "f16", WARM_TYPE_F16 },
                      { "bf16", WARM_TYPE_BF16 },
                      { "f32", WARM_TYPE_F32 } };

        for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
                if (strcmp(value, types[i].name) == 0) {
                        c->kv_type = types[i].type;
                        return 0;
                }
        return because(ret_why, -EINVAL, "kv-type: \"%s\" is none of f16, bf16, f32", value);
}

static int set_memory_short(struct warm_config *c, const char *value, char **ret_why) {
        if (strcmp(value, "shrink") == 0)
                c->gpu_memory_short = WARM_MEMORY_SHRINK;
        else if (strcmp(value, "refuse") == 0)
                c->gpu_memory_short = WARM_MEMORY_REFUSE;
        else
                return because(ret_why, -EINVAL,
                               "gpu-memory-short: \"%s\" is none of shrink, refuse", value);
        return 0;
}

static int set_number(uint32_t *slot, const char *key, const char *value, uint32_t most,
                      char **ret_why) {
        if (parse_uint32(value, most, slot) < 0)
                return because(ret_why, -EINVAL, "%s: \"%s\" is not a whole number from 0 to %u",
                               key, value, most);
        return 0;
}

static int set_daemon_key(struct warm_config *c, const char *key, const char *value,
                          char **ret_why) {
        if (strcmp(key, "model") == 0)
                return set_model(c, value, ret_why);
        if (strcmp(key, "socket") == 0) {
                if (value[0] != '/' || strlen(value) > 100)
                        return because(ret_why, -EINVAL,
                                       "socket: give an absolute path of at most 100 bytes");
                return replace(&c->socket, value);
        }
        if (strcmp(key, "device") == 0)
                return set_device(c, value, ret_why);
        if (strcmp(key, "kv-type") == 0)
                return set_kv_type(c, value, ret_why);
        if (strcmp(key, "kv-memory") == 0) {
                if (warm_parse_size(value, &c->kv_memory) < 0)
                        return because(ret_why, -EINVAL,
                                       "kv-memory: \"%s\" is not a size like 512M or 2G", value);
                return 0;
        }
        if (strcmp(key, "gpu-memory-wait") == 0)
                return set_number(&c->gpu_memory_wait_s, key, value, 86400, ret_why);
        if (strcmp(key, "gpu-memory-short") == 0)
                return set_memory_short(c, value, ret_why);
        if (strcmp(key, "threads") == 0)
                return set_number(&c->n_threads, key, value, 1024, ret_why);
        if (strcmp(key, "context") == 0)
                return set_number(&c->n_context, key, value, 1U << 20, ret_why);
        if (strcmp(key, "chunk-ms") == 0)
                return set_number(&c->chunk_ms, key, value, 1000, ret_why);
        if (strcmp(key, "admin-group") == 0)
                return replace(&c->admin_group, value);
        return because(ret_why, -EINVAL,
                       "unknown key \"%s\"; known: model, socket, device, gpu-memory-wait, "
                       "gpu-memory-short, kv-memory, kv-type, context, threads, chunk-ms, "
                       "admin-group",
                       key);
}

static int find_model(struct warm_config *c, const char *section,
                      struct warm_config_model **ret_model, char **ret_why) {
        for (size_t i = 0; i < c->n_models; i++)
                if (c->models[i].section && strcmp(c->models[i].section, section) == 0) {
                        *ret_model = &c->models[i];
                        return 0;
                }
        if (c->n_models == WARM_CONFIG_MODELS_MAX)
                return because(ret_why, -EINVAL, "at most %u models can be loaded at once",
                               WARM_CONFIG_MODELS_MAX);
        if (replace(&c->models[c->n_models].section, section) < 0)
                return -ENOMEM;
        if (replace(&c->models[c->n_models].name, section) < 0)
                return -ENOMEM;
        *ret_model = &c->models[c->n_models++];
        return 0;
}

static int set_model_key(struct warm_config *c, const char *section, const char *key,
                         const char *value, char **ret_why) {
        struct warm_config_model *m = NULL;
        int r = find_model(c, section, &m, ret_why);

        if (r < 0)
                return r;
        const struct {
                const char *key;
                char **slot;
        } keys[] = { { "path", &m->path },          { "order", &m->order },
                     { "fim-prefix", &m->fim_pre }, { "fim-suffix", &m->fim_suf },
                     { "fim-middle", &m->fim_mid }, { "fim-pad", &m->fim_pad },
                     { "repo-name", &m->fim_repo }, { "file-sep", &m->fim_sep } };

        for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
                if (strcmp(key, keys[i].key) == 0)
                        return replace(keys[i].slot, value);
        return because(ret_why, -EINVAL,
                       "[model %s]: unknown key \"%s\"; known: path, order, fim-prefix, "
                       "fim-suffix, fim-middle, "
                       "fim-pad, repo-name, file-sep",
                       section, key);
}

int warm_config_set(struct warm_config *c, const char *section, const char *key, const char *value,
                    char **ret_why) {
        if (strcmp(section, "warmd") == 0)
                return set_daemon_key(c, key, value, ret_why);
        if (strncmp(section, "model ", 6) == 0 && section[6] != '\0')
                return set_model_key(c, section + 6, key, value, ret_why);
        return because(ret_why, -EINVAL, "unknown section [%s]; known: [warmd], [model NAME]",
                       section);
}

struct parse {
        struct warm_config *config;
        char *why;
        int error;
};

static int parse_one(void *userdata, const char *section, const char *key, const char *value) {
        struct parse *p = userdata;

        if (p->error)
                return 1; /* the first error is the one to tell */
        p->error = warm_config_set(p->config, section, key, value ? value : "", &p->why);
        return 1;
}

/* Lines that inih would cut, and bytes it cannot carry. Return: the line, from 1, or 0: none. */
static size_t find_bad_line(const char *text, size_t n) {
        size_t line = 1, length = 0;

        for (size_t i = 0; i < n; i++) {
                if (text[i] == '\0')
                        return line;
                if (text[i] == '\n') {
                        line++;
                        length = 0;
                } else if (++length > WARM_CONFIG_LINE_MAX)
                        return line;
        }
        return 0;
}

int warm_config_parse(struct warm_config *c, const char *name, const char *text, size_t n,
                      char **ret_why) {
        struct parse p = { .config = c };
        char *copy;
        size_t bad;
        int r;

        if (n > WARM_CONFIG_FILE_MAX)
                return because(ret_why, -E2BIG, "%s: more than %u bytes", name,
                               WARM_CONFIG_FILE_MAX);
        bad = find_bad_line(text, n);
        if (bad)
                return because(ret_why, -EINVAL,
                               "%s:%zu: a line of more than %u bytes, or a zero byte", name, bad,
                               WARM_CONFIG_LINE_MAX);
        copy = strndup(text, n);
        if (!copy)
                return -ENOMEM;
        r = ini_parse_string(copy, parse_one, &p);
        free(copy);
        if (p.error) {
                int error = p.error;

                if (p.why && ret_why)
                        error = because(ret_why, error, "%s: %s", name, p.why);
                free(p.why);
                return error;
        }
        if (r > 0)
                return because(ret_why, -EINVAL,
                               "%s:%d: neither a [section], a \"key = value\" nor a comment", name,
                               r);
        return r < 0 ? -ENOMEM : 0;
}

static int read_all(int fd, char **ret_text, size_t *ret_n) {
        size_t n = 0, room = WARM_CONFIG_FILE_MAX + 1;
        char *text = malloc(room);

        if (!text)
                return -ENOMEM;
        while (n < room) {
                ssize_t k = read(fd, text + n, room - n);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0) {
                        int r = -errno;

                        free(text);
                        return r;
                }
                if (k == 0)
                        break;
                n += (size_t) k;
        }
        *ret_text = text;
        *ret_n = n;
        return 0;
}

int warm_config_read_file(struct warm_config *c, const char *path, char **ret_why) {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        char *text = NULL;
        size_t n = 0;
        int r;

        if (fd < 0)
                return because(ret_why, -errno, "%s: %s", path, strerror(errno));
        r = read_all(fd, &text, &n);
        close(fd);
        if (r < 0)
                return r == -ENOMEM ? r : because(ret_why, r, "%s: %s", path, strerror(-r));
        r = warm_config_parse(c, path, text, n, ret_why);
        free(text);
        return r;
}

static int is_drop_in(const struct dirent *e) {
        size_t n = strlen(e->d_name);

        return n > 5 && e->d_name[0] != '.' && strcmp(e->d_name + n - 5, ".conf") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort: that follows the locale */
}

static int read_drop_ins(struct warm_config *c, const char *dir, char **ret_why) {
        char path[PATH_MAX];
        struct dirent **entries = NULL;
        int n = scandir(dir, &entries, is_drop_in, by_name);
        int r = 0;

        if (n < 0)
                return errno == ENOENT || errno == ENOTDIR
                               ? 0
                               : because(ret_why, -errno, "%s: %s", dir, strerror(errno));
        if (n > (int) WARM_CONFIG_FILES_MAX)
                r = because(ret_why, -E2BIG, "%s: more than %u files", dir, WARM_CONFIG_FILES_MAX);
        for (int i = 0; i < n; i++) {
                if (r == 0 && (size_t) snprintf(path, sizeof(path), "%s/%s", dir,
                                                entries[i]->d_name) < sizeof(path))
                        r = warm_config_read_file(c, path, ret_why);
                free(entries[i]);
        }
        free(entries);
        return r;
}

int warm_config_read_dir(struct warm_config *c, const char *dir, char **ret_why) {
        char path[PATH_MAX];
        int r;

        if ((size_t) snprintf(path, sizeof(path), "%s/warmd.conf", dir) >= sizeof(path))
                return -ENAMETOOLONG;
        if (access(path, F_OK) == 0) {
                r = warm_config_read_file(c, path, ret_why);
                if (r < 0)
                        return r;
        }
        if ((size_t) snprintf(path, sizeof(path), "%s/warmd.conf.d", dir) >= sizeof(path))
                return -ENAMETOOLONG;
        return read_drop_ins(c, path, ret_why);
}

struct warm_model_options warm_config_model_options(const struct warm_config_model *m) {
        return (struct warm_model_options){
                .name = m->name,
                .order = m->order,
                .fim_pre = m->fim_pre,
                .fim_suf = m->fim_suf,
                .fim_mid = m->fim_mid,
                .fim_pad = m->fim_pad,
                .fim_repo = m->fim_repo,
                .fim_sep = m->fim_sep,
        };
}
