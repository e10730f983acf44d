/* SPDX-License-Identifier: Apache-2.0 */
/* dequantize TYPE: blocks in, floats out; test-dequantize.py holds them against NumPy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/quant.h"

static int find_type(const char *name, enum warm_type *ret_type) {
        for (int t = 0; t < _WARM_TYPE_N; t++)
                if (strcmp(warm_type_info((enum warm_type) t)->name, name) == 0) {
                        *ret_type = (enum warm_type) t;
                        return 0;
                }
        return -1;
}

int main(int argc, char **argv) {
        uint8_t block[256];
        float values[256];
        const struct warm_type_info *info;
        enum warm_type type;

        if (argc != 2 || find_type(argv[1], &type) < 0)
                return EXIT_FAILURE;
        info = warm_type_info(type);
        while (fread(block, info->bytes, 1, stdin) == 1) {
                warm_type_dequantize(type, block, info->elements, values);
                if (fwrite(values, sizeof(float), info->elements, stdout) != info->elements)
                        return EXIT_FAILURE;
        }
        return ferror(stdin) ? EXIT_FAILURE : EXIT_SUCCESS;
}
