/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memo.h"
#include "prompt.h"
#include "window.h"

#define ROOM_MIN       32U /* tokens of prompt that must fit beside n_max */
#define BYTES_A_TOKEN  3U  /* of source code; a window whose tokens do not fit is halved */
#define MARKS_MAX      4U  /* BOS and the fill-in-the-middle marks */
#define PATH_BYTES_MAX 1024U
/* A snippet longer than so many bytes for each token of room is left out before time is spent on its tokens. */
#define SNIPPET_BYTES_A_TOKEN 16U
#define PROJECT               "project\n" /* stands for the repository's name, which nobody tells us */
#define UNNAMED               "filename"
#define SPECIAL_BYTES_BACK    4096U /* how far back names of control tokens are looked for */

/* Tokens in the making; n_max is a ceiling, -ENOBUFS beyond it. */
struct ids {
        int32_t *data; /* [n_max] */
        size_t n, n_max;
};

struct build {
        const struct warm_model *model;
        const struct warm_prompt_source *source;
        struct ids ids;
        unsigned flags; /* for text of the source */
        struct warm_prompt p;
};

static int ids_put(struct ids *ids, int32_t id) {
        if (id < 0)
                return 0; /* a mark that this model does not have */
        if (ids->n == ids->n_max)
                return -ENOBUFS;
        ids->data[ids->n++] = id;
        return 0;
}

static int ids_put_text(struct ids *ids, const struct warm_model *m, struct warm_string text,
                        unsigned flags) {
        size_t n = 0;
        int r;

        if (text.n == 0)
                return 0;
        if (m->memo)
                r = warm_memo_tokenize(m->memo, text.data, text.n, flags, ids->data + ids->n,
                                       ids->n_max - ids->n, &n);
        else
                r = warm_vocab_tokenize(m->vocab, text.data, text.n, flags, ids->data + ids->n,
                                        ids->n_max - ids->n, &n);
        if (r < 0)
                return r;
        ids->n += n;
        return 0;
}

static int ids_put_ids(struct ids *ids, const struct ids *from, size_t lo, size_t hi) {
        if (hi - lo > ids->n_max - ids->n)
                return -ENOBUFS;
        if (hi > lo)
                memcpy(ids->data + ids->n, from->data + lo, (hi - lo) * sizeof(*ids->data));
        ids->n += hi - lo;
        return 0;
}

static struct warm_string string_from(struct warm_string s, size_t from, size_t to) {
        assert(from <= to && to <= s.n);
        return (struct warm_string){ .data = s.data ? s.data + from : NULL, .n = to - from };
}

static void put_seam(struct build *b, size_t at) {
        struct warm_prompt *p = &b->p;

        if (at > 0 && p->n_seams < WARM_PROMPT_SEAMS_MAX &&
            (p->n_seams == 0 || p->seams[p->n_seams - 1] < at))
                p->seams[p->n_seams++] = (uint32_t) at;
}

/*
 * The token count at which the cursor's line starts, among the tokens from `first` that spell text. A token across
 * the line's start belongs to the line.
 */
static size_t line_seam(const struct build *b, size_t first, struct warm_string text) {
        size_t line = text.n, end = text.n, i = b->ids.n;

        while (line > 0 && text.data[line - 1] != '\n')
                line--;
        for (; i > first && end > line; i--) { /* from the end: a line is short */
                size_t n = warm_vocab_text(b->model->vocab, b->ids.data[i - 1]).n;

                end -= n < end ? n : end;
        }
        return i;
}

/* How many bytes at the end of text follow the last name of a control token in it, so far as it matters. */
static int after_controls(const struct warm_vocab *v, struct warm_string text, size_t *ret_n) {
        size_t n_end = text.n < SPECIAL_BYTES_BACK ? text.n : SPECIAL_BYTES_BACK, n = 0, n_tail = 0;
        int32_t *ids = malloc((n_end + 1) * sizeof(*ids));
        int r;

        if (!ids)
                return -ENOMEM;
        r = warm_vocab_tokenize(v, text.data + text.n - n_end, n_end, WARM_TOKENIZE_SPECIAL, ids,
                                n_end + 1, &n);
        for (; r >= 0 && n > 0; n--) {
                if (warm_vocab_kind_of(v, ids[n - 1]) == WARM_TOKEN_CONTROL)
                        break;
                n_tail += warm_vocab_text(v, ids[n - 1]).n;
        }
        free(ids);
        if (r < 0)
                return r;
        *ret_n = n_tail < n_end ? n_tail : n_end;
        return 0;
}

/*
 * Where the last piece of text starts. With names of control tokens in the text, only what follows the last of them
 * is looked at: a piece must not reach into a name.
 */
