/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes are taken one at a time, so that how they were cut into tokens cannot matter. After each byte `n_stable` says
 * how much of the text no rule can take away any more; only that is shown, and every cut at the end keeps it. The
 * rules, and why they are these, are in docs/ARCHITECTURE.md, "Answers".
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"

#define SUFFIX_BYTES_MAX 4096U /* of the suffix that an answer is compared with */
#define TAB_COLUMNS      8U    /* a tab goes on to the next multiple */
#define REPEATS_MAX      3U    /* lines that come that often end it */
#define PERIOD_MAX       4U    /* lines that repeat together, at most (untuned) */
#define ENOUGH_BYTES                                                                               \
        8U /* of the suffix's next lines, blanks not counted, that nobody writes by chance */
#define BORDERS_MAX                                                                                \
        32U /* lengths at which text and suffix agree that are looked at, longest first */

/* Knuth-Morris-Pratt: after each byte, the longest end of the text that begins the pattern. */
struct matcher {
        uint8_t *pattern;
        uint32_t *fail; /* [n + 1] longest proper border of the first i bytes */
        uint32_t n;
        uint32_t state; /* bytes matched now */
};

/* How deep the answer's own brackets are open: ( [ { < */
struct brackets {
        uint32_t depth[4];
};

struct line {
        size_t start, end; /* without its newline */
};

/* For one period p: does the text go on as it did p lines above? Lines that are blank are not counted. */
struct repeat {
        bool like;        /* the line being written does so far */
        uint32_t n_lines; /* whole lines in a row that did */
        size_t end;       /* of the line before them: there a repetition is cut */
};

struct warm_answer {
        bool raw;
        uint32_t n_heal, lines, indent_min;
        struct matcher suffix;
        struct matcher stops[WARM_STOPS_MAX];
        uint32_t n_stops;
        uint32_t n_rest; /* bytes at the suffix's start kept out of the prompt */
        uint32_t n_line; /* bytes of the suffix on the cursor's line, "\r" not counted */
        uint32_t
                n_enough; /* bytes of the suffix that are no chance to write: see count_enough(); 0: never */
        uint8_t rest_first; /* the first of the rest that is not blank; 0: none */

        uint8_t *text; /* [n_max] */
        size_t n_max;
        size_t n;        /* bytes of text */
        size_t n_stable; /* of them, those that may be shown */
        enum warm_finish finish;
        bool line_ended; /* the last byte was a newline */
        uint32_t n_heal_left;
        uint32_t n_lines; /* newlines so far */
        uint32_t trimmed;

        struct brackets open;
        size_t rest_at; /* where the answer first does what the rest does; n_max + 1: nowhere yet */
        size_t line_start;                 /* of the line being written */
        bool indenting;                    /* only blanks in it so far */
        uint32_t column;                   /* of it, while indenting */
        size_t dark_end;                   /* end of the last line that is not blank */
        uint32_t n_dark;                   /* whole lines that are not blank */
        struct line dark[PERIOD_MAX];      /* the last of them: the i-th at i % PERIOD_MAX */
        struct repeat repeats[PERIOD_MAX]; /* of 1 line, of 2, ... */
        size_t run_end;                    /* where the repetition that ended it is cut */
};

const char *warm_finish_name(enum warm_finish f) {
        static const char *const names[_WARM_FINISH_N] = {
                [WARM_FINISH_NONE] = "none",
                [WARM_FINISH_END] = "end",
                [WARM_FINISH_STOP] = "stop",
                [WARM_FINISH_LENGTH] = "length",
                [WARM_FINISH_LINES] = "lines",
                [WARM_FINISH_INDENT] = "indent",
                [WARM_FINISH_TIME] = "time",
                [WARM_FINISH_DEADLINE] = "deadline",
                [WARM_FINISH_SUPERSEDED] = "superseded",
                [WARM_FINISH_CANCELLED] = "cancelled",
        };

        assert((unsigned) f < _WARM_FINISH_N);
        return names[f];
}

