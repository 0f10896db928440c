/* Energies that misbehave, one library each: compiled with -DHOW=n. */
#include "cmf_plugin.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ABORTS = 1, SEGFAULTS, HANGS, LIES, NANS, OVERRUNS, MAJOR, NO_SYMBOL, FAILS, EXITS, WRONG_GRADIENT, HANGS_ON_LOAD,
       CANCELS, OVERRUNS_FAR };

static const cmf_entry entries[] = {{"hostile", "Misbehaves", "{\"type\":\"object\",\"properties\":{}}"}};
static int object;

static int32_t create(const char *name, const char *parameters, cmf_energy **energy, cmf_error *error) {
    (void)parameters;
    if (strcmp(name, "hostile") != 0) {
        strcpy(error->text, "no such energy");
        return CMF_INVALID;
    }
    *energy = (cmf_energy *)&object;
    return CMF_OK;
}

static void destroy(cmf_energy *energy) { (void)energy; }

static size_t dim(const cmf_energy *energy) {
    (void)energy;
    return 2 + (HOW == LIES);
}

static int32_t domain(const cmf_energy *energy, size_t d, double *low, double *high, cmf_error *error) {
    (void)energy;
    (void)error;
    for (size_t i = 0; i < d; i++) low[i] = -1, high[i] = 1;
    return CMF_OK;
}

static volatile int zero, *nowhere;

static int32_t value_and_gradient(const cmf_energy *energy, size_t n, size_t d, const double *x, double *value,
                                  double *gradient, cmf_error *error) {
    (void)energy;
    if (d != dim(NULL)) {
        strcpy(error->text, "wrong d");
        return CMF_INVALID;
    }
    if (n == 0) return CMF_OK;
    if (HOW == ABORTS) abort();
    if (HOW == SEGFAULTS) *nowhere = 1;
    if (HOW == HANGS)
        while (!zero) {}
    if (HOW == EXITS) exit(7);
    if (HOW == FAILS) {
        strcpy(error->text, "the moon is in the wrong place");
        return CMF_FAILED;
    }
    if (HOW == CANCELS) {
        strcpy(error->text, "enough");
        return CMF_CANCELLED;
    }
    for (size_t i = 0; i < n; i++) {
        /* The liar works in 2 dimensions whatever it says. */
        value[i] = (x[d * i] * x[d * i] + x[d * i + 1] * x[d * i + 1]) / 2;
        for (size_t k = 0; k < 2; k++) gradient[d * i + k] = x[d * i + k] * (HOW == WRONG_GRADIENT ? 1.01 : 1);
        if (HOW == NANS) value[i] = NAN;
    }
    if (HOW == OVERRUNS) gradient[n * d] = 1;
    if (HOW == OVERRUNS_FAR && n > 1000) gradient[2 * n * d - 1] = 1;
    return CMF_OK;
}

static const cmf_energy_factory energies = {1, entries, create, destroy, dim, domain, value_and_gradient, NULL};

static const void *get_factory(const char *id) { return strcmp(id, CMF_ENERGY) == 0 ? &energies : NULL; }

#if HOW == 12 /* HANGS_ON_LOAD */
__attribute__((constructor)) static void load(void) {
    while (!zero) {}
}
#endif

#if HOW == 8 /* NO_SYMBOL */
CMF_EXPORT const cmf_plugin another_name;
#define cmf_plugin_entry another_name
#endif
CMF_EXPORT const cmf_plugin cmf_plugin_entry = {HOW == MAJOR ? 9 : CMF_ABI_MAJOR, CMF_ABI_MINOR, "hostile", "0.1.0",
                                                get_factory};