static int find_piece(const struct build *b, struct warm_string text, size_t *ret_at) {
        const struct warm_vocab *v = b->model->vocab;
        size_t n_tail = text.n;
        int r;

        if (text.n == 0 || !b->source->heal) {
                *ret_at = text.n;
                return 0;
        }
        if (b->source->special) {
                r = after_controls(v, text, &n_tail);
                if (r < 0)
                        return r;
        }
        *ret_at = text.n - n_tail;
        if (n_tail > 0)
                *ret_at += warm_vocab_last_piece(v, text.data + *ret_at, n_tail);
        assert(*ret_at <= text.n && text.n - *ret_at <= WARM_HEAL_BYTES_MAX);
        return 0;
}

/* Keep the piece that the first sampled tokens must spell. */
static int put_heal(struct build *b, struct warm_string piece) {
        size_t n = 0;
        int r;

        if (piece.n == 0)
                return 0;
        r = warm_vocab_tokenize(b->model->vocab, piece.data, piece.n, 0, b->p.heal_ids,
                                WARM_HEAL_BYTES_MAX, &n);
        if (r < 0)
                return r;
        memcpy(b->p.heal, piece.data, piece.n);
        b->p.n_heal = (uint32_t) piece.n;
        b->p.n_heal_ids = (uint32_t) n;
        return 0;
}

/* Start of the window over the prefix: all of it if it begins the file and fits. */
static size_t prefix_start(const struct build *b, size_t n_bytes) {
        const struct warm_prompt_source *s = b->source;
        bool begins = s->offset_known ? s->offset == 0 : s->continuation;

        if (begins && s->prefix.n <= n_bytes)
                return 0;
        return warm_window_start(s->prefix.data, s->prefix.n, n_bytes);
}

static unsigned start_flag(const struct build *b, size_t start) {
        bool begins = !b->source->offset_known || b->source->offset == 0;

        return b->flags | (start == 0 && begins ? WARM_TOKENIZE_START : 0);
}

static struct warm_string snippet_path(struct warm_string path) {
        if (path.n == 0)
                return (struct warm_string){ .data = UNNAMED, .n = sizeof(UNNAMED) - 1 };
        /* The end of a path says most. */
        return path.n > PATH_BYTES_MAX ? string_from(path, path.n - PATH_BYTES_MAX, path.n) : path;
}

/* `<file_sep>path\n`, and the text if it is another file's. One string, as the model saw it in training. */
static int put_file(struct build *b, struct ids *ids, struct warm_string path,
                    struct warm_string text) {
        const struct warm_prompt_format *f = &b->model->format;
        struct warm_string joined;
        char *buffer;
        int r;

        path = snippet_path(path);
        buffer = malloc(path.n + 1 + text.n + 1);
        if (!buffer)
                return -ENOMEM;
        memcpy(buffer, path.data, path.n);
        buffer[path.n] = '\n';
        if (text.n > 0)
                memcpy(buffer + path.n + 1, text.data, text.n);
        joined = (struct warm_string){ .data = buffer, .n = path.n + 1 + text.n };
        if (f->file_sep < 0)
                buffer[joined.n++] = '\n'; /* nothing else parts it from what follows */
        r = ids_put(ids, f->file_sep);
        if (r >= 0)
                r = ids_put_text(ids, b->model, joined, 0);
        free(buffer);
        return r;
}

/*
 * Snippets, the newest of them that fit into half of the room, oldest first. Newest first is how they are measured:
 * each is tokenized into the space left, from the end of a scratch area.
 */
static int put_snippets(struct build *b, size_t room) {
        const struct warm_prompt_source *s = b->source;
        size_t n_kept = 0, cap = room / 2, at[WARM_PROMPT_SNIPPETS_MAX + 1];
        struct ids all = { 0 };
        int r = 0;

        assert(s->n_snippets <= WARM_PROMPT_SNIPPETS_MAX);
        b->p.truncated_snippets = s->n_snippets;
        if (s->n_snippets == 0 || cap <= sizeof(PROJECT))
                return 0;
        cap -= sizeof(PROJECT); /* its tokens and the mark before it, at worst */
        all.n_max = cap;
        all.data = malloc(cap * sizeof(*all.data));
        if (!all.data)
                return -ENOMEM;
        while (n_kept < s->n_snippets) {
                const struct warm_snippet *one = &s->snippets[s->n_snippets - 1 - n_kept];

                if (one->text.n / SNIPPET_BYTES_A_TOKEN > cap)
                        break;
                at[n_kept] = all.n;
                r = put_file(b, &all, one->path, one->text);
                if (r < 0)
                        break;
                n_kept++;
        }
        if (r == -ENOBUFS) {
                all.n = at[n_kept];
                r = 0;
        }
        at[n_kept] = all.n;
        if (r >= 0 && n_kept > 0) {
                b->p.truncated_snippets -= n_kept;
                r = ids_put(&b->ids, b->model->format.repo);
                if (r >= 0 && b->model->format.repo >= 0)
                        r = ids_put_text(&b->ids, b->model,
                                         (struct warm_string){ PROJECT, sizeof(PROJECT) - 1 }, 0);
        }
        for (; r >= 0 && n_kept > 0; n_kept--)
                r = ids_put_ids(&b->ids, &all, at[n_kept - 1], at[n_kept]);
        free(all.data);
        return r;
}

