/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "pretoken.h"
#include "unicode.h"

#define BIT(class)  (1U << (class))
#define CLASS_END   7U /* past the end: in no set */
#define SET_LETTERS BIT(WARM_UNICODE_LETTER)
#define SET_NUMBERS BIT(WARM_UNICODE_NUMBER)
#define SET_SPACES  BIT(WARM_UNICODE_SPACE)
#define SET_PUNCT   BIT(WARM_UNICODE_PUNCTUATION)
/* [^\s\p{L}\p{N}] */
#define SET_OTHERS                                                                                 \
        (BIT(WARM_UNICODE_OTHER) | BIT(WARM_UNICODE_PUNCTUATION) | BIT(WARM_UNICODE_SYMBOL) |      \
         BIT(WARM_UNICODE_MARK))

/* One expression. The comment is what it stands for; text that it does not match is a piece as well. */
enum stage {
        STAGE_NUMBER, /* \p{N} */
        STAGE_GPT2, /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
        STAGE_WORDS,        /* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|
                             *  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
        STAGE_WORDS_3,      /* the same with \p{N}{1,3} */
        STAGE_WORDS_SEED,   /* the same with \p{N}, and no [\r\n]* after punctuation */
        STAGE_NEWLINE,      /* [\r\n] */
        STAGE_SPACE_LETTER, /* \s?\p{L}+ */
        STAGE_SPACE_PUNCT,  /* \s?\p{P}+ */
        STAGE_CJK,          /* [一-龥ࠀ-一가-퟿]+, white space excepted */
};

struct warm_pretokenizer {
        uint8_t n_stages;
        uint8_t stages[WARM_PRETOKEN_STAGES_MAX];
        bool takes_whole;
};

static const struct warm_pretokenizer gpt2 = { 1, { STAGE_GPT2 }, false },
                                      starcoder = { 2, { STAGE_NUMBER, STAGE_GPT2 }, false },
                                      qwen2 = { 1, { STAGE_WORDS }, false },
                                      llama3 = { 1, { STAGE_WORDS_3 }, false },
                                      llama3_whole = { 1, { STAGE_WORDS_3 }, true },
                                      seed_coder = { 1, { STAGE_WORDS_SEED }, false },
                                      deepseek_coder = { 5,
                                                         { STAGE_NEWLINE, STAGE_SPACE_LETTER,
                                                           STAGE_SPACE_PUNCT, STAGE_CJK,
                                                           STAGE_NUMBER },
                                                         false };

/* The names that llama.cpp gives to the same rules (llm_tokenizer_bpe and llama_vocab::load in llama-vocab.cpp). */
static const struct {
        const char *name;
        const struct warm_pretokenizer *rules;
} names[] = {
        { "qwen2", &qwen2 },
        { "deepseek-r1-qwen", &qwen2 },
        { "kormo", &qwen2 },
        { "f2llmv2", &qwen2 },
        { "megrez", &qwen2 },
        { "stablelm2", &qwen2 },
        { "hunyuan", &qwen2 },
        { "solar-open", &qwen2 },
        { "grok-2", &qwen2 },
        { "llama-bpe", &llama3_whole },
        { "llama3", &llama3_whole },
        { "llama-v3", &llama3_whole },
        { "falcon3", &llama3_whole },
        { "falcon-h1", &llama3_whole },
        { "pixtral", &llama3_whole },
        { "midm-2.0", &llama3_whole },
        { "lfm2", &llama3_whole },
        { "dbrx", &llama3 },
        { "smaug-bpe", &llama3 },
        { "glm4", &llama3 },
        { "chatglm-bpe", &llama3 },
        { "smollm", &starcoder },
        { "starcoder", &starcoder },
        { "refact", &starcoder },
        { "command-r", &starcoder },
        { "codeshell", &starcoder },
        { "exaone", &starcoder },
        { "minerva-7b", &starcoder },
        { "mellum2", &starcoder },
        { "gpt-2", &gpt2 },
        { "phi-2", &gpt2 },
        { "mpt", &gpt2 },
        { "olmo", &gpt2 },
        { "jais", &gpt2 },
        { "trillion", &gpt2 },
        { "granite-docling", &gpt2 },
        { "gigachat", &gpt2 },
        { "mellum", &gpt2 },
        { "exaone4", &gpt2 },
        { "deepseek-coder", &deepseek_coder },
        { "seed-coder", &seed_coder },
};

