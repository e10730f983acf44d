/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "build-config.h"
#include "device.h"
#include "journal.h"
#include "listen.h"
#include "loading.h"
#include "rpc/server.h"
#include "sched/engine.h"
#include "service.h"
#include "watchdog.h"

#define GPU_SCRATCH_BYTES (400ULL << 20) /* beside weights and KV, at most */
#define GPU_HANG_US       12000000U /* above the engine's own limit for a step (untuned guess) */
#define DEFAULT_MODEL     WARM_DATADIR "/models/warm-nano-q8_0.gguf"

/* Everything that runs, owned; taken down in the reverse order. */
struct service {
        const struct warm_config *config;
        sd_event *event;
        struct warm_listen listen;
        struct warm_model *models[WARM_CONFIG_MODELS_MAX]; /* read, not yet the engine's */
        size_t n_models;
        struct warm_device_need need;
        bool on_gpu;
        struct warm_backend *backend; /* borrowed from the engine; until it runs */
        struct warm_backend_info device;
        struct warm_engine *engine;
        struct warm_server *server;
        struct warm_watchdog watchdog;
        struct warm_loading loading;
        uint64_t started_ns;
        bool device_lost;
};

static uint64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t) t.tv_sec * 1000000000U + (uint64_t) t.tv_nsec;
}

/* Log a failure in the journal's words and say so in the return. */
static int failed(enum warm_event_id id, const char *what, char *why, int r) {
        warm_journal_send(id, LOG_ERR, NULL, "%s: %s", what,
                          why ? why : strerror(r < 0 ? -r : EIO));
        free(why);
        return r < 0 ? r : -EIO;
}

/* Its tensors are not there yet. Return: 0; -errno, told. */
static int open_model(const struct warm_config_model *m, struct warm_model **ret_model) {
        const struct warm_model_options options = warm_config_model_options(m);
        const char *path = m->path ? m->path : DEFAULT_MODEL;
        char *why = NULL;
        int r = warm_model_begin(path, &options, ret_model, &why);

        if (r < 0) {
                const char *const fields[] = { "WARM_MODEL_PATH", path, NULL };

                /* The reader's sentence names the file. */
                warm_journal_send(WARM_JOURNAL_MODEL_REFUSED, LOG_ERR, fields, "%s",
                                  why ? why : strerror(-r));
                free(why);
        }
        return r;
}

/* Read what is configured; those that are refused are told and left out. Return: 0; -ENOMEM; -ENOENT: none is left. */
static int open_models(struct service *s) {
        static const struct warm_config_model shipped = {};
        size_t n = s->config->n_models;

        for (size_t i = 0; i < (n ? n : 1); i++) {
                struct warm_model *m = NULL;
                int r = open_model(n ? &s->config->models[i] : &shipped, &m);

                if (r == -ENOMEM)
                        return r;
                if (r < 0)
                        continue;
                warm_device_need_add(&s->need, m, s->config);
                s->models[s->n_models++] = m;
        }
        return s->n_models > 0 ? 0 : -ENOENT;
}

/* Why the engine did not take a model, as a sentence. NULL: no memory for it. */
static char *why_not(const struct service *s, char *why, int r) {
        struct warm_backend_info info;
        char *advice, *text = NULL;

        if (why || r != WARM_BACKEND_E_MEMORY)
                return why ? why : strdup(strerror(r < 0 ? -r : EIO));
        warm_backend_info(s->backend, &info);
        advice = warm_device_advise(&s->need, info.memory_free);
        if (asprintf(&text,
                     "%.2f GiB of weights do not fit into what is left on the device, %.2f GiB; %s",
                     (double) s->need.weights_bytes / 0x1p30, (double) info.memory_free / 0x1p30,
                     advice ? advice : "use a smaller model") < 0)
                text = NULL;
        free(advice);
        return text;
}