/* What stands in front of the marks: BOS, snippets, this file's path. */
static int put_head(struct build *b) {
        const struct warm_prompt_source *s = b->source;
        const struct warm_prompt_format *f = &b->model->format;
        size_t mark;
        int r;

        r = ids_put(&b->ids, f->bos);
        if (r >= 0)
                r = put_snippets(b, b->ids.n_max - b->ids.n - MARKS_MAX);
        if (r < 0)
                return r;
        put_seam(b, b->p.truncated_snippets < s->n_snippets ? b->ids.n : 0);
        if (f->file_sep < 0 || (s->path.n == 0 && b->p.truncated_snippets == s->n_snippets))
                return 0;
        mark = b->ids.n;
        r = put_file(b, &b->ids, s->path, (struct warm_string){ 0 });
        if (r == -ENOBUFS || (r >= 0 && b->ids.n - mark > b->ids.n_max / 4)) {
                b->ids.n = mark; /* a path that would take the room of the text */
                r = 0;
        }
        return r;
}

/* Healing samples a token for each of its bytes at worst; a window must not move with the piece's length. */
static uint32_t heal_room(const struct warm_prompt_source *s) {
        uint32_t share = s->n_context / 16;

        return !s->heal ? 0 : share < WARM_HEAL_BYTES_MAX ? share : WARM_HEAL_BYTES_MAX;
}

/* Both sides of the cursor as tokens, before they are put in order. */
struct sides {
        struct warm_string before; /* the whole prefix */
        size_t piece;              /* where its last piece starts */
        struct warm_string after;  /* the suffix without the rest of the cursor's line */
        size_t start, anchor;      /* of the window, and where the anchor's line starts */
        struct ids prefix, suffix; /* owned */
        size_t n_above;            /* tokens of the prefix above the anchor */
        size_t n_limit;            /* tokens of the prefix without its last piece */
};

static int tokenize_suffix(struct build *b, struct sides *s, size_t room) {

        for (;; room /= 2) {
                size_t end = warm_window_end(s->after.data, s->after.n, room);
                int r;

                s->suffix.n = 0;
                r = ids_put_text(&s->suffix, b->model, string_from(s->after, 0, end), b->flags);
                if (r == -ENOBUFS && room > 0)
                        continue;
                b->p.truncated_suffix = s->after.n - end;
                return r;
        }
}

/*
 * Tokenize text[from .. piece) as it stands in front of the piece: what follows a run of blanks decides how the run is
 * cut, so the piece is tokenized too and taken off again. If it shares a token with what is before, that is tokenized
 * alone.
 */
static int put_until_piece(struct build *b, struct ids *ids, struct warm_string text, size_t from,
                           size_t piece, unsigned flags) {
        const struct warm_vocab *v = b->model->vocab;
        size_t mark = ids->n, n = 0, n_piece = text.n - piece;
        int r;

        if (from == piece)
                return 0;
        r = ids_put_text(ids, b->model, string_from(text, from, text.n), flags);
        if (r < 0)
                return r;
        while (n < n_piece && ids->n > mark && warm_vocab_text(v, ids->data[ids->n - 1]).n > 0)
                n += warm_vocab_text(v, ids->data[--ids->n]).n;
        if (n == n_piece)
                return 0;
        ids->n = mark;
        return ids_put_text(ids, b->model, string_from(text, from, piece), flags);
}

