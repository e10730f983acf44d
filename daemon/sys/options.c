/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "options.h"

static const char help[] =
        "Usage: warmd [OPTION]...\n"
        "Keep code models and their prefix cache warm, and complete for local programs over a Unix "
        "socket.\n"
        "\n"
        "  --model PATH       GGUF file to load; may be given several times, the first is the "
        "default\n"
        "  --socket PATH      listen here (default: $XDG_RUNTIME_DIR/warmd/warmd.sock, else "
        "/run/warmd/warmd.sock)\n"
        "  --device DEVICE    auto, cpu or cuda:N (default: auto)\n"
        "  --gpu-memory-wait SECONDS  how long to wait for room on a full GPU (default: 0)\n"
        "  --gpu-memory-short shrink|refuse  what if a GPU has less free than --kv-memory "
        "(default: shrink)\n"
        "  --kv-memory SIZE   most memory for cached context, like 512M (default: 16 contexts, at "
        "most a quarter\n"
        "                     of what is free)\n"
        "  --kv-type TYPE     f16, bf16 or f32 (default: f16)\n"
        "  --context N        tokens a completion may look at (default: what the model was trained "
        "for)\n"
        "  --threads N        CPU threads (default: one for each core)\n"
        "  --chunk-ms N       milliseconds a piece of prompt may take before others have their "
        "turn (default: 20)\n"
        "  --admin-group NAME whose members may trim for everybody (default: warmd-admin)\n"
        "  --config FILE      read this file instead of warmd.conf and its drop-ins\n"
        "  --check            read configuration and models, say what would run, and end\n"
        "  --help, --version\n"
        "\n"
        "Each option is also a key of warmd.conf(5). See warmd(8).\n";

const char *warm_options_help(void) {
        return help;
}

enum {
        OPTION_CONFIG = 0x100,
        OPTION_CHECK,
        OPTION_HELP,
        OPTION_VERSION,
        OPTION_KEY,
};

static const struct option options[] = {
        { "model", required_argument, NULL, OPTION_KEY },
        { "socket", required_argument, NULL, OPTION_KEY },
        { "device", required_argument, NULL, OPTION_KEY },
        { "gpu-memory-wait", required_argument, NULL, OPTION_KEY },
        { "gpu-memory-short", required_argument, NULL, OPTION_KEY },
        { "kv-memory", required_argument, NULL, OPTION_KEY },
        { "kv-type", required_argument, NULL, OPTION_KEY },
        { "context", required_argument, NULL, OPTION_KEY },
        { "threads", required_argument, NULL, OPTION_KEY },
        { "chunk-ms", required_argument, NULL, OPTION_KEY },
        { "admin-group", required_argument, NULL, OPTION_KEY },
        { "config", required_argument, NULL, OPTION_CONFIG },
        { "check", no_argument, NULL, OPTION_CHECK },
        { "help", no_argument, NULL, OPTION_HELP },
        { "version", no_argument, NULL, OPTION_VERSION },
        {},
};

/* Where this daemon's files are: the system's for root and service users, else the user's own. */
static int read_default_files(struct warm_config *config, char **ret_why) {
        const char *home = getenv("XDG_CONFIG_HOME"), *user = getenv("HOME");
        char dir[PATH_MAX];
        int n;

        if (!getenv("XDG_RUNTIME_DIR") || geteuid() == 0)
                return warm_config_read_dir(config, WARM_SYSCONFDIR "/warmd", ret_why);
        if (home && home[0] == '/')
                n = snprintf(dir, sizeof(dir), "%s/warmd", home);
        else if (user && user[0] == '/')
                n = snprintf(dir, sizeof(dir), "%s/.config/warmd", user);
        else
                return 0;
        if (n < 0 || (size_t) n >= sizeof(dir))
                return -ENAMETOOLONG;
        return warm_config_read_dir(config, dir, ret_why);
}

static int usage(char **ret_why, const char *what, const char *which) {
        if (asprintf(ret_why, "%s%s; try warmd --help", what, which) < 0)
                return -ENOMEM;
        return -EINVAL;
}

/* Files come first, whatever the order of the options: find --config, --help and --version. */
static int scan(int argc, char *const *argv, const char **ret_file,
                enum warm_options_mode *ret_mode, char **ret_why) {
        int o;

        opterr = 0;
        optind = 0;
        while ((o = getopt_long(argc, argv, "+:", options, NULL)) != -1)
                switch (o) {
                case OPTION_CONFIG:
                        *ret_file = optarg;
                        break;
                case OPTION_CHECK:
                        *ret_mode = WARM_OPTIONS_CHECK;
                        break;
                case OPTION_HELP:
                        *ret_mode = WARM_OPTIONS_HELP;
                        return 0;
                case OPTION_VERSION:
                        *ret_mode = WARM_OPTIONS_VERSION;
                        return 0;
                case OPTION_KEY:
                        break;
                case ':':
                        return usage(ret_why, "an argument is missing after ", argv[optind - 1]);
                default:
                        return usage(ret_why, "unknown option ", argv[optind - 1]);
                }
        if (optind < argc)
                return usage(ret_why, "unexpected argument ", argv[optind]);
        return 0;
}

static int set_from_command_line(struct warm_config *config, const char *key, const char *value,
                                 char **ret_why) {
        if (strcmp(key, "model") == 0 && !config->models_from_command_line) {
                warm_config_drop_models(config);
                config->models_from_command_line = true;
        }
        return warm_config_set(config, "warmd", key, value, ret_why);
}

int warm_options_parse(struct warm_config *config, int argc, char *const *argv,
                       enum warm_options_mode *ret_mode, char **ret_why) {
        enum warm_options_mode mode = WARM_OPTIONS_RUN;
        const char *file = NULL;
        int o, r, which = 0;

        r = scan(argc, argv, &file, &mode, ret_why);
        if (r < 0)
                return r;
        if (mode == WARM_OPTIONS_RUN || mode == WARM_OPTIONS_CHECK) {
                r = file ? warm_config_read_file(config, file, ret_why)
                         : read_default_files(config, ret_why);
                if (r < 0)
                        return r;
                optind = 0;
                while ((o = getopt_long(argc, argv, "+:", options, &which)) != -1) {
                        if (o != OPTION_KEY)
                                continue;
                        r = set_from_command_line(config, options[which].name, optarg, ret_why);
                        if (r < 0)
                                return r;
                }
        }
        *ret_mode = mode;
        return 0;
}
