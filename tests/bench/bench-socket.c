/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-socket SOCKET FILE [N]: what `complete` costs over the socket beyond the engine's own time. The file's bytes
 * are typed one by one from the middle on, N times (default 300), one token asked for each time; shown is the time
 * from before send() to after the whole reply was read, less `time_us.engine` (first step's start to last step's end),
 * and a `cancel` of nothing, which costs the socket alone.
 *
 * Then the same for a prompt of ids, as long as the model's context lets it be (8,208 at most), of which all but the
 * last 16 are cached: its ids are packed within the time shown.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "client/codec.h"

#define PREFIX_BYTES 5000U /* about 1,500 tokens */
#define ROUNDS_MAX   10000U
#define IDS_MAX      8208U
#define IDS_FRESH    16U
#define IDS_ROUNDS   100U

struct sample {
        double beyond_us, whole_us, engine_us, queue_us, plain_us, packed_us;
};

static double now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double) t.tv_sec * 1e6 + (double) t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
        const double *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

static void show(const char *name, const struct sample *samples, unsigned n, size_t offset) {
        static double values[ROUNDS_MAX];

        for (unsigned i = 0; i < n; i++)
                memcpy(&values[i], (const char *) &samples[i] + offset, sizeof(double));
        qsort(values, n, sizeof(values[0]), compare);
        printf("%-32s %10.1f %10.1f %10.1f\n", name, values[n / 2], values[n * 95 / 100],
               values[n - 1]);
}

static double number_at(const msgpack_object *map, const char *key) {
        double value = 0;

        (void) warm_read_number(warm_read_key(map, key), &value);
        return value;
}

/* Send a request, read its reply. Return: microseconds; below 0: the connection failed, or the daemon refused. */
static double round_trip(int fd, struct warm_writer *w, struct warm_message *ret_message) {
        static uint8_t reply[1U << 20];
        struct warm_frame f = { 0 };
        size_t held = 0, n_frame = 0;
        double start_us, end_us;
        int r;

        if (warm_writer_end(w) != 0)
                return -1;
        start_us = now_us();
        if (send(fd, warm_buffer_data(w->buffer), warm_buffer_n(w->buffer), MSG_NOSIGNAL) < 0)
                return -1;
        do {
                ssize_t n = recv(fd, reply + held, sizeof(reply) - held, 0);

                if (n <= 0)
                        return -1;
                held += (size_t) n;
                r = warm_frame_check(&f, reply, held, &n_frame);
        } while (r == WARM_FRAME_E_MORE);
        end_us = now_us();
        warm_buffer_consume(w->buffer, warm_buffer_n(w->buffer));
        if (r != 0 || warm_message_decode(reply, n_frame, ret_message) != 0 || !ret_message->result)
                return -1;
        return end_us - start_us;
}

static void take_times(struct sample *s, const struct warm_message *m) {
        const msgpack_object *times = warm_read_key(m->result, "time_us");

        s->engine_us = number_at(times, "engine");
        s->queue_us = number_at(times, "queue");
        s->beyond_us = s->whole_us - s->engine_us;
}

static bool measure(int fd, struct warm_buffer *b, const char *text, size_t n_text,
                    struct sample *ret_sample) {
        struct sample sample = { 0 };
        struct warm_message m;
        struct warm_writer w;

        warm_writer_request(&w, b, 1, "cancel");
        warm_write_map(&w, 1);
        warm_write_key_uint(&w, "id", 0);
        sample.plain_us = round_trip(fd, &w, &m);
        if (sample.plain_us < 0)
                return false;
        warm_message_deinit(&m);
        warm_writer_request(&w, b, 2, "complete");
        warm_write_map(&w, 2);
        warm_write_key_text(&w, "prefix", text, n_text);
        warm_write_key_uint(&w, "n_max", 1);
        sample.whole_us = round_trip(fd, &w, &m);
        if (sample.whole_us < 0)
                return false;
        take_times(&sample, &m);
        warm_message_deinit(&m);
        *ret_sample = sample;
        return true;
}

/* Ids of a text, again and again, as many as fit the first model's context. Return: how many; 0: it failed. */
static uint32_t make_ids(int fd, struct warm_buffer *b, const char *text, size_t n_text,
                         int32_t *ids) {
        const msgpack_object *found;
        struct warm_message m;
        struct warm_writer w;
        uint32_t n = IDS_MAX;
        double context;

        warm_writer_request(&w, b, 1, "models");
        warm_write_map(&w, 0);
        if (round_trip(fd, &w, &m) < 0)
                return 0;
        context = number_at(warm_read_element(warm_read_key(m.result, "models"), 0), "context");
        warm_message_deinit(&m);
        if (context < 2 * IDS_FRESH)
                return 0;
        n = context < n + 1 ? (uint32_t) context - 1 : n;
        warm_writer_request(&w, b, 1, "tokenize");
        warm_write_map(&w, 1);
        warm_write_key_text(&w, "text", text, n_text);
        if (round_trip(fd, &w, &m) < 0)
                return 0;
        found = warm_read_key(m.result, "ids");
        for (uint32_t i = 0; i < n && warm_read_n(found) > 0; i++) {
                uint64_t id = 0;

                (void) warm_read_uint(warm_read_element(found, i % warm_read_n(found)), &id);
                ids[i] = (int32_t) id;
        }
        n = warm_read_n(found) > 0 ? n : 0;
        warm_message_deinit(&m);
        return n;
}