/* Return: 0: the engine has it; -errno, told. */
static int load_model(struct service *s, struct warm_model *model) {
        const uint64_t file_bytes = model->file_bytes, begin = now_ns();
        char weights[32], *why = NULL;
        uint32_t index = 0;
        int r;

        warm_loading_begin(&s->loading, model->name);
        r = warm_engine_add_model(s->engine, model, &index, &why);
        warm_loading_end(&s->loading);
        if (r != 0)
                return failed(WARM_JOURNAL_MODEL_REFUSED, model->path, why_not(s, why, r), r);
        snprintf(weights, sizeof(weights), "%" PRIu64, file_bytes);
        const char *const fields[] = { "WARM_MODEL", model->name, "WARM_WEIGHTS_BYTES", weights,
                                       NULL };
        warm_journal_send(WARM_JOURNAL_MODEL_LOADED, LOG_INFO, fields,
                          "loaded %s (%s, %s, %.1f M parameters) in %.0f ms", model->name,
                          model->architecture, model->quantization,
                          (double) model->n_parameters / 1e6, (double) (now_ns() - begin) / 1e6);
        return 0;
}

/*
 * The ceiling for KV by configuration, but not beyond what the weights will leave. Known before the pools are made, for
 * the size of their chunks follows from it.
 */
static uint64_t kv_ceiling(const struct service *s, struct warm_backend *backend) {
        const uint64_t wanted = s->config->kv_memory,
                       others = s->need.weights_bytes + GPU_SCRATCH_BYTES;
        const char *const fields[] = { "WARM_DEVICE", "cuda", NULL };
        struct warm_backend_info info;
        uint64_t left;

        if (!s->on_gpu || wanted == 0 || s->config->gpu_memory_short == WARM_MEMORY_REFUSE)
                return wanted;
        warm_backend_info(backend, &info);
        left = info.memory_free > others ? info.memory_free - others : 0;
        if (left < s->need.kv_floor_bytes)
                left = s->need.kv_floor_bytes; /* with less nothing would run: try */
        if (wanted <= left)
                return wanted;
        warm_journal_send(WARM_JOURNAL_MEMORY_SHORT, LOG_NOTICE, fields,
                          "the GPU will have %.2f GiB left for cached context, of %.2f GiB that "
                          "are configured",
                          (double) left / 0x1p30, (double) wanted / 0x1p30);
        return left;
}

/* An engine on this backend, which it takes over, with the models. Return: 0; -errno, told; -ENOENT: no model. */
static int fill_engine(struct service *s, struct warm_backend *backend) {
        struct warm_engine_config engine = {
                .backend = backend,
                .kv_type = s->config->kv_type,
                .kv_bytes_max = kv_ceiling(s, backend),
                .n_context_max = s->config->n_context,
                .chunk_ns = s->config->chunk_ms * 1000000U,
        };
        int r = warm_engine_new(&engine, &s->engine);

        if (r < 0) {
                warm_backend_free(backend);
                return failed(WARM_JOURNAL_FAILED, "starting the engine", NULL, r);
        }
        s->backend = backend;
        for (size_t i = 0; i < s->n_models; i++) {
                r = load_model(s, s->models[i]);
                if (r == -ENOMEM)
                        return r;
                if (r == 0)
                        s->models[i] = NULL;
        }
        return warm_engine_n_models(s->engine) > 0 ? 0 : -ENOENT;
}

/* Configuration refuses a start without all of its KV memory. Return: 0; -ENOMEM, told. */
static int take_kv(struct service *s) {
        const char *const fields[] = { "WARM_DEVICE", "cuda", NULL };
        struct warm_backend_info info;

        if (warm_engine_take_kv(s->engine) == 0)
                return 0;
        warm_backend_info(s->backend, &info);
        warm_journal_send(WARM_JOURNAL_MEMORY_SHORT, LOG_ERR, fields,
                          "the GPU does not have the %.2f GiB that are to be had for cached "
                          "context, %.2f GiB are left: end what else uses it, lower kv-memory, or "
                          "set gpu-memory-short = shrink",
                          (double) warm_engine_kv_bytes_max(s->engine) / 0x1p30,
                          (double) info.memory_free / 0x1p30);
        return -ENOMEM;
}

