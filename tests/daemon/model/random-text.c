/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random-text.h"

static const char *const shapes[] = {
        "'s",
        "'S",
        "'t",
        "'re",
        "'LL",
        "'vE",
        "'m",
        "'D",
        "'",
        "'x",
        " ",
        " ",
        " ",
        "  ",
        "\t",
        "\n",
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        " \n",
        "\v",
        "\f",
        "\xC2\xA0",
        "\xE2\x80\x83",
        "\xE3\x80\x80",
        "\xC2\x85",
        "\x1C",
        "a",
        "Zebra",
        "return",
        "_x",
        "1",
        "22",
        "333",
        "4444",
        "\xE0\xA5\xA7\xE0\xA5\xA8",
        "\xE2\x85\xA7",
        "\xC2\xB2",
        "+",
        " =",
        "==",
        "();",
        ".\n",
        "}",
        "\xE4\xB8\xAD\xE6\x96\x87",
        "\xE6\x97\xA5",
        "\xED\x95\x9C",
        "\xE0\xA4\xB9\xE0\xA4\xBF",
        "e\xCC\x81",
        "\xF0\x9F\x98\x80",
        "\xC5\xBF",
        "~",
        "$",
        "<|fim_prefix|>",
        "\xE2\x96\x81",
        "\xC3\xA9",
        "\xCE\xB1\xCE\xB2",
        "\xE0\xB8\x81",
        "\xEF\xBC\x81",
        "\xE9\xBE\xA6",
};

static size_t put_code(uint32_t c, uint8_t *p) {
        if (c < 0x80) {
                p[0] = (uint8_t) c;
                return 1;
        }
        if (c < 0x800) {
                p[0] = (uint8_t) (0xC0 | c >> 6);
                p[1] = (uint8_t) (0x80 | (c & 0x3F));
                return 2;
        }
        if (c < 0x10000) {
                p[0] = (uint8_t) (0xE0 | c >> 12);
                p[1] = (uint8_t) (0x80 | (c >> 6 & 0x3F));
                p[2] = (uint8_t) (0x80 | (c & 0x3F));
                return 3;
        }
        p[0] = (uint8_t) (0xF0 | c >> 18);
        p[1] = (uint8_t) (0x80 | (c >> 12 & 0x3F));
        p[2] = (uint8_t) (0x80 | (c >> 6 & 0x3F));
        p[3] = (uint8_t) (0x80 | (c & 0x3F));
        return 4;
}

static uint32_t random_code(uint64_t *state) {
        static const uint32_t limits[] = { 0x80, 0x300, 0x3000, 0xD800, 0x20000, 0x110000 };
        uint32_t c = random_below(state, limits[random_below(state, 6)]);

        return c >= 0xD800 && c < 0xE000 ? 0xFFFD : c;
}

uint64_t random_seed(uint64_t otherwise) {
        const char *given = getenv("WARM_SEED");
        uint64_t seed = given ? strtoull(given, NULL, 0) : otherwise;

        printf("WARM_SEED=%llu\n", (unsigned long long) seed);
        return seed ? seed : 1;
}

size_t random_text(uint64_t *state, uint8_t *text, size_t n_max, bool bad) {
        size_t n = 0, wanted = random_below(state, (uint32_t) n_max + 1), length;
        uint8_t part[8 * 16];

        while (n < wanted) {
                uint32_t kind = random_below(state, bad ? 10 : 8), repeat;

                if (kind < 5) {
                        const char *shape =
                                shapes[random_below(state, sizeof shapes / sizeof *shapes)];

                        length = strlen(shape);
                        memcpy(part, shape, length);
                } else if (kind < 8) {
                        length = put_code(random_code(state), part);
                } else {
                        part[0] = (uint8_t) (0x80 + random_below(state, 0x80));
                        length = 1;
                }
                repeat = random_below(state, 8) ? 1 : 1 + random_below(state, 12);
                while (repeat-- > 0 && n + length <= n_max) {
                        memcpy(text + n, part, length);
                        n += length;
                }
                if (n + length > n_max)
                        break;
        }
        return n;
}
