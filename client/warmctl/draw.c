/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Code as an editor shows it: a few lines around the cursor, coloured by a small scanner that knows what most
 * languages share (strings, numbers, comments, keywords), the completion in grey behind the cursor.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "warmctl.h"

#define LINES_ABOVE 6U
#define LINES_BELOW 3U

#define PLAIN   "\033[0m"
#define KEYWORD "\033[34m"
#define STRING  "\033[32m"
#define NUMBER  "\033[36m"
#define COMMENT "\033[35m"
#define GHOST   "\033[90m"
#define GUTTER  "\033[2m"

static const char *const keywords[] = {
        "auto",     "bool",    "break", "case",   "char",   "class",  "const",   "continue",
        "def",      "default", "do",    "double", "elif",   "else",   "enum",    "export",
        "extern",   "false",   "float", "fn",     "for",    "from",   "func",    "function",
        "goto",     "if",      "impl",  "import", "in",     "int",    "let",     "local",
        "long",     "match",   "mut",   "None",   "nil",    "not",    "NULL",    "package",
        "pub",      "return",  "self",  "short",  "signed", "sizeof", "static",  "struct",
        "switch",   "then",    "true",  "True",   "False",  "try",    "typedef", "union",
        "unsigned", "use",     "using", "var",    "void",   "while",  "with",    "yield",
};

static bool is_keyword(const char *word, size_t n) {
        for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
                if (strlen(keywords[i]) == n && memcmp(keywords[i], word, n) == 0)
                        return true;
        return false;
}

static bool is_word(char c) {
        return isalnum((unsigned char) c) || c == '_';
}

/* Bytes from the start of a comment, string, number, word or single character to its end. */
static size_t scan(const char *p, size_t n, bool hash_comments, const char **ret_colour) {
        size_t k = 1;

        *ret_colour = NULL;
        if ((n > 1 && p[0] == '/' && (p[1] == '/' || p[1] == '*')) ||
            (p[0] == '#' && hash_comments) ||
            (n > 1 && p[0] == ' ' && p[1] == '*' && n > 2 && p[2] == ' ')) {
                *ret_colour = COMMENT;
                return n;
        }
        if (p[0] == '"' || p[0] == '\'') {
                while (k < n && p[k] != p[0])
                        k += p[k] == '\\' ? 2 : 1;
                *ret_colour = STRING;
                return k + 1 < n ? k + 1 : n;
        }
        if (!is_word(p[0]))
                return 1;
        while (k < n && is_word(p[k]))
                k++;
        if (isdigit((unsigned char) p[0]))
                *ret_colour = NUMBER;
        else if (is_keyword(p, k))
                *ret_colour = KEYWORD;
        return k;
}

static void draw_code(const struct warmctl *ctl, const char *p, size_t n, bool hash_comments) {
        while (n > 0) {
                const char *colour;
                size_t k = scan(p, n, hash_comments, &colour);

                if (ctl->colour_out && colour)
                        fputs(colour, stdout);
                warmctl_print_text(stdout, p, k);
                if (ctl->colour_out && colour)
                        fputs(PLAIN, stdout);
                p += k;
                n -= k;
        }
}

/* @param line 0: none, a line that the file does not have */
static void draw_number(const struct warmctl *ctl, size_t line) {
        fputs(ctl->colour_out ? GUTTER : "", stdout);
        if (line)
                printf("%5zu | ", line);
        else
                fputs("      | ", stdout);
        fputs(ctl->colour_out ? PLAIN : "", stdout);
}

/* Ghost text: its first line behind the cursor, the others under it; what follows the cursor comes after the last. */
static void draw_ghost(const struct warmctl *ctl, const char *ghost, size_t n) {
        while (n > 0) {
                const char *newline = memchr(ghost, '\n', n);
                size_t k = newline ? (size_t) (newline - ghost) : n;

                fputs(ctl->colour_out ? GHOST : k ? "[" : "", stdout);
                warmctl_print_text(stdout, ghost, k);
                fputs(ctl->colour_out ? PLAIN : k ? "]" : "", stdout);
                if (!newline)
                        return;
                putchar('\n');
                draw_number(ctl, 0);
                ghost += k + 1;
                n -= k + 1;
        }
}

static bool has_hash_comments(const char *path) {
        static const char *const endings[] = { ".py",  ".sh",   ".build", ".conf", ".toml",
                                               ".yml", ".yaml", ".rb",    ".pl" };
        size_t n = strlen(path);

        for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
                if (n > strlen(endings[i]) &&
                    strcmp(path + n - strlen(endings[i]), endings[i]) == 0)
                        return true;
        return false;
}

static size_t line_end(const struct warmctl_cursor *c, size_t at) {
        const char *newline = memchr(c->file.text + at, '\n', c->file.n - at);

        return newline ? (size_t) (newline - c->file.text) : c->file.n;
}

void warmctl_draw(const struct warmctl *ctl, const struct warmctl_cursor *cursor, const char *ghost,
                  size_t n_ghost) {
        size_t first = cursor->line > LINES_ABOVE ? cursor->line - LINES_ABOVE : 1, at = cursor->at;
        bool hash = has_hash_comments(cursor->path);

        for (size_t line = cursor->line;; line--) { /* to the start of `first` */
                while (at > 0 && cursor->file.text[at - 1] != '\n')
                        at--;
                if (line == first)
                        break;
                at--;
        }
        for (size_t line = first; line <= cursor->line + LINES_BELOW && at <= cursor->file.n;
             line++) {
                size_t end = line_end(cursor, at);

                draw_number(ctl, line);
                if (line == cursor->line) {
                        draw_code(ctl, cursor->file.text + at, cursor->at - at, hash);
                        draw_ghost(ctl, ghost, n_ghost);
                        at = cursor->at;
                }
                draw_code(ctl, cursor->file.text + at, end - at, hash);
                putchar('\n');
                at = end + 1;
        }
}