static int start_engine(struct service *s) {
        struct warm_device_makers makers = *warm_device_makers();
        struct warm_backend *backend = NULL;
        int r = open_models(s);

        warm_loading_init(&s->loading, stderr);
        makers.load_progress = warm_loading_show;
        makers.load_userdata = &s->loading;
        if (r == 0)
                r = warm_device_open(&makers, s->config, &s->need, &backend, &s->on_gpu);
        if (r == 0)
                r = fill_engine(s, backend);
        if (r == -ENOENT && s->on_gpu && s->config->device == WARM_DEVICE_AUTO) {
                s->engine = warm_engine_free(s->engine);
                s->on_gpu = false;
                r = warm_device_fall_back(&makers, s->config,
                                          "no model could be loaded on the GPU; see the entries "
                                          "before",
                                          &backend);
                if (r == 0)
                        r = fill_engine(s, backend);
        }
        if (r == -ENOENT)
                return failed(WARM_JOURNAL_FAILED, "no model",
                              strdup("none could be loaded; see the entries before"), r);
        if (r == 0 && s->on_gpu && s->config->gpu_memory_short == WARM_MEMORY_REFUSE)
                r = take_kv(s);
        if (r < 0)
                return r;
        warm_backend_info(s->backend, &s->device);
        s->backend = NULL;
        r = warm_engine_start(s->engine);
        return r < 0 ? failed(WARM_JOURNAL_FAILED, "starting the engine", NULL, r) : 0;
}

static void tell_fault(const struct warm_server_note *note) {
        const char *what = note->limit ? note->limit : "it does not say why";
        const char *const fields[] = { "WARM_FAULT", what, NULL };

        if (note->value == WARM_FAULT_HUNG)
                warm_journal_send(WARM_JOURNAL_BACKEND_HUNG, LOG_CRIT, NULL,
                                  "the device hangs: a step was not done within its limit; all "
                                  "clients were told; ending to start again");
        else
                warm_journal_send(WARM_JOURNAL_BACKEND_LOST, LOG_CRIT, fields,
                                  "the device was lost: %s; all clients were told; ending to "
                                  "start again",
                                  what);
}

static void on_note(void *userdata, const struct warm_server_note *note) {
        struct service *s = userdata;
        char uid[16];
        const char *const fields[] = { "WARM_UID", uid, "WARM_LIMIT",
                                       note->limit ? note->limit : "", NULL };

        snprintf(uid, sizeof(uid), "%u", (unsigned) note->uid);
        switch (note->kind) {
        case WARM_SERVER_NOTE_FAULT:
                s->device_lost = true;
                tell_fault(note);
                (void) sd_event_exit(s->event, WARM_EXIT_DEVICE_LOST);
                break;
        default:
                warm_journal_send(WARM_JOURNAL_CLIENT_LIMITED, LOG_NOTICE, fields,
                                  "a client of uid %s reached the limit %s", uid,
                                  note->limit ? note->limit : "");
        }
}

/* The engine does not return from the driver: nobody but the loop can tell the clients. */
static void on_hung(void *userdata) {
        struct service *s = userdata;

        s->device_lost = true;
        warm_server_give_up(s->server);
        tell_fault(&(struct warm_server_note){ .value = WARM_FAULT_HUNG });
        (void) sd_event_exit(s->event, WARM_EXIT_DEVICE_LOST);
}

static int start_watchdog(struct service *s) {
        const struct warm_watchdog_config config = {
                .engine = s->engine,
                .hang_us = s->on_gpu ? GPU_HANG_US : 0,
                .hung = on_hung,
                .userdata = s,
        };
        int r = warm_watchdog_init(&s->watchdog, s->event, &config);

        return r < 0 ? failed(WARM_JOURNAL_FAILED, "watchdog", NULL, r) : 0;
}

static gid_t admin_gid(const struct warm_config *config) {
        const struct group *g = getgrnam(config->admin_group ? config->admin_group : "warmd-admin");

        return g ? g->gr_gid : (gid_t) -1;
}

static int start_server(struct service *s) {
        struct warm_server_config server = {
                .event = s->event,
                .engine = s->engine,
                .listen_fds = s->listen.fds,
                .n_listen_fds = (unsigned) s->listen.n_fds,
                .version = WARM_VERSION,
                .admin_gid = admin_gid(s->config),
                .log = on_note,
                .userdata = s,
        };
        int r = warm_server_new(&server, &s->server);

        return r < 0 ? failed(WARM_JOURNAL_FAILED, "starting the server", NULL, r) : 0;
}

