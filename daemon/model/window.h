/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which bytes around a cursor go into a prompt. Pure functions of bytes: no model, no tokens, no history.
 *
 * A border that moves with every typed character would empty the prefix cache each time. So borders stand at the line
 * with the smallest hash in a stretch: as the stretch slides, the smallest line stays smallest until it leaves or a
 * smaller one enters (docs/ARCHITECTURE.md, "Window").
 *
 * Thread: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vocab.h"

/* Text up to this long is taken whole: a client's own window that slides is longer (untuned guess). */
#define WARM_WINDOW_WHOLE_BYTES 1024U
#define WARM_ANCHOR_LINES_MIN                                                                      \
        8U /* the anchor is so many lines above the cursor's at least (untuned) */
#define WARM_ANCHOR_LINES_MAX 40U

/*
 * How good a border a line is: the smallest wins. XXH3_64 of its bytes without its end; lines with few characters
 * ("}", "end") come after all others, for they repeat: equal hashes would make the border hop from one to the next.
 */
uint64_t warm_window_line_rank(const void *line, size_t n_line);

/*
 * Where the window before the cursor starts: 0 .. n_text, never inside a UTF-8 character. At most room bytes are
 * kept. Text longer than room gives the same bytes whatever stands before its last room bytes.
 */
size_t warm_window_start(const void *text, size_t n_text, size_t room);

/* Where the window after the cursor ends: the mirror image, at a line's start. */
size_t warm_window_end(const void *text, size_t n_text, size_t room);

/*
 * Share room between the text before and after the cursor. After: a quarter; what one of them cannot use goes to the
 * other, in steps of an eighth, so that typing seldom moves the other's border.
 */
void warm_window_split(size_t room, size_t n_before, size_t n_after, size_t *ret_before,
                       size_t *ret_after);

/* The anchor: a line's start with 8 to 40 lines from there to the end of text; 0 if there is none. */
size_t warm_window_anchor(const void *text, size_t n_text);

/*
 * The rest of the cursor's line, if it is only closers, quotes, ';', ',' or blanks (at least one of them): its bytes,
 * without the line's end. 0: it is something else, or nothing.
 */
size_t warm_window_rest(const void *text, size_t n_text);
