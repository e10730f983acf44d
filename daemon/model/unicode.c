/* SPDX-License-Identifier: Apache-2.0 */
#include "unicode.h"

static inline int is_continuation(uint8_t byte) {
        return (byte & 0xC0) == 0x80;
}

size_t warm_utf8_read(const uint8_t *text, size_t n, uint32_t *ret_code) {
        uint8_t a = text[0];
        uint32_t code;

        if (a < 0x80) {
                *ret_code = a;
                return 1;
        }
        *ret_code = WARM_UNICODE_BAD;
        if (a < 0xC2 || a > 0xF4 || n < 2 || !is_continuation(text[1]))
                return 1;
        if (a < 0xE0) {
                *ret_code = (uint32_t) (a & 0x1F) << 6 | (text[1] & 0x3F);
                return 2;
        }
        if (n < 3 || !is_continuation(text[2]))
                return 1;
        if (a < 0xF0) {
                code = (uint32_t) (a & 0x0F) << 12 | (uint32_t) (text[1] & 0x3F) << 6 |
                       (text[2] & 0x3F);
                if (code < 0x800 || (code >= 0xD800 && code < 0xE000))
                        return 1;
                *ret_code = code;
                return 3;
        }
        if (n < 4 || !is_continuation(text[3]))
                return 1;
        code = (uint32_t) (a & 0x07) << 18 | (uint32_t) (text[1] & 0x3F) << 12 |
               (uint32_t) (text[2] & 0x3F) << 6 | (text[3] & 0x3F);
        if (code < 0x10000 || code >= 0x110000)
                return 1;
        *ret_code = code;
        return 4;
}

size_t warm_utf8_border(const uint8_t *text, size_t n, size_t at) {
        uint32_t code;
        size_t start, length;

        if (at == 0 || at >= n || !is_continuation(text[at]))
                return at;
        for (start = at - 1; at - start < 3 && start > 0 && is_continuation(text[start]); start--)
                ;
        length = warm_utf8_read(text + start, n - start, &code);
        return start + length > at ? start + length : at;
}
