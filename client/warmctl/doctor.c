/* SPDX-License-Identifier: Apache-2.0 */
/* warmctl doctor: look at machine and daemon, and say what could be better and how. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "warmctl.h"

enum verdict { GOOD, ADVICE, BAD };

struct doctor {
        const struct warmctl *ctl;
        unsigned n_bad;
        unsigned n_lines;
};

static void __attribute__((format(printf, 4, 5)))
tell(struct doctor *d, enum verdict v, const char *key, const char *format, ...) {
        static const char *const words[] = { "good", "advice", "bad" };
        static const char *const marks[] = { "\033[32m", "\033[33m", "\033[31m" };
        char text[512];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        d->n_bad += v == BAD;
        if (d->ctl->json) /* our own words: nothing in them needs escaping */
                printf("%s\"%s\": {\"verdict\": \"%s\", \"text\": \"%s\"}",
                       d->n_lines++ ? ", " : "{", key, words[v], text);
        else
                printf("%s%-7s%s %s\n", d->ctl->colour_out ? marks[v] : "", words[v],
                       d->ctl->colour_out ? "\033[0m" : "", text);
}

/* True if /proc/cpuinfo has the word among its flags. */
static bool cpu_has(const char *flag) {
        FILE *f = fopen("/proc/cpuinfo", "re");
        char *line = NULL;
        size_t size = 0;
        bool found = false;

        if (!f)
                return false;
        while (!found && getline(&line, &size, f) > 0) {
                char *save = NULL;

                if (strncmp(line, "flags", 5) != 0 && strncmp(line, "Features", 8) != 0)
                        continue;
                for (char *w = strtok_r(line, " \t\n", &save); w && !found;
                     w = strtok_r(NULL, " \t\n", &save))
                        found = strcmp(w, flag) == 0;
                break;
        }
        free(line);
        fclose(f);
        return found;
}

static long long available_mib(void) {
        FILE *f = fopen("/proc/meminfo", "re");
        long long kib = -1;
        char line[128];

        if (!f)
                return -1;
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "MemAvailable: %lld kB", &kib) == 1)
                        break;
        fclose(f);
        return kib < 0 ? -1 : kib / 1024;
}

static void look_at_machine(struct doctor *d) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        long long mib = available_mib();

        if (cpu_has("avx512_vnni") || cpu_has("avx_vnni"))
                tell(d, GOOD, "cpu",
                     "the CPU multiplies bytes in one instruction (VNNI); %ld cores", cores);
        else if (cpu_has("avx2") || cpu_has("asimddp") || cpu_has("asimd"))
                tell(d, GOOD, "cpu", "the CPU has vector instructions that warmd uses; %ld cores",
                     cores);
        else
                tell(d, ADVICE, "cpu",
                     "no AVX2 or NEON: warmd works, slowly; use the smallest model");
        if (mib >= 0 && mib < 1024)
                tell(d, ADVICE, "memory",
                     "only %lld MiB of memory are available: give a small --kv-memory", mib);
        else if (mib >= 0)
                tell(d, GOOD, "memory", "%lld MiB of memory are available", mib);
        if (access("/dev/nvidiactl", F_OK) == 0)
                tell(d, ADVICE, "gpu",
                     "there is an NVIDIA GPU, and this version runs on the CPU only");
        else
                tell(d, GOOD, "gpu", "no NVIDIA GPU: the CPU backend is the right one");
}

static void look_at_daemon(struct doctor *d) {
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = NULL;
        size_t n = 0;
        int r = warm_client_new(d->ctl->socket, &c);

        if (r == -EACCES)
                tell(d, BAD, "socket",
                     "the socket may not be opened by you: look at its permissions");
        else if (r != 0)
                tell(d, BAD, "socket",
                     "no daemon answers (%s): systemctl enable --now warmd.socket, or run warmd",
                     strerror(-r));
        if (r != 0)
                return;
        tell(d, GOOD, "socket", "a daemon answers at %s", warm_client_path(c));
        r = warm_client_call(c, "hello", NULL, 5000, &reply);
        if (r == 0) {
                const struct warm_client_value *result = warm_client_reply_result(reply);
                const char *version =
                        warm_client_value_text(warm_client_value_get(result, "version"), &n);

                if (!version || n != strlen(WARM_VERSION) || memcmp(version, WARM_VERSION, n) != 0)
                        tell(d, ADVICE, "version",
                             "it is another version than this warmctl (%s): restart it after an "
                             "upgrade",
                             WARM_VERSION);
                else
                        tell(d, GOOD, "version", "it is of this version, %s", WARM_VERSION);
                n = warm_client_value_n(warm_client_value_get(result, "models"));
                tell(d, n ? GOOD : BAD, "models", "it has %zu model%s loaded", n,
                     n == 1 ? "" : "s");
        } else
                tell(d, BAD, "version",
                     "it does not answer a greeting within 5 s: see journalctl -u warmd");
        warm_client_reply_free(reply);
        warm_client_free(c);
}

int warmctl_doctor(const struct warmctl *ctl) {
        struct doctor d = { .ctl = ctl };

        look_at_machine(&d);
        look_at_daemon(&d);
        if (ctl->json)
                puts("}");
        return d.n_bad ? WARMCTL_REFUSED : WARMCTL_OK;
}
