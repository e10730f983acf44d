/* SPDX-License-Identifier: Apache-2.0 */
/* warmctl doctor: look at machine and daemon, and say what could be better and how. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "build-config.h"
#include "gpu.h"

#ifndef WARM_CUDA_VERSION
#define WARM_CUDA_VERSION NULL
#endif

void warmctl_doctor_tell(struct doctor *d, enum verdict v, const char *key, const char *format,
                         ...) {
        static const char *const words[] = { "good", "advice", "bad" };
        static const char *const marks[] = { "\033[32m", "\033[33m", "\033[31m" };
        char text[512];
        va_list ap;

        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        /* Our own words, and names that a driver or daemon gave: they must steer neither JSON nor a terminal. */
        for (char *c = text; *c; c++)
                if ((unsigned char) *c < 0x20 || *c == 0x7f || *c == '"' || *c == '\\')
                        *c = '?';
        d->n_bad += v == BAD;
        if (d->ctl->json)
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
                warmctl_doctor_tell(d, GOOD, "cpu",
                                    "the CPU multiplies bytes in one instruction (VNNI); %ld cores",
                                    cores);
        else if (cpu_has("avx2") || cpu_has("asimddp") || cpu_has("asimd"))
                warmctl_doctor_tell(d, GOOD, "cpu",
                                    "the CPU has vector instructions that warmd uses; %ld cores",
                                    cores);
        else
                warmctl_doctor_tell(d, ADVICE, "cpu",
                                    "no AVX2 or NEON: warmd works, slowly; use the smallest model");
        if (mib >= 0 && mib < 1024)
                warmctl_doctor_tell(
                        d, ADVICE, "memory",
                        "only %lld MiB of memory are available: give a small --kv-memory", mib);
        else if (mib >= 0)
                warmctl_doctor_tell(d, GOOD, "memory", "%lld MiB of memory are available", mib);
}

static bool text_is(const struct warm_client_value *v, const char *text) {
        size_t n = 0;
        const char *it = warm_client_value_text(v, &n);

        return it && n == strlen(text) && memcmp(it, text, n) == 0;
}

static double gib(const struct warm_client_value *engine, const char *key) {
        return (double) warm_client_value_int(warm_client_value_get(engine, key), 0) / 0x1p30;
}

/* Where it computes, and what that takes. Only administrators are told. */
static void look_at_device(struct doctor *d, struct warm_client *c, bool gpu_usable) {
        const struct warm_client_value *engine;
        struct warm_client_reply *reply = NULL;

        if (warm_client_call(c, "status", NULL, 5000, &reply) == 0) {
                engine = warm_client_value_get(warm_client_reply_result(reply), "engine");
                if (engine && text_is(warm_client_value_get(engine, "backend"), "cpu"))
                        warmctl_doctor_tell(
                                d, gpu_usable ? ADVICE : GOOD, "device",
                                gpu_usable ? "it computes on the CPU, and there is a GPU that "
                                             "can be used: see `journalctl -u warmd` for why "
                                             "not, `warmd --check` for what is needed"
                                           : "it computes on the CPU");
                else if (engine)
                        warmctl_doctor_tell(
                                d, GOOD, "device",
                                "it computes on a GPU: %.2f GiB of weights, %.2f of context, "
                                "%.2f of scratch; others have %.2f, %.2f are free",
                                gib(engine, "weights_bytes"), gib(engine, "kv_bytes"),
                                gib(engine, "scratch_bytes"), gib(engine, "memory_others"),
                                gib(engine, "memory_free"));
        }
        warm_client_reply_free(reply);
}

static void look_at_daemon(struct doctor *d, bool gpu_usable) {
        struct warm_client_reply *reply = NULL;
        struct warm_client *c = NULL;
        size_t n = 0;
        int r = warm_client_new(d->ctl->socket, &c);

        if (r == -EACCES)
                warmctl_doctor_tell(d, BAD, "socket",
                                    "the socket may not be opened by you: look at its permissions");
        else if (r != 0)
                warmctl_doctor_tell(
                        d, BAD, "socket",
                        "no daemon answers (%s): systemctl enable --now warmd.socket, or run warmd",
                        strerror(-r));
        if (r != 0)
                return;
        warmctl_doctor_tell(d, GOOD, "socket", "a daemon answers at %s", warm_client_path(c));
        r = warm_client_call(c, "hello", NULL, 5000, &reply);
        if (r == 0) {
                const struct warm_client_value *result = warm_client_reply_result(reply);

                if (!text_is(warm_client_value_get(result, "version"), WARM_VERSION))
                        warmctl_doctor_tell(
                                d, ADVICE, "version",
                                "it is another version than this warmctl (%s): restart it after an "
                                "upgrade",
                                WARM_VERSION);
                else
                        warmctl_doctor_tell(d, GOOD, "version", "it is of this version, %s",
                                            WARM_VERSION);
                n = warm_client_value_n(warm_client_value_get(result, "models"));
                warmctl_doctor_tell(d, n ? GOOD : BAD, "models", "it has %zu model%s loaded", n,
                                    n == 1 ? "" : "s");
                look_at_device(d, c, gpu_usable);
        } else
                warmctl_doctor_tell(
                        d, BAD, "version",
                        "it does not answer a greeting within 5 s: see journalctl -u warmd");
        warm_client_reply_free(reply);
        warm_client_free(c);
}

int warmctl_doctor(const struct warmctl *ctl) {
        struct doctor d = { .ctl = ctl };
        static struct warmctl_gpus gpus;

        look_at_machine(&d);
        warmctl_gpus_take(&gpus);
        look_at_daemon(&d, warmctl_gpus_judge(&d, &gpus, WARM_CUDA_VERSION));
        if (ctl->json)
                puts("}");
        return d.n_bad ? WARMCTL_REFUSED : WARMCTL_OK;
}