static int matcher_init(struct matcher *m, const void *pattern, size_t n) {
        uint32_t k = 0;

        if (n == 0)
                return 0;
        m->pattern = malloc(n);
        m->fail = calloc(n + 1, sizeof(*m->fail));
        if (!m->pattern || !m->fail)
                return -ENOMEM;
        memcpy(m->pattern, pattern, n);
        m->n = (uint32_t) n;
        for (uint32_t i = 1; i < m->n; i++) {
                while (k > 0 && m->pattern[i] != m->pattern[k])
                        k = m->fail[k];
                k += m->pattern[i] == m->pattern[k];
                m->fail[i + 1] = k;
        }
        return 0;
}

static void matcher_deinit(struct matcher *m) {
        free(m->pattern);
        free(m->fail);
}

static void matcher_add(struct matcher *m, uint8_t c) {
        if (m->n == 0)
                return;
        if (m->state == m->n)
                m->state = m->fail[m->state];
        while (m->state > 0 && m->pattern[m->state] != c)
                m->state = m->fail[m->state];
        m->state += m->pattern[m->state] == c;
}

static bool is_blank(uint8_t c) {
        return c == ' ' || c == '\t';
}

static bool is_quote(uint8_t c) {
        return c == '"' || c == '\'' || c == '`';
}

/* Kind of bracket, or -1; opening or closing. An arrow's head is none. */
static int bracket_of(const uint8_t *text, size_t i, bool *ret_opens) {
        static const char opening[] = "([{<", closing[] = ")]}>";
        const char *p;

        if (text[i] == 0)
                return -1;
        p = strchr(opening, text[i]);
        if (p) {
                *ret_opens = true;
                return (int) (p - opening);
        }
        p = strchr(closing, text[i]);
        if (!p || (text[i] == '>' && i > 0 && (text[i - 1] == '-' || text[i - 1] == '=')))
                return -1;
        *ret_opens = false;
        return (int) (p - closing);
}

/* Take text[i] in. Return: true if it closes what the text did not open. */
static bool brackets_add(struct brackets *b, const uint8_t *text, size_t i) {
        bool opens;
        int kind = bracket_of(text, i, &opens);

        if (kind < 0)
                return false;
        if (opens) {
                b->depth[kind]++;
                return false;
        }
        if (b->depth[kind] == 0)
                return true;
        b->depth[kind]--;
        return false;
}

/* A cut at `at` must not leave a bracket open that the text closes behind it. '<' is too often an operator to ask. */
static bool parts_a_pair(const uint8_t *text, size_t n, size_t at) {
        struct brackets b = { 0 };
        uint32_t kept[4];

        for (size_t i = 0; i < at; i++)
                brackets_add(&b, text, i);
        memcpy(kept, b.depth, sizeof(kept));
        for (size_t i = at; i < n; i++) {
                brackets_add(&b, text, i);
                for (unsigned k = 0; k < 3; k++)
                        if (b.depth[k] < kept[k])
                                return true;
        }
        return false;
}

/* Are brackets of the text open at `at`? Then what follows stands inside them. */
static bool is_inside(const uint8_t *text, size_t at) {
        struct brackets b = { 0 };

        for (size_t i = 0; i < at; i++)
                brackets_add(&b, text, i);
        return b.depth[0] + b.depth[1] + b.depth[2] > 0;
}

/* The cursor's line and the shortest whole lines below it that are enough to know the suffix by. */
static uint32_t count_enough(const struct matcher *suffix, uint32_t n_line) {
        uint32_t n_dark = 0;

        for (uint32_t i = n_line; i < suffix->n; i++) {
                uint8_t c = suffix->pattern[i];

                n_dark += !is_blank(c) && c != '\r' && c != '\n';
                if (c == '\n' && n_dark >= ENOUGH_BYTES)
                        return i + 1;
        }
        return 0;
}

