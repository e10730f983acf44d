/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "warmctl.h"

static const char help[] =
        "Usage: warmctl [OPTION]... COMMAND [ARGUMENT]\n"
        "Ask warmd, the local completion daemon.\n"
        "\n"
        "  status                     what it holds and does\n"
        "  models                     the models it has loaded\n"
        "  complete FILE:LINE:COLUMN  complete at a cursor; --show draws it as an editor would, "
        "--again completes\n"
        "                             once more after one typed character, --untyped leaves out "
        "the rest of the line\n"
        "  generate [FILE|-]          go on from a text; -n N tokens at most, --ids prints token "
        "ids\n"
        "  tokenize [FILE|-]          token ids of a text\n"
        "  score [FILE|-]             how likely the model finds a text, token by token\n"
        "  explain FILE:LINE:COLUMN   what of its prompt is cached, and why not more\n"
        "  warm FILE:LINE:COLUMN      compute the prompt into the cache, sample nothing\n"
        "  trim                       give back what is cached and not in use\n"
        "  bench                      time this machine and model, beside what the machine could "
        "do; "
        "--plot FILE draws it\n"
        "  doctor                     look for what could be better here\n"
        "\n"
        "  --socket PATH   the daemon's socket (default: $XDG_RUNTIME_DIR/warmd/warmd.sock, else\n"
        "                  /run/warmd/warmd.sock)\n"
        "  --model NAME    one of `warmctl models` (default: the first)\n"
        "  --json          print replies as JSON\n"
        "  -n N            tokens at most\n"
        "  --lines N       lines at most\n"
        "  --help, --version\n"
        "\n"
        "Lines and columns count from 1, columns in bytes. Exit status: 0, 1 refused, 2 usage, 3 "
        "no daemon.\n";

enum argument { ARGUMENT_NONE, ARGUMENT_CURSOR, ARGUMENT_FILE };

static const struct {
        const char *name;
        warmctl_command_fn run;
        enum argument argument;
} commands[] = {
        { "status", warmctl_status, ARGUMENT_NONE },
        { "models", warmctl_models, ARGUMENT_NONE },
        { "complete", warmctl_complete, ARGUMENT_CURSOR },
        { "generate", warmctl_generate, ARGUMENT_FILE },
        { "tokenize", warmctl_tokenize, ARGUMENT_FILE },
        { "score", warmctl_score, ARGUMENT_FILE },
        { "explain", warmctl_explain, ARGUMENT_CURSOR },
        { "warm", warmctl_warm, ARGUMENT_CURSOR },
        { "trim", warmctl_trim, ARGUMENT_NONE },
        { "bench", warmctl_bench, ARGUMENT_NONE },
        { "doctor", warmctl_doctor, ARGUMENT_NONE },
};

enum {
        OPTION_SOCKET = 0x100,
        OPTION_MODEL,
        OPTION_JSON,
        OPTION_IDS,
        OPTION_SHOW,
        OPTION_AGAIN,
        OPTION_UNTYPED,
        OPTION_LINES,
        OPTION_PLOT,
        OPTION_HELP,
        OPTION_VERSION,
};

static const struct option options[] = {
        { "socket", required_argument, NULL, OPTION_SOCKET },
        { "model", required_argument, NULL, OPTION_MODEL },
        { "json", no_argument, NULL, OPTION_JSON },
        { "ids", no_argument, NULL, OPTION_IDS },
        { "show", no_argument, NULL, OPTION_SHOW },
        { "again", no_argument, NULL, OPTION_AGAIN },
        { "untyped", no_argument, NULL, OPTION_UNTYPED },
        { "lines", required_argument, NULL, OPTION_LINES },
        { "plot", required_argument, NULL, OPTION_PLOT },
        { "help", no_argument, NULL, OPTION_HELP },
        { "version", no_argument, NULL, OPTION_VERSION },
        {},
};

static int usage(const char *what, const char *which) {
        fprintf(stderr, "warmctl: %s%s; try warmctl --help\n", what, which);
        return WARMCTL_USAGE;
}