static bool measure_ids(int fd, struct warm_buffer *b, const int32_t *ids, uint32_t n_ids,
                        struct sample *ret_sample) {
        struct sample sample = { 0 };
        struct warm_message m;
        struct warm_writer w;
        double start_us = now_us();

        warm_writer_request(&w, b, 3, "complete");
        warm_write_map(&w, 2);
        warm_write_key_ids(&w, "prompt", ids, n_ids);
        warm_write_key_uint(&w, "n_max", 1);
        sample.packed_us = now_us() - start_us;
        sample.whole_us = round_trip(fd, &w, &m);
        if (sample.whole_us < 0)
                return false;
        sample.whole_us += sample.packed_us;
        take_times(&sample, &m);
        warm_message_deinit(&m);
        *ret_sample = sample;
        return true;
}

static void show_all(const struct sample *samples, unsigned n) {
        printf("%-32s %10s %10s %10s\n", "us, 1 token a request", "median", "p95", "most");
        show("complete beyond the engine's time", samples, n, offsetof(struct sample, beyond_us));
        show("  of it: arrival to first step", samples, n, offsetof(struct sample, queue_us));
        show("cancel (no engine, two wake-ups)", samples, n, offsetof(struct sample, plain_us));
        show("engine", samples, n, offsetof(struct sample, engine_us));
        show("complete, whole", samples, n, offsetof(struct sample, whole_us));
}

static bool show_ids(int fd, struct warm_buffer *b, const char *text, size_t n_text) {
        static struct sample samples[IDS_ROUNDS + 1];
        static int32_t ids[IDS_MAX];
        uint32_t n_ids = make_ids(fd, b, text, n_text, ids);

        if (n_ids == 0)
                return false;
        for (uint32_t i = 0; i <= IDS_ROUNDS; i++) {
                /* Other ends each time, of ids that the prompt has. */
                for (uint32_t k = 1; k <= IDS_FRESH; k++)
                        ids[n_ids - k] = ids[(i * IDS_FRESH + k * k) % (n_ids - IDS_FRESH)];
                if (!measure_ids(fd, b, ids, n_ids, &samples[i]))
                        return false;
        }
        printf("\nus, %5u ids, all but %u cached %10s %10s %10s\n", n_ids, IDS_FRESH, "median",
               "p95", "most");
        show("beyond the engine's time", samples + 1, IDS_ROUNDS,
             offsetof(struct sample, beyond_us));
        show("  of it: ids packed", samples + 1, IDS_ROUNDS, offsetof(struct sample, packed_us));
        show("  of it: arrival to first step", samples + 1, IDS_ROUNDS,
             offsetof(struct sample, queue_us));
        show("engine", samples + 1, IDS_ROUNDS, offsetof(struct sample, engine_us));
        show("complete, whole", samples + 1, IDS_ROUNDS, offsetof(struct sample, whole_us));
        return true;
}

int main(int argc, char **argv) {
        static struct sample samples[ROUNDS_MAX];
        static char text[PREFIX_BYTES + ROUNDS_MAX];
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        unsigned n = argc > 3 ? (unsigned) atoi(argv[3]) : 300;
        struct warm_buffer b;
        size_t n_text = 0;
        FILE *file;
        int fd;

        if (argc < 3 || n == 0 || n > ROUNDS_MAX || strlen(argv[1]) >= sizeof(address.sun_path)) {
                fprintf(stderr, "usage: bench-socket SOCKET FILE [N]\n");
                return 2;
        }
        file = fopen(argv[2], "re");
        if (file) {
                n_text = fread(text, 1, PREFIX_BYTES + n, file);
                fclose(file);
        }
        strcpy(address.sun_path, argv[1]);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (n_text < PREFIX_BYTES + n || fd < 0 ||
            connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0) {
                fprintf(stderr, "bench-socket: %s\n",
                        errno ? strerror(errno) : "the file is too short");
                return 1;
        }
        warm_buffer_init(&b, WARM_FRAME_BYTES_MAX);
        for (unsigned i = 0; i < n; i++)
                if (!measure(fd, &b, text, PREFIX_BYTES + i, &samples[i]))
                        return 1;
        show_all(samples, n);
        if (!show_ids(fd, &b, text, n_text))
                return 1;
        warm_buffer_deinit(&b);
        close(fd);
        return 0;
}