const struct warm_pretokenizer *warm_pretokenizer_find(const char *name, size_t n) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                if (strlen(names[i].name) == n && memcmp(names[i].name, name, n) == 0)
                        return names[i].rules;
        return NULL;
}

bool warm_pretokenizer_takes_whole(const struct warm_pretokenizer *p) {
        return p->takes_whole;
}

struct character {
        uint32_t code;
        uint8_t class;
        uint8_t n;
};

static inline struct character read_at(const uint8_t *text, size_t at, size_t end) {
        struct character c = { WARM_UNICODE_BAD, CLASS_END, 0 };

        if (at < end && text[at] < 0x80)
                return (struct character){ text[at], warm_unicode_blocks[0][text[at]], 1 };
        if (at < end) {
                c.n = (uint8_t) warm_utf8_read(text + at, end - at, &c.code);
                c.class = (uint8_t) warm_unicode_class_of(c.code);
        }
        return c;
}

/* Go on over characters of a set. */
static size_t run_of(const uint8_t *text, size_t at, size_t end, unsigned set) {
        struct character c;

        while (c = read_at(text, at, end), BIT(c.class) & set)
                at += c.n;
        return at;
}

static inline bool is_newline(uint32_t code) {
        return code == '\r' || code == '\n';
}

/* The length of 's 't 'm 'd 're 've 'll at `at`, or 0. fold: 0x20 takes capitals as well, 0 does not. */
static size_t contraction(const uint8_t *text, size_t at, size_t end, uint8_t fold) {
        uint8_t a, b;

        if (text[at] != '\'' || end - at < 2)
                return 0;
        a = text[at + 1] | fold;
        if (a == 's' || a == 't' || a == 'm' || a == 'd')
                return 2;
        if (end - at < 3)
                return 0;
        b = text[at + 2] | fold;
        return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s*[\r\n]+ (if newlines), then \s+(?!\S), then \s+ */
static size_t white_space(const uint8_t *text, size_t at, size_t end, bool newlines) {
        size_t p = at, last = at, after_newline = 0;
        struct character c;

        while (c = read_at(text, p, end), c.class == WARM_UNICODE_SPACE) {
                last = p;
                p += c.n;
                if (is_newline(c.code))
                        after_newline = p;
        }
        if (newlines && after_newline)
                return after_newline;
        return p < end && last > at ? last : p; /* the last one belongs to what follows */
}

static size_t gpt2_piece(const uint8_t *text, size_t at, size_t end) {
        static const unsigned sets[] = { SET_LETTERS, SET_NUMBERS, SET_OTHERS };
        size_t n = contraction(text, at, end, 0), p = at + (text[at] == ' ');
        struct character c;

        if (n)
                return at + n;
        c = read_at(text, p, end);
        for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
                if (BIT(c.class) & sets[i])
                        return run_of(text, p, end, sets[i]);
        return white_space(text, at, end, false);
}

static size_t words_piece(const uint8_t *text, size_t at, size_t end, unsigned n_digits_max,
                          bool newlines_follow) {
        struct character c = read_at(text, at, end), next;
        size_t n = contraction(text, at, end, 0x20), p;

        if (n)
                return at + n;
        if (c.class == WARM_UNICODE_LETTER)
                return run_of(text, at, end, SET_LETTERS);
        if (c.class == WARM_UNICODE_NUMBER) {
                for (p = at; n_digits_max && c.class == WARM_UNICODE_NUMBER; n_digits_max--) {
                        p += c.n;
                        c = read_at(text, p, end);
                }
                return p;
        }
        next = read_at(text, at + c.n, end);
        if (!is_newline(c.code) && next.class == WARM_UNICODE_LETTER)
                return run_of(text, at + c.n, end, SET_LETTERS);
        p = at;
        if (c.code == ' ') {
                p++;
                c = next;
        }
        if (!(BIT(c.class) & SET_OTHERS))
                return white_space(text, at, end, true);
        p = run_of(text, p, end, SET_OTHERS);
        while (newlines_follow && p < end && is_newline(text[p]))
                p++;
        return p;
}

/* \s?[set]+, or what lies before the next match */
static size_t spaced_piece(const uint8_t *text, size_t at, size_t end, unsigned set) {
        struct character c = read_at(text, at, end), before = { 0 };
        size_t p = at;

        if (c.class == WARM_UNICODE_SPACE && BIT(read_at(text, at + c.n, end).class) & set)
                p += c.n;
        else if (!(BIT(c.class) & set)) {
                for (; p < end && !(BIT(c.class) & set); p += before.n) {
                        before = c;
                        c = read_at(text, p + before.n, end);
                }
                return before.class == WARM_UNICODE_SPACE && p < end ? p - before.n : p;
        }
        return run_of(text, p, end, set);
}

static inline bool is_cjk(struct character c) {
        return c.class != WARM_UNICODE_SPACE && c.class != CLASS_END &&
               ((c.code >= 0x800 && c.code <= 0x9FA5) || (c.code >= 0xAC00 && c.code <= 0xD7FF));
}

static size_t cjk_piece(const uint8_t *text, size_t at, size_t end) {
        struct character c = read_at(text, at, end);
        bool first = is_cjk(c);

        while (at < end && is_cjk(c) == first) {
                at += c.n;
                c = read_at(text, at, end);
        }
        return at;
}

static size_t number_piece(const uint8_t *text, size_t at, size_t end) {
        struct character c = read_at(text, at, end);

        if (c.class == WARM_UNICODE_NUMBER)
                return at + c.n;
        return run_of(text, at, end, ~SET_NUMBERS & ~BIT(CLASS_END));
}

static size_t newline_piece(const uint8_t *text, size_t at, size_t end) {
        if (is_newline(text[at]))
                return at + 1;
        while (at < end && !is_newline(text[at]))
                at++;
        return at;
}

static size_t stage_piece(enum stage stage, const uint8_t *text, size_t at, size_t end) {
        switch (stage) {
        case STAGE_NUMBER:
                return number_piece(text, at, end);
        case STAGE_GPT2:
                return gpt2_piece(text, at, end);
        case STAGE_WORDS:
                return words_piece(text, at, end, 1, true);
        case STAGE_WORDS_3:
                return words_piece(text, at, end, 3, true);
        case STAGE_WORDS_SEED:
                return words_piece(text, at, end, 1, false);
        case STAGE_NEWLINE:
                return newline_piece(text, at, end);
        case STAGE_SPACE_LETTER:
                return spaced_piece(text, at, end, SET_LETTERS);
        case STAGE_SPACE_PUNCT:
                return spaced_piece(text, at, end, SET_PUNCT);
        case STAGE_CJK:
                return cjk_piece(text, at, end);
        }
        return end;
}

void warm_pretoken_start(struct warm_pretoken_scan *s, const struct warm_pretokenizer *rules,
                         const void *text, size_t at, size_t end) {
        *s = (struct warm_pretoken_scan){ .rules = rules, .text = text, .at = at, .end = end };
}

bool warm_pretoken_next(struct warm_pretoken_scan *s, size_t *ret_start, size_t *ret_end) {
        size_t end = s->end;

        if (s->at >= s->end)
                return false;
        for (unsigned i = 0; i < s->rules->n_stages; i++) {
                if (s->ends[i] <= s->at)
                        s->ends[i] = stage_piece(s->rules->stages[i], s->text, s->at, end);
                end = s->ends[i];
        }
        *ret_start = s->at;
        *ret_end = s->at = end;
        return true;
}
