/* SPDX-License-Identifier: Apache-2.0 */
/* write-tiny ARCHITECTURE bpe|spm FILE: write a tiny valid model, as a seed for fuzzing and for other tests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gguf-write.h"

int main(int argc, char **argv) {
        struct gguf_writer w = { 0 };
        struct gguf_tiny tiny = { 0 };
        uint8_t *bytes;
        size_t n;
        int r;

        if (argc != 4) {
                (void) fprintf(stderr, "usage: write-tiny ARCHITECTURE bpe|spm FILE\n");
                return 2;
        }
        tiny.architecture = argv[1];
        tiny.sentencepiece = strcmp(argv[2], "spm") == 0;
        tiny.biases = strcmp(argv[1], "llama") == 0 && !tiny.sentencepiece;
        tiny.output = tiny.sentencepiece;
        gguf_write_tiny(&w, &tiny);
        bytes = gguf_write_end(&w, &n);
        (void) unlink(argv[3]);
        r = gguf_write_file(argv[3], bytes, n);
        free(bytes);
        if (r < 0)
                (void) fprintf(stderr, "%s: %s\n", argv[3], strerror(-r));
        return r < 0;
}
