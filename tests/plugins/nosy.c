/* A task that calls the host's tools wrongly and in corner cases, and gives each answer as a result. */
#include "cmf_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cmf_entry entries[] = {{"nosy", "Calls every tool of the host wrongly", ""}};

static int32_t say(const cmf_host *h, const char *what, int32_t code, const cmf_error *said) {
    char json[2048];
    cmf_error error;
    snprintf(json, sizeof json, "{\"what\":\"%s\",\"code\":%d,\"text\":\"%s\"}", what, (int)code,
             code == CMF_OK || strchr(said->text, '"') ? "" : said->text);
    return h->result(h->context, json, &error);
}

/* Calls, gives the answer as a result, and goes on. */
#define TRY(what, call)                                                \
    do {                                                               \
        cmf_error e;                                                   \
        int32_t code_ = (call);                                        \
        if (say(h, what, code_, &e) != CMF_OK) return CMF_FAILED;      \
    } while (0)

static int32_t run(const char *name, const char *parameters, const cmf_host *h, cmf_error *error) {
    (void)name, (void)parameters, (void)error;
    void *c = h->context;
    cmf_error e0;
    cmf_model_info model;
    if (h->model(c, &model, &e0) != CMF_OK) return CMF_FAILED;
    size_t d = model.dim;
    double *x = calloc(d, sizeof *x), *out = calloc(d, sizeof *out), value, residual, *room = calloc(d * d, sizeof *room);
    int32_t status;
    cmf_gibbs_report report;
    cmf_input_info info;

    TRY("none value", h->value_and_gradient(c, 0, d, NULL, NULL, NULL, &e));
    TRY("none hvp", h->hvp(c, 0, d, NULL, NULL, NULL, &e));
    TRY("none hessian", h->hessian(c, 0, d, NULL, NULL, &e));
    TRY("none contraction", h->contraction(c, 0, d, NULL, NULL, NULL, &e));
    TRY("none conjugate", h->conjugate(c, 0, d, NULL, NULL, NULL, NULL, &e));
    TRY("none gibbs", h->gibbs(c, 0, d, 8, NULL, NULL, &e));
    TRY("none density", h->log_density(c, 0, d, NULL, NULL, NULL, NULL, NULL, &e));
    TRY("none normal", h->normal(c, 0, NULL, &e));

    TRY("good value", h->value_and_gradient(c, 1, d, x, &value, out, &e));
    TRY("good conjugate", h->conjugate(c, 1, d, x, out, &status, &residual, &e));

    TRY("d value", h->value_and_gradient(c, 1, d + 1, x, &value, out, &e));
    TRY("d gibbs", h->gibbs(c, 1, d - 1, 8, x, &report, &e));
    TRY("d gaussian", h->gaussian(c, d - 1, x, room, &e));
    TRY("null x", h->value_and_gradient(c, 1, d, NULL, &value, out, &e));
    TRY("null status", h->conjugate(c, 1, d, x, out, NULL, &residual, &e));
    TRY("null report", h->gibbs(c, 1, d, 8, x, NULL, &e));
    TRY("null context", h->hvp(NULL, 1, d, x, x, out, &e));
    TRY("null label", h->write_table(c, CMF_NO_INPUT, NULL, 1, d, x, &e));
    TRY("null info", h->model(c, NULL, &e));
    TRY("large n", h->hvp(c, SIZE_MAX / 2, d, x, x, out, &e));
    TRY("overlap", h->hvp(c, 1, d, x, out, out, &e));
    TRY("few steps", h->gibbs(c, 1, d, 3, x, &report, &e));
    TRY("no rows of nothing", h->write_table(c, CMF_NO_INPUT, "a", 3, 0, x, &e));
    size_t huge[3] = {SIZE_MAX, 2, 1}, empty[3] = {0, 4, 1}, two[3] = {1, 1, 2}, one[3] = {1, 1, 1};
    TRY("huge image", h->write_image(c, CMF_NO_INPUT, "a", huge, x, &e));
    TRY("empty image", h->write_image(c, CMF_NO_INPUT, "a", empty, x, &e));
    TRY("two channels", h->write_image(c, CMF_NO_INPUT, "a", two, x, &e));
    TRY("label", h->write_table(c, CMF_NO_INPUT, "../a", 1, d, x, &e));
    x[1] = NAN;
    TRY("nan", h->write_table(c, CMF_NO_INPUT, "a", 1, d, x, &e));
    TRY("no json", h->result(c, "seven", &e));
    TRY("input 99", h->input_info(c, 99, &info, &e));
    TRY("image of input 99", h->write_image(c, 99, "a", one, x, &e));
    TRY("latin text", h->result(c, "{\"a\":\"\xe9\"}", &e));
    h->log(c, CMF_WARNING, "caf\xe9");
    h->progress(c, NAN);
    h->progress(c, 7);
    free(x), free(out), free(room);
    return CMF_OK;
}

static const cmf_task_factory tasks = {1, entries, run};

static const void *get_factory(const char *id) { return strcmp(id, CMF_TASK) == 0 ? &tasks : NULL; }

CMF_EXPORT const cmf_plugin cmf_plugin_entry = {CMF_ABI_MAJOR, CMF_ABI_MINOR, "nosy", "0.1.0", get_factory};
