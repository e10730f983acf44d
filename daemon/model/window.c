/* SPDX-License-Identifier: Apache-2.0 */
#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

#include "window.h"

#define LINE_HASHED_MAX   256U /* bytes of a line that count; a longer one is told apart by them */
#define LINE_STRONG_BYTES 8U  /* fewer characters that are not blank make a weak border (untuned) */
#define GRAM_BYTES        16U /* hashed at each place where a stretch holds no line's start */

static size_t back_to(const char *text, size_t i, char c) {
        while (i > 0 && text[i - 1] != c)
                i--;
        return i;
}

/* Start of the line after the one that i is in; n if that one does not end. */
static size_t next_line(const char *text, size_t n, size_t i) {
        const char *p = i < n ? memchr(text + i, '\n', n - i) : NULL;

        return p ? (size_t) (p - text) + 1 : n;
}

static size_t char_start(const char *text, size_t n, size_t i) {
        for (unsigned k = 0; k < 3 && i < n && ((unsigned char) text[i] & 0xc0) == 0x80; k++)
                i++;
        return i;
}

uint64_t warm_window_line_rank(const void *line, size_t n_line) {
        const char *p = line;
        size_t n_dark = 0;

        while (n_line > 0 && (p[n_line - 1] == '\n' || p[n_line - 1] == '\r'))
                n_line--;
        for (size_t i = 0; i < n_line && n_dark < LINE_STRONG_BYTES; i++)
                n_dark += p[i] != ' ' && p[i] != '\t';
        if (n_line > LINE_HASHED_MAX)
                n_line = LINE_HASHED_MAX;
        return XXH3_64bits(p, n_line) >> 1 | (uint64_t) (n_dark < LINE_STRONG_BYTES) << 63;
}

/* The place in [lo, hi) whose next bytes have the smallest hash; hi + GRAM_BYTES <= n. For text without lines. */
static size_t smallest_gram(const char *text, size_t lo, size_t hi) {
        size_t best = lo;
        uint64_t best_rank = UINT64_MAX;

        for (size_t i = lo; i < hi; i++) {
                uint64_t rank;

                if (((unsigned char) text[i] & 0xc0) == 0x80)
                        continue;
                rank = XXH3_64bits(text + i, GRAM_BYTES);
                if (rank < best_rank) {
                        best_rank = rank;
                        best = i;
                }
        }
        return best;
}

size_t warm_window_start(const void *data, size_t n, size_t room) {
        const char *text = data;
        size_t from = n > room ? n - room : 0, hi, best = n;
        uint64_t best_rank = UINT64_MAX;

        if (room == 0)
                return n;
        if (n <= room && n <= WARM_WINDOW_WHOLE_BYTES)
                return 0;
        hi = from + (n - from) / 4;
        for (size_t i = next_line(text, n, from); i <= hi; i = next_line(text, n, i)) {
                size_t end = next_line(text, n, i);
                uint64_t rank;

                if (end == n && text[n - 1] != '\n')
                        break; /* the cursor's line: it changes with each character */
                rank = warm_window_line_rank(text + i, end - i);
                if (rank < best_rank) {
                        best_rank = rank;
                        best = i;
                }
        }
        if (best < n)
                return best;
        if (from == 0)
                return 0;
        if (hi + GRAM_BYTES > n)
                return char_start(text, n, from);
        best = smallest_gram(text, from + 1, hi + 1);
        return char_start(text, n, best);
}

size_t warm_window_end(const void *data, size_t n, size_t room) {
        const char *text = data;
        size_t to = n > room ? room : n, lo = to - to / 4, best = 0;
        uint64_t best_rank = UINT64_MAX;

        if (n <= room && n <= WARM_WINDOW_WHOLE_BYTES)
                return n;
        for (size_t i = back_to(text, to, '\n'); i > 0 && i >= lo; i = back_to(text, i - 1, '\n')) {
                size_t start = back_to(text, i - 1, '\n');
                uint64_t rank;

                if (start == 0)
                        break; /* what is left of the cursor's line */
                rank = warm_window_line_rank(text + start, i - start);
                if (rank < best_rank) {
                        best_rank = rank;
                        best = i;
                }
        }
        if (best > 0)
                return best;
        /* One long line: nothing typed before the cursor moves a fixed length behind it. */
        while (to > 0 && to < n && ((unsigned char) text[to] & 0xc0) == 0x80)
                to--;
        return to;
}

void warm_window_split(size_t room, size_t n_before, size_t n_after, size_t *ret_before,
                       size_t *ret_after) {
        size_t step = room / 8, quarter = room / 4, before, after;

        if (step == 0) {
                *ret_before = room;
                *ret_after = 0;
                return;
        }
        before = n_before < room ? (n_before + step - 1) / step * step : room;
        after = n_after < room ? (n_after + step - 1) / step * step : room;
        *ret_after = before < room - quarter ? room - before : quarter;
        *ret_before = room - (after < quarter ? after : quarter);
}

size_t warm_window_anchor(const void *data, size_t n) {
        const char *text = data;
        size_t i = back_to(text, n, '\n'), best = 0;
        uint64_t best_rank = UINT64_MAX;

        for (unsigned k = 1; k <= WARM_ANCHOR_LINES_MAX && i > 0; k++) {
                size_t start = back_to(text, i - 1, '\n');

                if (k >= WARM_ANCHOR_LINES_MIN && start > 0) {
                        uint64_t rank = warm_window_line_rank(text + start, i - start);

                        if (rank < best_rank) {
                                best_rank = rank;
                                best = start;
                        }
                }
                i = start;
        }
        return best;
}

size_t warm_window_rest(const void *data, size_t n) {
        const char *text = data, *end = n > 0 ? memchr(text, '\n', n) : NULL;
        size_t n_line = end ? (size_t) (end - text) : n;

        if (n_line > 0 && text[n_line - 1] == '\r')
                n_line--;
        for (size_t i = 0; i < n_line; i++)
                if (!memchr(")]}>\"'`;, \t", text[i], 11))
                        return 0;
        return n_line;
}