static int start_loop(struct service *s) {
        sigset_t signals;
        int r;

        sigemptyset(&signals);
        sigaddset(&signals, SIGTERM);
        sigaddset(&signals, SIGINT);
        sigprocmask(SIG_BLOCK, &signals, NULL); /* before any thread: all inherit it */
        signal(SIGPIPE, SIG_IGN);
        r = sd_event_default(&s->event);
        if (r >= 0)
                r = sd_event_add_signal(s->event, NULL, SIGTERM, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(s->event, NULL, SIGINT, NULL, NULL);
        return r < 0 ? failed(WARM_JOURNAL_FAILED, "starting the loop", NULL, r) : 0;
}

static void tell_ready(const struct service *s) {
        const struct warm_model *first = warm_engine_model(s->engine, 0);
        uint32_t n = warm_engine_n_models(s->engine);
        char models[16], load[16], vram[64] = "";
        const char *const fields[] = { "WARM_MODELS",  models, "WARM_DEVICE", s->device.name,
                                       "WARM_LOAD_MS", load,   NULL };
        const char *where = s->on_gpu ? s->device.description : "the CPU";

        snprintf(models, sizeof(models), "%u", n);
        snprintf(load, sizeof(load), "%.0f", (double) (now_ns() - s->started_ns) / 1e6);
        if (s->on_gpu)
                snprintf(vram, sizeof(vram), " (%.1f GiB of weights)",
                         (double) s->need.weights_bytes / 0x1p30);
        (void) sd_notifyf(false, "READY=1\nSTATUS=%s%s on %s%s, warm", first->name,
                          n > 1 ? " and others" : "", where, vram);
        warm_journal_send(WARM_JOURNAL_READY, LOG_INFO, fields, "ready on %s after %s ms%s%s",
                          where, load, s->listen.path[0] ? ": " : "", s->listen.path);
}

static void stop(struct service *s) {
        warm_watchdog_deinit(&s->watchdog);
        s->server = warm_server_free(s->server);
        if (s->device_lost)
                return; /* the engine's thread may hang in the driver: the process ends without it */
        s->engine = warm_engine_free(s->engine);
        for (size_t i = 0; i < s->n_models; i++)
                warm_model_free(s->models[i]); /* those that were refused */
        warm_listen_close(&s->listen);
        s->event = sd_event_unref(s->event);
}

int warm_service_run(const struct warm_config *config) {
        struct service s = { .config = config,
                             .listen = WARM_LISTEN_EMPTY,
                             .started_ns = now_ns() };
        int exit_status = WARM_EXIT_FAILED;
        char *why = NULL;
        int r;

        r = start_loop(&s);
        if (r < 0)
                goto out;
        r = warm_listen_open(config->socket, &s.listen, &why);
        if (r < 0) {
                (void) failed(WARM_JOURNAL_LISTEN_FAILED, "socket", why, r);
                goto out;
        }
        r = start_engine(&s);
        if (r == -EINTR)
                exit_status = WARM_EXIT_OK; /* asked to stop while it waited for memory */
        if (r < 0)
                goto out;
        r = start_server(&s);
        if (r < 0)
                goto out;
        r = start_watchdog(&s);
        if (r < 0)
                goto out;
        tell_ready(&s);
        r = sd_event_loop(s.event);
        exit_status = r < 0 ? WARM_EXIT_FAILED : r;
        (void) sd_notify(false, "STOPPING=1");
        warm_journal_send(WARM_JOURNAL_STOPPING, LOG_INFO, NULL, "stopping");
out:
        stop(&s);
        return exit_status;
}

/* Return: 0; -errno, told. */
static int finish_model(struct warm_model *m) {
        char *why = NULL;
        int r = warm_model_finish(m, &why);

        return r < 0 ? failed(WARM_JOURNAL_MODEL_REFUSED, m->path, why, r) : 0;
}

int warm_service_check(const struct warm_config *config) {
        static const struct warm_config_model shipped = {};
        size_t n = config->n_models, n_bad = 0;
        struct warm_device_need need = {};

        for (size_t i = 0; i < (n ? n : 1); i++) {
                struct warm_model *m = NULL;

                if (open_model(n ? &config->models[i] : &shipped, &m) < 0 || finish_model(m) < 0) {
                        warm_model_free(m);
                        n_bad++;
                        continue;
                }
                printf("%s: %s, %s, %.1f M parameters, context %u, %s\n", m->name, m->architecture,
                       m->quantization, (double) m->n_parameters / 1e6, m->plan.n_context,
                       m->format.order == WARM_ORDER_NONE ? "continues the prefix only"
                                                          : "fills in the middle");
                warm_device_need_add(&need, m, config);
                warm_model_free(m);
        }
        n_bad += !warm_device_print(warm_device_makers(), config, &need);
        return n_bad ? WARM_EXIT_FAILED : WARM_EXIT_OK;
}