static int answer_copy(struct warm_answer *a, const struct warm_answer_config *c) {
        size_t n_suffix = c->suffix.n < SUFFIX_BYTES_MAX ? c->suffix.n : SUFFIX_BYTES_MAX;
        int r;

        for (; a->n_stops < c->n_stops; a->n_stops++) {
                r = matcher_init(&a->stops[a->n_stops], c->stops[a->n_stops].data,
                                 c->stops[a->n_stops].n);
                if (r < 0)
                        return r;
        }
        r = matcher_init(&a->suffix, c->suffix.data, n_suffix);
        if (r < 0)
                return r;
        while (a->n_line < n_suffix && c->suffix.data[a->n_line] != '\n')
                a->n_line++;
        if (a->n_line > 0 && c->suffix.data[a->n_line - 1] == '\r')
                a->n_line--;
        a->n_enough = count_enough(&a->suffix, a->n_line);
        a->n_rest = c->rest.n < a->n_line ? (uint32_t) c->rest.n : a->n_line;
        for (uint32_t i = 0; i < a->n_rest && a->rest_first == 0; i++)
                if (!is_blank((uint8_t) c->rest.data[i]))
                        a->rest_first = (uint8_t) c->rest.data[i];
        return 0;
}

int warm_answer_new(const struct warm_answer_config *config, struct warm_answer **ret_answer) {
        struct warm_answer *a;
        int r;

        assert(config && ret_answer);
        assert(config->n_stops <= WARM_STOPS_MAX);
        a = calloc(1, sizeof(*a));
        if (!a)
                return -ENOMEM;
        a->raw = config->raw;
        a->n_heal = config->n_heal;
        a->lines = config->lines;
        a->indent_min = config->raw ? 0 : config->indent_min;
        a->n_max = config->text_bytes_max;
        a->text = malloc(a->n_max + 1);
        r = a->text ? answer_copy(a, config) : -ENOMEM;
        if (r < 0) {
                warm_answer_free(a);
                return r;
        }
        warm_answer_reset(a);
        *ret_answer = a;
        return 0;
}

struct warm_answer *warm_answer_free(struct warm_answer *a) {
        if (!a)
                return NULL;
        for (unsigned i = 0; i < WARM_STOPS_MAX; i++)
                matcher_deinit(&a->stops[i]);
        matcher_deinit(&a->suffix);
        free(a->text);
        free(a);
        return NULL;
}

void warm_answer_reset(struct warm_answer *a) {
        for (uint32_t i = 0; i < a->n_stops; i++)
                a->stops[i].state = 0;
        a->suffix.state = 0;
        a->n = a->n_stable = 0;
        a->finish = WARM_FINISH_NONE;
        a->line_ended = false;
        a->n_heal_left = a->n_heal;
        a->n_lines = a->trimmed = 0;
        a->open = (struct brackets){ 0 };
        a->rest_at = a->n_max + 1;
        a->line_start = a->dark_end = a->run_end = 0;
        a->indenting = true;
        a->column = 0;
        a->n_dark = 0;
        memset(a->repeats, 0, sizeof(a->repeats));
}

/* Keep the first n bytes, and never less than what may have been shown. */
static void cut(struct warm_answer *a, size_t n) {
        if (n < a->n_stable)
                n = a->n_stable;
        if (n < a->n)
                a->n = n;
}

static size_t without_blanks(const uint8_t *text, size_t n) {
        while (n > 0 && (is_blank(text[n - 1]) || text[n - 1] == '\r'))
                n--;
        return n;
}

/* Length of an unfinished UTF-8 character at the end of text; 0: it is whole, or not UTF-8 at all. */
static size_t unfinished_char(const uint8_t *text, size_t n) {
        for (size_t k = 1; k <= 3 && k <= n; k++) {
                uint8_t c = text[n - k];
                size_t need;

                if ((c & 0xc0) == 0x80)
                        continue;
                need = c >= 0xf0 && c <= 0xf4 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 1;
                return c <= 0xf4 && need > k ? k : 0;
        }
        return 0;
}