static int tokenize_prefix(struct build *b, struct sides *s, size_t room, bool anchored) {
        for (;; room /= 2) {
                int r;

                s->start = prefix_start(b, room);
                if (s->start > s->piece)
                        s->start = s->piece;
                s->anchor = s->start;
                if (anchored && s->start < s->piece)
                        s->anchor +=
                                warm_window_anchor(s->before.data + s->start, s->piece - s->start);
                s->prefix.n = 0;
                r = ids_put_text(&s->prefix, b->model, string_from(s->before, s->start, s->anchor),
                                 start_flag(b, s->start));
                s->n_above = s->prefix.n;
                if (r >= 0)
                        r = put_until_piece(b, &s->prefix, s->before, s->anchor, s->piece,
                                            s->anchor > s->start ? b->flags
                                                                 : start_flag(b, s->start));
                /* The piece does not count: else the window would move to and fro with it. */
                if ((r == -ENOBUFS || s->prefix.n > s->n_limit) && room > 0)
                        continue;
                b->p.truncated_prefix = s->start;
                return r;
        }
}

/* The marks in front of each part, and behind the last; -1: none. */
struct marks {
        int32_t above, suffix, prefix, end;
};

/*
 * Two families have the suffix in front and a mark of its own for the prefix: Codestral, <SUF>suffix<PRE>prefix, and
 * Seed-Coder, <SUF>suffix<PRE>prefix<MID>. Source: their model cards; see docs/MODELS.md.
 */
static struct marks marks_of(const struct warm_model *m) {
        static const char seed_coder[] = "<[fim-suffix]>";
        const struct warm_prompt_format *f = &m->format;
        struct warm_string name = warm_vocab_name(m->vocab, f->suf);

        if (f->mid < 0)
                return (struct marks){ -1, f->suf, f->pre, -1 };
        if (name.n == sizeof(seed_coder) - 1 && memcmp(name.data, seed_coder, name.n) == 0)
                return (struct marks){ -1, f->suf, f->pre, f->mid };
        return (struct marks){ f->pre, f->suf, f->mid, -1 };
}

/* <PRE>text above the anchor<SUF>suffix<MID>text from the anchor; in spm-joint the anchor is the window's start. */
static int put_in_order(struct build *b, const struct sides *s) {
        struct marks marks = marks_of(b->model);
        struct ids *ids = &b->ids;
        size_t first;
        int r;

        r = ids_put(ids, marks.above);
        if (r >= 0)
                r = ids_put_ids(ids, &s->prefix, 0, s->n_above);
        put_seam(b, s->n_above > 0 ? ids->n : 0);
        if (r >= 0)
                r = ids_put(ids, marks.suffix);
        if (r >= 0)
                r = ids_put_ids(ids, &s->suffix, 0, s->suffix.n);
        if (r >= 0)
                r = ids_put(ids, marks.prefix);
        put_seam(b, ids->n);
        first = ids->n;
        if (r >= 0)
                r = ids_put_ids(ids, &s->prefix, s->n_above, s->prefix.n);
        put_seam(b, line_seam(b, first, string_from(s->before, s->anchor, s->piece)));
        if (r >= 0)
                r = ids_put(ids, marks.end);
        return r;
}

static int build_fim(struct build *b, enum warm_order order) {
        const struct warm_prompt_source *source = b->source;
        struct sides s = { 0 };
        size_t room, before, after;
        int r;

        r = put_head(b);
        if (r >= 0)
                r = find_piece(b, source->prefix, &s.piece);
        if (r < 0)
                return r;
        s.before = source->prefix;
        s.after = string_from(source->suffix, b->p.rest.n, source->suffix.n);
        room = b->ids.n_max - b->ids.n - MARKS_MAX;
        warm_window_split(room * BYTES_A_TOKEN, source->prefix.n, s.after.n, &before, &after);
        s.suffix.n_max = after / BYTES_A_TOKEN;
        s.prefix.n_max = room + heal_room(source);
        s.suffix.data = malloc((s.suffix.n_max + s.prefix.n_max + 1) * sizeof(*s.suffix.data));
        if (!s.suffix.data)
                return -ENOMEM;
        s.prefix.data = s.suffix.data + s.suffix.n_max;
        r = tokenize_suffix(b, &s, after);
        s.n_limit = room - s.suffix.n; /* what the suffix left, be it more than its share */
        if (r >= 0)
                r = tokenize_prefix(b, &s, before, order == WARM_ORDER_PSM);
        if (r >= 0)
                r = put_in_order(b, &s);
        free(s.suffix.data);
        if (r < 0)
                return r;
        b->p.fim = true;
        return put_heal(b, string_from(source->prefix, s.piece, source->prefix.n));
}

