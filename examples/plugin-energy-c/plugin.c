/* A double well in the plane, as a plugin for CMF in C.
 *
 * Build:  cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden -o libdouble_well_c.so plugin.c -I../../cmf-plugins/include
 * Check:  cmf-cli plugin check ./libdouble_well_c.so
 * Use:    cmf-cli sample --energy plugin:./libdouble_well_c.so --out samples.png */
#include "cmf_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* E(x, y) = depth (x^2 - 1)^2 + stiffness y^2 / 2 */
struct cmf_energy {
    double depth, stiffness;
};

static const cmf_entry entries[] = {{
    "double-well-c",
    "A double well in the plane, written in C",
    "{\"type\":\"object\",\"properties\":{"
    "\"depth\":{\"type\":\"number\",\"description\":\"Height of the barrier, in nats\",\"default\":3,\"minimum\":0},"
    "\"stiffness\":{\"type\":\"number\",\"description\":\"Curvature across the wells\",\"default\":4,\"minimum\":0}}}",
}};

static int32_t fail(cmf_error *error, int32_t code, const char *text) {
    snprintf(error->text, sizeof error->text, "%s", text);
    return code;
}

/* The number of a parameter. The host has checked it and writes no spaces, so this little reading will do. */
static double number(const char *parameters, const char *key, double otherwise) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *found = strstr(parameters, quoted);
    return found ? strtod(found + strlen(quoted), NULL) : otherwise;
}

static int32_t create(const char *name, const char *parameters, cmf_energy **energy, cmf_error *error) {
    if (strcmp(name, entries[0].name) != 0) return fail(error, CMF_INVALID, "there is no energy of this name");
    cmf_energy *made = malloc(sizeof *made);
    if (!made) return fail(error, CMF_FAILED, "out of memory");
    made->depth = number(parameters, "depth", 3);
    made->stiffness = number(parameters, "stiffness", 4);
    *energy = made;
    return CMF_OK;
}

static void destroy(cmf_energy *energy) { free(energy); }

static size_t dim(const cmf_energy *energy) {
    (void)energy;
    return 2;
}

static int32_t domain(const cmf_energy *energy, size_t d, double *low, double *high, cmf_error *error) {
    (void)energy;
    if (d != 2) return fail(error, CMF_INVALID, "d: expected 2");
    low[0] = low[1] = -2;
    high[0] = high[1] = 2;
    return CMF_OK;
}

static int32_t value_and_gradient(const cmf_energy *e, size_t n, size_t d, const double *x, double *value,
                                  double *gradient, cmf_error *error) {
    if (d != 2) return fail(error, CMF_INVALID, "d: expected 2");
    for (size_t i = 0; i < n; i++) {
        const double *p = x + 2 * i;
        double well = p[0] * p[0] - 1;
        value[i] = e->depth * well * well + 0.5 * e->stiffness * p[1] * p[1];
        gradient[2 * i] = 4 * e->depth * p[0] * well;
        gradient[2 * i + 1] = e->stiffness * p[1];
    }
    return CMF_OK;
}

static int32_t hvp(const cmf_energy *e, size_t n, size_t d, const double *x, const double *v, double *hv,
                   cmf_error *error) {
    if (d != 2) return fail(error, CMF_INVALID, "d: expected 2");
    for (size_t i = 0; i < n; i++) {
        hv[2 * i] = 4 * e->depth * (3 * x[2 * i] * x[2 * i] - 1) * v[2 * i];
        hv[2 * i + 1] = e->stiffness * v[2 * i + 1];
    }
    return CMF_OK;
}

static const cmf_energy_factory energies = {1, entries, create, destroy, dim, domain, value_and_gradient, hvp};

static const void *get_factory(const char *id) { return strcmp(id, CMF_ENERGY) == 0 ? &energies : NULL; }

CMF_EXPORT const cmf_plugin cmf_plugin_entry = {CMF_ABI_MAJOR, CMF_ABI_MINOR, "double-well-c", "0.1.0", get_factory};