/*
 * The answer wrote the rest of the cursor's line, which stayed out of the prompt: keep what stands before. If the line
 * ends with the very rest, it is that; else it is where a bracket, quote or mark first does what the rest's first does.
 * Return: whether something was cut.
 */
static bool cut_rest(struct warm_answer *a, size_t n_line) {
        size_t n_text = without_blanks(a->text, n_line);
        size_t n_rest = without_blanks(a->suffix.pattern, a->n_rest), at;

        if (a->rest_first == 0)
                return false;
        at = a->rest_at;
        if (n_rest <= n_text && memcmp(a->text + n_text - n_rest, a->suffix.pattern, n_rest) == 0 &&
            !parts_a_pair(a->text, n_text, n_text - n_rest))
                at = n_text - n_rest;
        if (at > n_text)
                return false;
        cut(a, at);
        return true;
}

/* May k bytes at the end, equal to the suffix's first k, be taken for a repetition and not for chance? */
static bool is_repeat(const struct warm_answer *a, uint32_t k) {
        const uint8_t *s = a->suffix.pattern;
        bool border = k == a->suffix.n || s[k] == '\n' || s[k] == '\r' || s[k - 1] == '\n';
        uint32_t n_dark = 0;

        if (a->n - k < a->n_stable)
                return false;
        if (k < a->n_line)
                return false;
        /* Cut short in the middle of a line: the rest of it would have come. */
        if (!border && (a->finish == WARM_FINISH_END || k <= a->n_line))
                return false;
        if (k == a->n_line && a->n_rest == 0) {
                for (uint32_t i = 0; i < k; i++)
                        n_dark += !is_blank(s[i]);
                if (n_dark < 2)
                        return false;
        }
        return !parts_a_pair(a->text, a->n, a->n - k);
}

/* Cut the longest end of the text that repeats the start of the suffix. */
static void cut_suffix(struct warm_answer *a) {
        a->suffix.state = 0;
        for (size_t i = 0; i < a->n; i++)
                matcher_add(&a->suffix, a->text[i]);
        for (uint32_t k = a->suffix.state, i = 0; k > 0 && i < BORDERS_MAX; i++) {
                if (is_repeat(a, k)) {
                        cut(a, a->n - k);
                        return;
                }
                k = a->suffix.fail[k];
        }
}

/* The end is decided: make the cuts that it brings, and let all that is left be shown. */
static void settle(struct warm_answer *a) {
        size_t n;

        if (!a->raw) {
                cut(a, a->n - unfinished_char(a->text, a->n));
                n = a->n;
                if (!(a->n_rest > 0 && a->n_lines == 0 && cut_rest(a, a->n)))
                        cut_suffix(a);
                a->trimmed += (uint32_t) (n - a->n);
        }
        a->n_stable = a->n;
}

static enum warm_finish finish(struct warm_answer *a, enum warm_finish why, size_t n) {
        cut(a, n);
        a->finish = why;
        settle(a);
        return why;
}

/* The line that stands `period` lines above the one being written, or NULL. */
static const struct line *line_above(const struct warm_answer *a, uint32_t period) {
        return a->n_dark < period ? NULL : &a->dark[(a->n_dark - period) % PERIOD_MAX];
}

/* Does a line that ends here end the third of equal stretches? Blank lines between and in them do not count. */
static bool line_done(struct warm_answer *a, size_t end) {
        bool done = false;

        if (without_blanks(a->text, end) <= a->line_start)
                return false;
        for (uint32_t p = 1; p <= PERIOD_MAX; p++) {
                struct repeat *r = &a->repeats[p - 1];
                const struct line *above = line_above(a, p);

                if (r->like && end - a->line_start == above->end - above->start)
                        r->n_lines++;
                else
                        *r = (struct repeat){ .end = end };
                if (!done && r->n_lines == (REPEATS_MAX - 1) * p) {
                        done = true;
                        a->run_end = r->end;
                }
        }
        a->dark[a->n_dark++ % PERIOD_MAX] = (struct line){ a->line_start, end };
        return done;
}