static int parse_number(const char *option, const char *text, uint32_t *ret_value) {
        char *end = NULL;
        unsigned long n;

        errno = 0;
        n = strtoul(text, &end, 10);
        if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno || n > 1U << 20) {
                fprintf(stderr, "warmctl: %s wants a whole number, not %s; try warmctl --help\n",
                        option, text);
                return WARMCTL_USAGE;
        }
        *ret_value = (uint32_t) n;
        return WARMCTL_OK;
}

static int take_option(int o, char **argv, struct warmctl *ctl) {
        switch (o) {
        case OPTION_SOCKET:
                ctl->socket = optarg;
                return WARMCTL_OK;
        case OPTION_MODEL:
                ctl->model = optarg;
                return WARMCTL_OK;
        case OPTION_JSON:
                ctl->json = true;
                return WARMCTL_OK;
        case OPTION_PLOT:
                ctl->plot = optarg;
                return WARMCTL_OK;
        case OPTION_IDS:
                ctl->ids = true;
                return WARMCTL_OK;
        case OPTION_SHOW:
                ctl->show = true;
                return WARMCTL_OK;
        case OPTION_AGAIN:
                ctl->show = ctl->again = true;
                return WARMCTL_OK;
        case OPTION_UNTYPED:
                ctl->untyped = true;
                return WARMCTL_OK;
        case OPTION_LINES:
                return parse_number("--lines", optarg, &ctl->lines);
        case 'n':
                ctl->n_max_given = true;
                return parse_number("-n", optarg, &ctl->n_max);
        case ':':
                return usage("an argument is missing after ", argv[optind - 1]);
        default:
                return usage("unknown option ", argv[optind - 1]);
        }
}

/* Return: WARMCTL_OK to go on, WARMCTL_USAGE, or -1: all is said. */
static int parse_options(int argc, char **argv, struct warmctl *ctl) {
        int o, r = WARMCTL_OK;

        opterr = 0;
        while (r == WARMCTL_OK && (o = getopt_long(argc, argv, ":n:h", options, NULL)) != -1) {
                if (o == OPTION_HELP || o == 'h') {
                        fputs(help, stdout);
                        return -1;
                }
                if (o == OPTION_VERSION) {
                        puts("warmctl " WARM_VERSION);
                        return -1;
                }
                r = take_option(o, argv, ctl);
        }
        return r;
}

static int run(int argc, char **argv, struct warmctl *ctl) {
        const char *name = optind < argc ? argv[optind++] : NULL;

        if (!name)
                return usage("no command", "");
        for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
                if (strcmp(name, commands[i].name) != 0)
                        continue;
                if (optind < argc && commands[i].argument != ARGUMENT_NONE)
                        ctl->argument = argv[optind++];
                if (optind < argc)
                        return usage("unexpected argument ", argv[optind]);
                if (commands[i].argument == ARGUMENT_CURSOR && !ctl->argument)
                        return usage("FILE:LINE:COLUMN is missing after ", name);
                return commands[i].run(ctl);
        }
        return usage("unknown command ", name);
}

int main(int argc, char **argv) {
        const char *no_color = getenv("NO_COLOR"), *force = getenv("CLICOLOR_FORCE");
        bool coloured = isatty(STDOUT_FILENO) || (force && force[0] && force[0] != '0');
        struct warmctl ctl = {
                .colour_out = coloured && !(no_color && no_color[0]),
                .progress = isatty(STDERR_FILENO),
        };
        int r = parse_options(argc, argv, &ctl);

        if (r == -1)
                r = WARMCTL_OK;
        else if (r == WARMCTL_OK)
                r = run(argc, argv, &ctl);
        if (fflush(stdout) != 0 && r == WARMCTL_OK) {
                fprintf(stderr, "warmctl: writing: %s\n", strerror(errno));
                r = WARMCTL_REFUSED;
        }
        return r;
}
