/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The roofline as SVG: operations a byte against operations a second, both logarithmic; the roof is what the device can
 * do, each row a numbered point under it. Beside it the rows, with a bar as long as their share of the floor.
 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "bench.h"

#define LEFT        70.0
#define TOP         60.0
#define PLOT_WIDTH  430.0
#define PLOT_HEIGHT 360.0
#define LIST_LEFT   540.0
#define LIST_BAR    790.0
#define BAR_WIDTH   200.0
#define LINE_HEIGHT 19.0
#define WIDTH       1060.0

struct scale {
        double x_low, x_high, y_low, y_high; /* decades */
};

static double at_x(const struct scale *s, double value) {
        return LEFT + PLOT_WIDTH * (log10(value) - s->x_low) / (s->x_high - s->x_low);
}

static double at_y(const struct scale *s, double value) {
        return TOP + PLOT_HEIGHT * (s->y_high - log10(value)) / (s->y_high - s->y_low);
}

static double row_rate(const struct bench_row *row) {
        return 1e3 * row->flop / bench_row_ms(row);
}

static bool is_drawn(const struct bench_row *row) {
        return bench_row_share(row) > 0 && row->flop > 0 && row->bytes > 0;
}

/* Whole decades around all points and the roof's edge. */
static struct scale make_scale(const struct bench *b) {
        double ridge = log10(b->machine.flop_per_s / b->machine.copy_bytes_per_s);
        double top = log10(b->machine.flop_per_s);
        struct scale s = { ridge, ridge, top, top };

        for (uint32_t i = 0; i < b->n_rows; i++) {
                const struct bench_row *row = &b->rows[i];

                if (!is_drawn(row))
                        continue;
                s.x_low = fmin(s.x_low, log10(row->flop / row->bytes));
                s.x_high = fmax(s.x_high, log10(row->flop / row->bytes));
                s.y_low = fmin(s.y_low, log10(row_rate(row)));
                s.y_high = fmax(s.y_high, log10(row_rate(row)));
        }
        return (struct scale){ floor(s.x_low - 0.1), ceil(s.x_high + 0.1), floor(s.y_low - 0.1),
                               ceil(s.y_high + 0.1) };
}

static void put_text(FILE *f, const char *text) {
        for (; *text; text++)
                switch (*text) {
                case '&':
                        fputs("&amp;", f);
                        break;
                case '<':
                        fputs("&lt;", f);
                        break;
                case '>':
                        fputs("&gt;", f);
                        break;
                default:
                        fputc(*text, f);
                }
}

static void put_grid(FILE *f, const struct scale *s) {
        for (double x = s->x_low; x <= s->x_high; x++) {
                double px = at_x(s, pow(10, x));

                fprintf(f,
                        "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
                        "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">1e%.0f</text>\n",
                        px, TOP, px, TOP + PLOT_HEIGHT, px, TOP + PLOT_HEIGHT + 16, x);
        }
        for (double y = s->y_low; y <= s->y_high; y++) {
                double py = at_y(s, pow(10, y));

                fprintf(f,
                        "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>"
                        "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">1e%.0f</text>\n",
                        LEFT, py, LEFT + PLOT_WIDTH, py, LEFT - 6, py + 4, y);
        }
        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">operations a byte</text>\n",
                LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 34);
        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\">operations a second</text>\n", LEFT, TOP - 8);
}

static void put_roof(FILE *f, const struct bench_machine *m, const struct scale *s) {
        double ridge = m->flop_per_s / m->copy_bytes_per_s;
        double x = pow(10, s->x_low), y = x * m->copy_bytes_per_s;

        if (y < pow(10, s->y_low)) { /* it enters through the bottom */
                y = pow(10, s->y_low);
                x = y / m->copy_bytes_per_s;
        }
        fprintf(f, "<polyline class=\"roof\" points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\"/>\n",
                at_x(s, x), at_y(s, y), at_x(s, ridge), at_y(s, m->flop_per_s), LEFT + PLOT_WIDTH,
                at_y(s, m->flop_per_s));
}

