/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmctl: the command line of warmd. Built on the public interface of libwarm alone, as any client could be.
 *
 * Exit statuses are part of the interface: scripts read them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "client.h"

enum {
        WARMCTL_OK = 0,
        WARMCTL_REFUSED = 1, /* the daemon, or a file, said no */
        WARMCTL_USAGE = 2,
        WARMCTL_NO_DAEMON = 3,
};

/* What the command line said; read-only after parsing. */
struct warmctl {
        const char *socket; /* NULL: the default */
        const char *model;
        const char *plot; /* bench: write an SVG here; NULL: none */
        bool json;
        bool ids;        /* generate: ids instead of text */
        bool show;       /* complete: as an editor would show it */
        bool again;      /* complete --show: and once more after one typed character */
        bool untyped;    /* complete: the rest of the cursor's line is not there yet */
        bool colour_out; /* stdout is a terminal and NO_COLOR is not set */
        bool progress;   /* stderr is a terminal */
        uint32_t n_max;
        bool n_max_given;
        uint32_t lines;       /* complete: 0: the daemon's default */
        const char *argument; /* FILE, -, FILE:LINE:COLUMN; NULL: none */
};

typedef int (*warmctl_command_fn)(const struct warmctl *ctl);

int warmctl_status(const struct warmctl *ctl);
int warmctl_models(const struct warmctl *ctl);
int warmctl_trim(const struct warmctl *ctl);
int warmctl_complete(const struct warmctl *ctl);
int warmctl_explain(const struct warmctl *ctl);
int warmctl_warm(const struct warmctl *ctl);
int warmctl_generate(const struct warmctl *ctl);
int warmctl_tokenize(const struct warmctl *ctl);
int warmctl_score(const struct warmctl *ctl);
int warmctl_bench(const struct warmctl *ctl);
int warmctl_doctor(const struct warmctl *ctl);

/* ---- Shared by the commands ---- */

/* Connect or say why not on stderr. Return: WARMCTL_OK and *ret_client, or the exit status. */
int warmctl_connect(const struct warmctl *ctl, struct warm_client **ret_client);

/*
 * Call a method; says on stderr what was refused. Params may be NULL and stay the caller's.
 * Return: WARMCTL_OK and *ret_reply (free it), or the exit status.
 */
int warmctl_call(struct warm_client *c, const char *method, const struct warm_client_params *p,
                 struct warm_client_reply **ret_reply);

/* Connect, call, print the result as JSON or as a map, and let go of all. Takes p. Return: the exit status. */
int warmctl_ask(const struct warmctl *ctl, const char *method, struct warm_client_params *p);

/* Print a value as one line of JSON (json-c). Return: WARMCTL_OK or WARMCTL_REFUSED. */
int warmctl_print_json(const struct warm_client_value *v);

/* Print a map for people: "key: value" a line, maps inside indented. */
void warmctl_print_map(const struct warm_client_value *v, unsigned indent);

/* Print text so that a terminal is not steered by it: control characters become '?', but \n and \t. */
void warmctl_print_text(FILE *f, const char *text, size_t n);

struct warmctl_file {
        char *text; /* owned */
        size_t n;
};

/* Read a file ("-" or NULL: standard input). Says what failed. Return: WARMCTL_OK, WARMCTL_REFUSED. */
int warmctl_read(const char *path, struct warmctl_file *ret_file);

/* A cursor in a file: the prefix is text[0 .. at), the suffix the rest. */
struct warmctl_cursor {
        struct warmctl_file file;
        char *path; /* owned */
        size_t at;
        size_t line, column; /* from 1, columns in bytes */
};

/* Parse FILE:LINE:COLUMN and read the file; says what is wrong. Return: WARMCTL_OK, _REFUSED, _USAGE. */
int warmctl_cursor_read(const char *argument, struct warmctl_cursor *ret_cursor);
void warmctl_cursor_deinit(struct warmctl_cursor *cursor);

/* Insert text at the cursor and move behind it, as typing does. Return: 0; -ENOMEM. */
int warmctl_cursor_type(struct warmctl_cursor *cursor, const char *text, size_t n);

/* Take the rest of the cursor's line out of the text. */
void warmctl_cursor_cut(struct warmctl_cursor *cursor);

/* The parameters that describe a cursor: prefix, suffix, offset, line, path; cut to what a client should send. */
struct warm_client_params *warmctl_cursor_params(const struct warmctl *ctl,
                                                 const struct warmctl_cursor *cursor);

/* Draw the code around a cursor with the completion as ghost text behind it. */
void warmctl_draw(const struct warmctl *ctl, const struct warmctl_cursor *cursor, const char *ghost,
                  size_t n_ghost);
