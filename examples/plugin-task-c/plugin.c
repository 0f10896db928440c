/* There and back: maps images by grad w and back by grad w*, as a task plugin for CMF in C.
 *
 * Build:  cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden -o libround_trip_c.so plugin.c -I../../cmf-plugins/include
 * Check:  cmf-cli plugin check ./libround_trip_c.so
 * Use:    cmf-cli run plugin:./libround_trip_c.so --model model.onnx image.png */
#include "cmf_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cmf_entry entries[] = {{
    "round-trip-c",
    "Map images to the Gibbs factor and back: how well the model's transport inverts, written in C",
    "{\"type\":\"object\",\"properties\":{"
    "\"inputs\":{\"type\":\"array\",\"description\":\"Images of the model's size\",\"minItems\":1}}}",
}};

static int32_t fail(cmf_error *error, int32_t code, const char *text) {
    snprintf(error->text, sizeof error->text, "%s", text);
    return code;
}

/* One image: y -> x = grad w(y) -> grad w*(x), which is y again. `work` has room for 3 d numbers. */
static int32_t one(const cmf_host *h, size_t index, const cmf_model_info *model, double *work, cmf_error *error) {
    size_t d = model->dim;
    double *y = work, *x = work + d, *back = work + 2 * d, value, residual;
    int32_t code, status;
    cmf_input_info info;
    if ((code = h->input_info(h->context, index, &info, error)) != CMF_OK) return code;
    if (info.rank != 3 || info.shape[0] * info.shape[1] * info.shape[2] != d)
        return fail(error, CMF_INVALID, "expected images of the model's size");
    if ((code = h->input_read(h->context, index, d, y, NULL, error)) != CMF_OK) return code;
    if ((code = h->value_and_gradient(h->context, 1, d, y, &value, x, error)) != CMF_OK) return code;
    if ((code = h->conjugate(h->context, 1, d, x, back, &status, &residual, error)) != CMF_OK) return code;
    if (status != CMF_CONVERGED) h->log(h->context, CMF_WARNING, "the conjugate's solve did not converge");
    double worst = 0;
    for (size_t i = 0; i < d; i++) {
        double gap = back[i] > y[i] ? back[i] - y[i] : y[i] - back[i];
        if (gap > worst) worst = gap;
    }
    if ((code = h->write_image(h->context, index, "round-trip", info.shape, back, error)) != CMF_OK) return code;
    char json[160];
    snprintf(json, sizeof json, "{\"largest_difference\":%.6g,\"residual\":%.6g,\"converged\":%s}", worst, residual,
             status == CMF_CONVERGED ? "true" : "false");
    return h->result(h->context, json, error);
}

static int32_t run(const char *name, const char *parameters, const cmf_host *h, cmf_error *error) {
    (void)parameters; /* it has none */
    if (strcmp(name, entries[0].name) != 0) return fail(error, CMF_INVALID, "there is no task of this name");
    cmf_model_info model;
    int32_t code = h->model(h->context, &model, error);
    if (code != CMF_OK) return code;
    double *work = calloc(3 * model.dim, sizeof *work);
    if (!work) return fail(error, CMF_FAILED, "out of memory");
    size_t count = h->input_count(h->context);
    for (size_t i = 0; i < count && code == CMF_OK; i++) {
        if (h->cancelled(h->context)) code = fail(error, CMF_CANCELLED, "stopped");
        if (code == CMF_OK) code = one(h, i, &model, work, error);
        h->progress(h->context, (double)(i + 1) / (double)count);
    }
    free(work);
    return code;
}

static const cmf_task_factory tasks = {1, entries, run};

static const void *get_factory(const char *id) { return strcmp(id, CMF_TASK) == 0 ? &tasks : NULL; }

CMF_EXPORT const cmf_plugin cmf_plugin_entry = {CMF_ABI_MAJOR, CMF_ABI_MINOR, "round-trip-c", "0.1.0", get_factory};
