/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "warmctl.h"

#define FILE_BYTES_MAX   (64U << 20)
#define PREFIX_BYTES_MAX (256U << 10) /* what a client should send: docs/PROTOCOL.md */
#define SUFFIX_BYTES_MAX (64U << 10)

static int say(const char *path, const char *what) {
        fprintf(stderr, "warmctl: %s: %s\n", path, what);
        return WARMCTL_REFUSED;
}

/* Room for more text, doubled. Return: false: too large, or no memory. */
static bool grow(char **text, size_t *size) {
        size_t more = *size ? 2 * *size : 64U << 10;
        char *room = more <= FILE_BYTES_MAX ? realloc(*text, more) : NULL;

        if (!room)
                return false;
        *text = room;
        *size = more;
        return true;
}

static int read_fd(int fd, const char *name, struct warmctl_file *ret_file) {
        size_t n = 0, size = 0;
        char *text = NULL;

        for (;;) {
                ssize_t k;

                if (n == size && !grow(&text, &size)) {
                        free(text);
                        return say(name, "larger than 64 MiB, or no memory");
                }
                k = read(fd, text + n, size - n);
                if (k == 0)
                        break;
                if (k < 0 && errno != EINTR) {
                        free(text);
                        return say(name, strerror(errno));
                }
                n += k > 0 ? (size_t) k : 0;
        }
        *ret_file = (struct warmctl_file){ .text = text, .n = n };
        return WARMCTL_OK;
}

int warmctl_read(const char *path, struct warmctl_file *ret_file) {
        int fd, r;

        if (!path || strcmp(path, "-") == 0)
                return read_fd(STDIN_FILENO, "standard input", ret_file);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return say(path, strerror(errno));
        r = read_fd(fd, path, ret_file);
        close(fd);
        return r;
}

/* Split "FILE:LINE:COLUMN" from its end: a file's name may hold colons. */
static int split(const char *argument, struct warmctl_cursor *c) {
        const char *last = strrchr(argument, ':');
        const char *middle = last ? memrchr(argument, ':', (size_t) (last - argument)) : NULL;
        char *end1 = NULL, *end2 = NULL;

        if (!middle || middle == argument)
                return WARMCTL_USAGE;
        c->line = strtoul(middle + 1, &end1, 10);
        c->column = strtoul(last + 1, &end2, 10);
        if (end1 != last || *end2 != '\0' || middle[1] < '0' || middle[1] > '9' || last[1] < '0' ||
            last[1] > '9' || c->line == 0 || c->column == 0)
                return WARMCTL_USAGE;
        c->path = strndup(argument, (size_t) (middle - argument));
        return c->path ? WARMCTL_OK : WARMCTL_REFUSED;
}

/* Where line and column are in the text. Return: false if there is no such line, or it has fewer bytes. */
static bool find(struct warmctl_cursor *c) {
        const char *text = c->file.text, *newline;
        size_t start = 0, length;

        for (size_t i = 1; i < c->line; i++) {
                newline = memchr(text + start, '\n', c->file.n - start);
                if (!newline)
                        return false;
                start = (size_t) (newline - text) + 1;
        }
        newline = memchr(text + start, '\n', c->file.n - start);
        length = newline ? (size_t) (newline - text) - start : c->file.n - start;
        if (c->column - 1 > length)
                return false;
        c->at = start + c->column - 1;
        return true;
}

int warmctl_cursor_read(const char *argument, struct warmctl_cursor *ret_cursor) {
        struct warmctl_cursor c = {};
        int r = split(argument, &c);

        if (r == WARMCTL_USAGE)
                fprintf(stderr, "warmctl: \"%s\" is not FILE:LINE:COLUMN (both count from 1)\n",
                        argument);
        if (r != WARMCTL_OK)
                return r;
        r = warmctl_read(c.path, &c.file);
        if (r == WARMCTL_OK && !find(&c)) {
                fprintf(stderr,
                        "warmctl: %s has no line %zu with a column %zu: the cursor is beyond its "
                        "end\n",
                        c.path, c.line, c.column);
                r = WARMCTL_REFUSED;
        }
        if (r != WARMCTL_OK) {
                warmctl_cursor_deinit(&c);
                return r;
        }
        *ret_cursor = c;
        return WARMCTL_OK;
}

void warmctl_cursor_deinit(struct warmctl_cursor *cursor) {
        free(cursor->path);
        free(cursor->file.text);
        *cursor = (struct warmctl_cursor){};
}

void warmctl_cursor_cut(struct warmctl_cursor *cursor) {
        char *at = cursor->file.text + cursor->at;
        size_t n = cursor->file.n - cursor->at;
        const char *newline = n ? memchr(at, '\n', n) : NULL;
        size_t rest = newline ? (size_t) (newline - at) : n;

        if (rest)
                memmove(at, at + rest, n - rest);
        cursor->file.n -= rest;
}

int warmctl_cursor_type(struct warmctl_cursor *cursor, const char *text, size_t n) {
        char *more = realloc(cursor->file.text, cursor->file.n + n);

        if (!more)
                return -ENOMEM;
        memmove(more + cursor->at + n, more + cursor->at, cursor->file.n - cursor->at);
        memcpy(more + cursor->at, text, n);
        cursor->file.text = more;
        cursor->file.n += n;
        cursor->at += n;
        cursor->column += n;
        return 0;
}

struct warm_client_params *warmctl_cursor_params(const struct warmctl *ctl,
                                                 const struct warmctl_cursor *cursor) {
        struct warm_client_params *p = warm_client_params_new();
        size_t start = cursor->at > PREFIX_BYTES_MAX ? cursor->at - PREFIX_BYTES_MAX : 0;
        size_t n_suffix = cursor->file.n - cursor->at, line = 0;

        if (!p)
                return NULL;
        for (size_t i = 0; i < start; i++)
                line += cursor->file.text[i] == '\n';
        if (n_suffix > SUFFIX_BYTES_MAX)
                n_suffix = SUFFIX_BYTES_MAX;
        warm_client_params_text(p, "prefix", cursor->file.text + start, cursor->at - start);
        warm_client_params_text(p, "suffix", cursor->file.text + cursor->at, n_suffix);
        warm_client_params_uint(p, "offset", start);
        warm_client_params_uint(p, "line", line);
        warm_client_params_text(p, "path", cursor->path, strlen(cursor->path));
        if (ctl->model)
                warm_client_params_text(p, "model", ctl->model, strlen(ctl->model));
        if (ctl->n_max_given)
                warm_client_params_uint(p, "n_max", ctl->n_max);
        return p;
}