/* A line begins: until it says otherwise, as each of those above. */
static void line_begin(struct warm_answer *a) {
        for (uint32_t p = 1; p <= PERIOD_MAX; p++)
                a->repeats[p - 1].like = line_above(a, p) != NULL;
}

/* The line's byte at `at` was written. A carriage return at the end of a line is not of it. */
static void compare_above(struct warm_answer *a, size_t at, uint8_t c) {
        for (uint32_t p = 1; p <= PERIOD_MAX; p++) {
                const struct line *above = line_above(a, p);
                size_t n = above ? above->end - above->start : 0;

                if (at < n)
                        a->repeats[p - 1].like &= c == a->text[above->start + at];
                else
                        a->repeats[p - 1].like &= c == '\r' && at == n;
        }
}

/* How much may be shown whatever repetition this becomes. A line of blanks may still be one that does not count. */
static size_t hold_repeats(const struct warm_answer *a, size_t hold) {
        for (uint32_t p = 1; p <= PERIOD_MAX; p++) {
                const struct repeat *r = &a->repeats[p - 1];

                if ((r->like || (a->indenting && line_above(a, p))) && r->end < hold)
                        hold = r->end;
        }
        return hold;
}

static enum warm_finish add_newline(struct warm_answer *a) {
        size_t end = a->n - 1, n = a->n;

        if (end > 0 && a->text[end - 1] == '\r')
                end--;
        if (a->lines > 0 && a->n_lines + 1 >= a->lines)
                return finish(a, WARM_FINISH_LINES, end);
        if (!a->raw) {
                if (a->n_rest > 0 && a->n_lines == 0 && cut_rest(a, end)) {
                        a->trimmed += (uint32_t) (n - a->n);
                        a->n_lines++;
                        return finish(a, WARM_FINISH_END, a->n);
                }
                if (line_done(a, end))
                        return finish(a, WARM_FINISH_END, a->run_end);
        }
        if (!a->indenting)
                a->dark_end = end;
        a->n_lines++;
        a->line_ended = true;
        a->line_start = a->n;
        a->indenting = true;
        a->column = 0;
        line_begin(a);
        return WARM_FINISH_NONE;
}

/*
 * Does the last byte do what the first of the rest does: close what the answer did not open, or end a statement? Below
 * the cursor's line only a bracket can.
 */
static void look_for_rest(struct warm_answer *a, bool unmatched) {
        size_t i = a->n - 1;
        uint8_t c = a->text[i];

        if (a->rest_first == 0 || c != a->rest_first || a->rest_at <= a->n_max)
                return;
        if (is_quote(c)) {
                if (a->n_lines > 0 || (i > 0 && a->text[i - 1] == '\\'))
                        return;
        } else if (c == ';' || c == ',') {
                if (a->n_lines > 0 || a->open.depth[0] + a->open.depth[1] + a->open.depth[2] > 0)
                        return;
        } else if (!unmatched)
                return;
        a->rest_at = i;
}

static void find_stable(struct warm_answer *a) {
        size_t n = a->n - (a->raw ? 0 : unfinished_char(a->text, a->n)), hold = n;

        for (uint32_t i = 0; i < a->n_stops; i++)
                if (a->n - a->stops[i].state < hold)
                        hold = a->n - a->stops[i].state;
        if ((a->lines > 0 || !a->raw) && a->n > 0 && a->text[a->n - 1] == '\r' && a->n - 1 < hold)
                hold = a->n - 1;
        if (!a->raw) {
                if (a->n - a->suffix.state < hold)
                        hold = a->n - a->suffix.state;
                if (a->rest_at < hold)
                        hold = a->rest_at;
                if (a->indenting && a->n_lines > 0 && a->indent_min > 0 && a->dark_end < hold)
                        hold = a->dark_end;
                hold = hold_repeats(a, hold);
        }
        if (hold > a->n_stable)
                a->n_stable = hold;
}

