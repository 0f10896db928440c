/* Points on a spiral, as a data set plugin for CMF in C.
 *
 * Build:  cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden -o libspiral_c.so plugin.c -I../../cmf-plugins/include -lm
 * Check:  cmf-cli plugin check ./libspiral_c.so
 * Use:    cmf-cli train --data plugin:./libspiral_c.so --out runs/spiral */
#include "cmf_plugin.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cmf_dataset {
    size_t rows[2];
    uint64_t seed;
};

static const cmf_entry entries[] = {{
    "spiral-c",
    "Points on a spiral, written in C",
    "{\"type\":\"object\",\"properties\":{"
    "\"rows\":{\"type\":\"integer\",\"description\":\"Training rows\",\"default\":10000,\"minimum\":10,\"maximum\":100000000},"
    "\"seed\":{\"type\":\"integer\",\"description\":\"Seed of the points\",\"default\":0,\"minimum\":0}}}",
}};

static int32_t fail(cmf_error *error, int32_t code, const char *text) {
    snprintf(error->text, sizeof error->text, "%s", text);
    return code;
}

/* A whole number of a parameter: the host has checked it and writes no spaces. */
static uint64_t whole(const char *parameters, const char *key, uint64_t otherwise) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(parameters, quoted);
    return found ? strtoull(found + strlen(quoted), NULL, 10) : otherwise;
}

static int32_t create(const char *name, const char *parameters, cmf_dataset **dataset, cmf_error *error) {
    if (strcmp(name, entries[0].name) != 0) return fail(error, CMF_INVALID, "there is no data set of this name");
    cmf_dataset *made = malloc(sizeof *made);
    if (!made) return fail(error, CMF_FAILED, "out of memory");
    made->rows[CMF_TRAIN] = (size_t)whole(parameters, "rows", 10000);
    made->rows[CMF_HELD_OUT] = made->rows[CMF_TRAIN] / 10;
    made->seed = whole(parameters, "seed", 0);
    *dataset = made;
    return CMF_OK;
}

static void destroy(cmf_dataset *dataset) { free(dataset); }

static int32_t info(const cmf_dataset *dataset, cmf_dataset_info *info, cmf_error *error) {
    (void)error;
    *info = (cmf_dataset_info){1, {2, 1, 1}, {dataset->rows[0], dataset->rows[1]}, {0, 0}, "CC0-1.0"};
    return CMF_OK;
}

/* A number on [0, 1): a hash of the row (splitmix64), so that rows need not be stored. */
static double uniform(uint64_t seed, uint64_t k) {
    uint64_t z = seed + k * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static int32_t read_rows(const cmf_dataset *dataset, uint32_t split, size_t n, const size_t *rows, size_t d,
                         double *out, cmf_error *error) {
    if (d != 2) return fail(error, CMF_INVALID, "d: expected 2");
    if (split > CMF_HELD_OUT) return fail(error, CMF_INVALID, "split: expected 0 or 1");
    for (size_t i = 0; i < n; i++) {
        if (rows[i] >= dataset->rows[split]) return fail(error, CMF_INVALID, "a row past the end of its split");
        uint64_t row = rows[i] + (split == CMF_TRAIN ? 0 : dataset->rows[CMF_TRAIN]);
        double t = 9 * sqrt(uniform(dataset->seed, 3 * row));
        out[2 * i] = 0.4 * t * cos(t) + 0.2 * (uniform(dataset->seed, 3 * row + 1) - 0.5);
        out[2 * i + 1] = 0.4 * t * sin(t) + 0.2 * (uniform(dataset->seed, 3 * row + 2) - 0.5);
    }
    return CMF_OK;
}

static const cmf_dataset_factory datasets = {1, entries, create, destroy, info, read_rows};

static const void *get_factory(const char *id) { return strcmp(id, CMF_DATASET) == 0 ? &datasets : NULL; }

CMF_EXPORT const cmf_plugin cmf_plugin_entry = {CMF_ABI_MAJOR, CMF_ABI_MINOR, "spiral-c", "0.1.0", get_factory};
