/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pre-tokenizers need of Unicode: one class for each code point, and strict UTF-8.
 *
 * The tables are those of Unicode 15.1, the version that the reference tokenizer carries (tools/unicode-tables.py
 * writes them). Stateless.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* White space is a property, not a category: it wins over the category. A byte that is not UTF-8 is OTHER. */
enum warm_unicode_class {
        WARM_UNICODE_OTHER, /* control, format, unassigned, private */
        WARM_UNICODE_LETTER,
        WARM_UNICODE_NUMBER,
        WARM_UNICODE_SPACE,
        WARM_UNICODE_PUNCTUATION,
        WARM_UNICODE_SYMBOL,
        WARM_UNICODE_MARK,
};

#define WARM_UNICODE_BAD                                                                           \
        UINT32_MAX /* in place of a code point: a byte that begins no valid character */

extern const uint8_t warm_unicode_index[0x110000 / 256];
extern const uint8_t warm_unicode_blocks[][256];

/* @param code a code point or WARM_UNICODE_BAD */
static inline enum warm_unicode_class warm_unicode_class_of(uint32_t code) {
        if (code >= 0x110000)
                return WARM_UNICODE_OTHER;
        return (enum warm_unicode_class)
                warm_unicode_blocks[warm_unicode_index[code >> 8]][code & 255];
}

/*
 * Read one character: no overlong forms, no surrogates, nothing above U+10FFFF (RFC 3629, section 4).
 *
 * @param text [n], n > 0
 * @param ret_code the code point; WARM_UNICODE_BAD, with length 1, for a byte that begins no valid character
 * Return: its length in bytes, 1 to 4.
 */
size_t warm_utf8_read(const uint8_t *text, size_t n, uint32_t *ret_code);

/* The first position >= at, and at most 3 further, that lies inside no valid character. */
size_t warm_utf8_border(const uint8_t *text, size_t n, size_t at);