static void put_row(FILE *f, const struct bench_row *row, uint32_t index, const struct scale *s) {
        double y = TOP + LINE_HEIGHT * index, share = bench_row_share(row);

        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\">%u  %s", LIST_LEFT, y + 12, index + 1, row->name);
        if (row->n_tokens > 1)
                fprintf(f, ", %u tokens", row->n_tokens);
        if (row->depth > 0)
                fprintf(f, " at depth %u", row->depth);
        if (row->batch > 1)
                fprintf(f, ", %u at once", row->batch);
        fputs("</text>\n", f);
        if (!is_drawn(row))
                return;
        fprintf(f,
                "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"13\"/>"
                "<text x=\"%.1f\" y=\"%.1f\">%.0f%%</text>\n",
                LIST_BAR, y + 1, BAR_WIDTH * fmin(share, 1.2), LIST_BAR + BAR_WIDTH * 1.2 + 4,
                y + 12, 100 * share);
        fprintf(f,
                "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>"
                "<text x=\"%.1f\" y=\"%.1f\">%u</text>\n",
                at_x(s, row->flop / row->bytes), at_y(s, row_rate(row)),
                at_x(s, row->flop / row->bytes) + 5, at_y(s, row_rate(row)) + 4, index + 1);
}

static void put_all(FILE *f, const struct bench *b) {
        struct scale s = make_scale(b);
        double list = LINE_HEIGHT * b->n_rows;
        double height = TOP + (list > PLOT_HEIGHT ? list : PLOT_HEIGHT) + 50;

        fprintf(f,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" "
                "viewBox=\"0 0 %.0f %.0f\">\n"
                "<style>text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd}"
                ".roof{fill:none;stroke:#222;stroke-width:2}.point{fill:#c33}.bar{fill:#48c}"
                ".whole{stroke:#222;stroke-dasharray:3 3}</style>\n"
                "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
                WIDTH, height, WIDTH, height);
        fprintf(f, "<text x=\"%.1f\" y=\"20\">", LEFT);
        put_text(f, b->model.name);
        fputs(", ", f);
        put_text(f, b->model.quantization);
        fputs(b->machine.backend[0] ? ", on " : "", f);
        put_text(f, b->machine.backend);
        fputs(b->machine.backend[0] ? ": " : "", f);
        put_text(f, b->machine.description);
        fprintf(f, "; copies %.1f GB/s, multiplies %.3f TFLOP/s</text>\n",
                b->machine.copy_bytes_per_s / 1e9, b->machine.flop_per_s / 1e12);
        put_grid(f, &s);
        put_roof(f, &b->machine, &s);
        fprintf(f, "<text x=\"%.1f\" y=\"%.1f\">share of the floor</text>\n", LIST_BAR, TOP - 8);
        for (uint32_t i = 0; i < b->n_rows; i++)
                put_row(f, &b->rows[i], i, &s);
        fprintf(f,
                "<line class=\"whole\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n</svg>\n",
                LIST_BAR + BAR_WIDTH, TOP, LIST_BAR + BAR_WIDTH, TOP + list);
}

int bench_plot(const struct bench *b, const char *path) {
        bool failed;
        FILE *f;

        if (b->machine.copy_bytes_per_s <= 0 || b->machine.flop_per_s <= 0) {
                fprintf(stderr, "warmctl: what the device can do at most is not known: no plot\n");
                return WARMCTL_REFUSED;
        }
        f = fopen(path, "we");
        if (!f) {
                fprintf(stderr, "warmctl: %s: %s\n", path, strerror(errno));
                return WARMCTL_REFUSED;
        }
        put_all(f, b);
        failed = ferror(f);
        if (fclose(f) != 0 || failed) {
                fprintf(stderr, "warmctl: writing %s: %s\n", path, strerror(errno));
                return WARMCTL_REFUSED;
        }
        return WARMCTL_OK;
}