/* A character that is not a newline. */
static enum warm_finish add_plain(struct warm_answer *a, uint8_t c) {
        size_t at = a->n - 1 - a->line_start;
        bool unmatched;

        a->line_ended = false;
        if (a->raw)
                return WARM_FINISH_NONE;
        unmatched = brackets_add(&a->open, a->text, a->n - 1);
        look_for_rest(a, unmatched);
        if (a->rest_at <= a->n_max && a->n_lines > 0) {
                a->trimmed += (uint32_t) (a->n - a->rest_at);
                return finish(a, WARM_FINISH_END, a->rest_at);
        }
        compare_above(a, at, c);
        if (!a->indenting || c == '\r')
                return WARM_FINISH_NONE;
        if (is_blank(c)) {
                a->column += c == '\t' ? TAB_COLUMNS - a->column % TAB_COLUMNS : 1;
                return WARM_FINISH_NONE;
        }
        a->indenting = false;
        if (a->n_lines > 0 && a->column < a->indent_min)
                return finish(a, WARM_FINISH_INDENT, a->dark_end);
        return WARM_FINISH_NONE;
}

static enum warm_finish add(struct warm_answer *a, uint8_t c) {
        enum warm_finish why;

        if (a->n == a->n_max)
                return finish(a, WARM_FINISH_LENGTH, a->n);
        a->text[a->n++] = c;
        for (uint32_t i = 0; i < a->n_stops; i++)
                matcher_add(&a->stops[i], c);
        for (uint32_t i = 0, longest = 0; i <= a->n_stops; i++) {
                if (i == a->n_stops && longest > 0)
                        return finish(a, WARM_FINISH_STOP, a->n - longest);
                if (i < a->n_stops && a->stops[i].n > longest && a->stops[i].state == a->stops[i].n)
                        longest = a->stops[i].n;
        }
        if (!a->raw)
                matcher_add(&a->suffix, c);
        if (!a->raw && a->n_enough > 0 && a->suffix.state == a->n_enough &&
            !is_inside(a->text, a->n - a->n_enough)) {
                a->trimmed += a->n_enough;
                return finish(a, WARM_FINISH_END, a->n - a->n_enough);
        }
        why = c == '\n' ? add_newline(a) : add_plain(a, c);
        if (why == WARM_FINISH_NONE)
                find_stable(a);
        return why;
}

enum warm_finish warm_answer_push(struct warm_answer *a, const void *bytes, size_t n_bytes) {
        const uint8_t *p = bytes;

        for (size_t i = 0; i < n_bytes && a->finish == WARM_FINISH_NONE; i++) {
                if (a->n_heal_left > 0)
                        a->n_heal_left--;
                else
                        add(a, p[i]);
        }
        return a->finish;
}

enum warm_finish warm_answer_end(struct warm_answer *a, enum warm_finish why) {
        assert(why != WARM_FINISH_NONE);
        if (a->finish != WARM_FINISH_NONE)
                return a->finish;
        if (!a->raw && !a->line_ended && line_done(a, a->n))
                return finish(a, why, a->run_end);
        return finish(a, why, a->n);
}

bool warm_answer_at_line_end(const struct warm_answer *a) {
        return a->line_ended && a->finish == WARM_FINISH_NONE;
}

struct warm_string warm_answer_text(const struct warm_answer *a) {
        return (struct warm_string){ .data = (const char *) a->text, .n = a->n_stable };
}

uint32_t warm_answer_trimmed(const struct warm_answer *a) {
        return a->trimmed;
}