/* No fill-in-the-middle: the text before the cursor, to go on from. */
static int build_continuation(struct build *b) {
        const struct warm_prompt_source *s = b->source;
        struct sides sides = { 0 };
        int r;

        b->p.truncated_snippets = s->n_snippets;
        b->p.truncated_suffix = s->suffix.n - b->p.rest.n;
        r = ids_put(&b->ids, b->model->format.bos);
        if (r >= 0)
                r = find_piece(b, s->prefix, &sides.piece);
        if (r < 0)
                return r;
        if (sides.piece == 0 && b->ids.n == 0)
                sides.piece = s->prefix.n; /* something must be there to go on from */
        sides.before = s->prefix;
        sides.n_limit = b->ids.n_max - b->ids.n;
        sides.prefix = (struct ids){ .data = b->ids.data + b->ids.n,
                                     .n_max = sides.n_limit + heal_room(s) };
        r = tokenize_prefix(b, &sides, sides.n_limit * BYTES_A_TOKEN, false);
        if (r < 0)
                return r;
        b->ids.n += sides.prefix.n;
        put_seam(b, line_seam(b, b->ids.n - sides.prefix.n,
                              string_from(s->prefix, sides.start, sides.piece)));
        if (b->ids.n == 0)
                return -EINVAL;
        return put_heal(b, string_from(s->prefix, sides.piece, s->prefix.n));
}

static int build_given(struct build *b) {
        const struct warm_prompt_source *s = b->source;
        uint32_t highest = 0; /* one below zero is above all others */

        for (uint32_t i = 0; i < s->n_ids; i++)
                highest = (uint32_t) s->ids[i] > highest ? (uint32_t) s->ids[i] : highest;
        if (s->n_ids == 0 || highest >= warm_vocab_n_tokens(b->model->vocab))
                return -EINVAL;
        if (s->n_ids > s->n_context - s->n_max)
                return -ERANGE;
        memcpy(b->ids.data, s->ids, s->n_ids * sizeof(*s->ids));
        b->ids.n = s->n_ids;
        b->p.truncated_snippets = s->n_snippets;
        return 0;
}

static enum warm_order order_of(const struct warm_model *model,
                                const struct warm_prompt_source *s) {
        const struct warm_prompt_format *f = &model->format;

        if (s->continuation || f->order == WARM_ORDER_NONE || f->pre < 0 || f->suf < 0)
                return WARM_ORDER_NONE;
        if (s->order != WARM_ORDER_NONE && (f->orders & 1U << s->order))
                return s->order;
        return f->order;
}

static int build_any(struct build *b) {
        const struct warm_prompt_source *s = b->source;
        enum warm_order order;

        if (s->ids)
                return build_given(b);
        b->ids.n_max -= heal_room(s);
        order = order_of(b->model, s);
        if (!s->continuation)
                b->p.rest =
                        string_from(s->suffix, 0, warm_window_rest(s->suffix.data, s->suffix.n));
        return order == WARM_ORDER_NONE ? build_continuation(b) : build_fim(b, order);
}

int warm_prompt_build(const struct warm_model *model, const struct warm_prompt_source *source,
                      struct warm_prompt *ret_prompt) {
        struct build b = { .model = model, .source = source };
        int r;

        assert(model && source && ret_prompt);
        if (source->n_snippets > WARM_PROMPT_SNIPPETS_MAX || source->n_max >= source->n_context ||
            source->n_context - source->n_max < ROOM_MIN + heal_room(source))
                return -EINVAL;
        b.flags = source->special ? WARM_TOKENIZE_SPECIAL : 0;
        b.ids.n_max = source->n_context - source->n_max;
        b.ids.data = malloc(b.ids.n_max * sizeof(*b.ids.data));
        if (!b.ids.data)
                return -ENOMEM;
        r = build_any(&b);
        if (r < 0) {
                free(b.ids.data);
                return r;
        }
        assert(b.ids.n > 0 && b.ids.n <= b.ids.n_max);
        /*
         * A request that waits need not hold a context's worth. And what is allocated next does not begin 16 bytes behind
         * this modulo 4,096, where glibc's memcpy takes twenty times as long on Zen 3 (`rep movsb`).
         */
        b.p.ids = realloc(b.ids.data, b.ids.n * sizeof(*b.ids.data));
        if (!b.p.ids)
                b.p.ids = b.ids.data;
        b.p.n_ids = (uint32_t) b.ids.n;
        *ret_prompt = b.p;
        return 0;
}

void warm_prompt_deinit(struct warm_prompt *p) {
        if (!p)
                return;
        free(p->ids);
        p->ids = NULL;
        p->n_ids = 0;
}

uint64_t warm_prompt_window_bytes(const struct warm_model *model, uint32_t n_context) {
        uint64_t n = model->plan.n_context;

        if (n_context > 0 && n_context < n)
                n = n_context;
        n *= BYTES_A_TOKEN;
        return n < WARM_PREFIX_BYTES_MAX ? n : WARM_PREFIX_BYTES_MAX;
}
