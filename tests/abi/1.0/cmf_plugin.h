/* cmf_plugin.h: the binary interface between CMF and a plugin, version 1.0. Plain C11; also C++.
 *
 * A plugin is a dynamic library that exports one symbol, `cmf_plugin_entry`. It offers energies, data sets
 * and tasks through factories, each asked for by a versioned id.
 * Rules that hold everywhere unless a comment says otherwise:
 * - Ownership. Arrays belong to the caller and are borrowed for the call: read const ones, fill the others,
 *   keep no pointer. No memory is allocated on one side and freed on the other.
 * - Lifetime. Tables and strings reached from `cmf_plugin_entry` are constant and live as long as the process;
 *   libraries are never unloaded. An object lives from create to destroy.
 * - Threads. [any] may be called from any thread, on one object from several at once. [owner] is called once,
 *   after every other call on the object has returned. [run] is for the time of one `run` only, any thread.
 * - Layout. Arrays are row-major, rows one after the other: [n, d] has n rows of d doubles. Where n is 0,
 *   arrays may be NULL, nothing is written and the answer is CMF_OK. What is written overlaps nothing else.
 * - Text is UTF-8 that ends in NUL. Parameters are a flat JSON object without spaces around its punctuation:
 *   the host has checked it against the entry's schema and has filled in the defaults, so every key is there.
 * - Status. Functions that return int32_t answer CMF_OK or an error code, and on an error put words in
 *   `error` (never NULL). What they have written by then has no meaning.
 * - No exception, panic or longjmp may leave a function.
 * Versions. The major number changes when old plugins can no longer be used. Structs never grow: new powers are
 * new factory ids, and the minor number counts them. A host of 1.m takes plugins that need 1.0 to 1.m. */
#ifndef CMF_PLUGIN_H
#define CMF_PLUGIN_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CMF_ABI_MAJOR 1u
#define CMF_ABI_MINOR 0u

#if defined(_WIN32)
#define CMF_EXPORT __declspec(dllexport)
#else
#define CMF_EXPORT __attribute__((visibility("default")))
#endif

enum {
    CMF_OK = 0,
    CMF_FAILED = 1,      /* it did not work; the text says why */
    CMF_INVALID = 2,     /* an argument does not fit: unknown name, wrong d or length, bad parameter */
    CMF_UNSUPPORTED = 3, /* this object does not do that, ever */
    CMF_CANCELLED = 4,   /* the user asked to stop: for tasks, once `cancelled` has said so */
    CMF_PANIC = 5        /* the callee broke and caught itself; do nothing more with the object but destroy it */
};

/* Words for an error. The caller owns it; the callee writes at most 1023 bytes and a NUL. */
typedef struct cmf_error {
    char text[1024];
} cmf_error;

/* What a factory offers under one name. */
typedef struct cmf_entry {
    const char *name;       /* lower case letters, digits and hyphens; unique in its factory */
    const char *about;      /* one line for people */
    const char *parameters; /* JSON schema of the parameters: {"type":"object","properties":{NAME:{"type":
                               "number"|"integer"|"boolean"|"string"|"array" (of numbers), "description",
                               "default", "minimum", "maximum", "enum", "minItems", "maxItems"}},
                               "required":[...]}; a property has a default or is required */
} cmf_entry;

/* ---- Energies: functions E on R^d to be sampled from exp(-E), convex or not. ------------------------ */

#define CMF_ENERGY "cmf.energy/1"

typedef struct cmf_energy cmf_energy; /* an object of the plugin, opaque to the host */

typedef struct cmf_energy_factory {
    size_t count;             /* number of entries, at least 1 */
    const cmf_entry *entries; /* [count] */
    /* [any] Makes the energy `name`; *energy is the host's to destroy. An unknown name is CMF_INVALID. */
    int32_t (*create)(const char *name, const char *parameters, cmf_energy **energy, cmf_error *error);
    void (*destroy)(cmf_energy *energy); /* [owner] */
    size_t (*dim)(const cmf_energy *energy); /* [any] d, at least 1; never changes */
    /* [any] The suggested domain, low[i] < high[i], finite, in the units of x: where to start, not a wall. */
    int32_t (*domain)(const cmf_energy *energy, size_t d, double *low, double *high, cmf_error *error);
    /* [any] x [n, d] -> value [n] in nats (-log of the density, up to a constant), gradient [n, d] in nats per
       unit of x. A row's answer does not depend on the other rows. d other than dim is CMF_INVALID. Rows that
       are not finite may get any answer, rows that are must get finite ones within the domain. */
    int32_t (*value_and_gradient)(const cmf_energy *energy, size_t n, size_t d, const double *x, double *value,
                                  double *gradient, cmf_error *error);
    /* [any] x, v [n, d] -> Hessian of E at x_i times v_i [n, d]. NULL, or CMF_UNSUPPORTED also for n = 0, if
       there is none: the host then takes differences of gradients. */
    int32_t (*hvp)(const cmf_energy *energy, size_t n, size_t d, const double *x, const double *v, double *hv,
                   cmf_error *error);
} cmf_energy_factory;

/* ---- Data sets: finite sets of examples with random access. ----------------------------------------- */

#define CMF_DATASET "cmf.dataset/1"

enum { CMF_TRAIN = 0, CMF_HELD_OUT = 1 }; /* the two disjoint splits */

typedef struct cmf_dataset cmf_dataset; /* an object of the plugin, opaque to the host */

typedef struct cmf_dataset_info {
    size_t rank;           /* 1: vectors; 3: images */
    size_t shape[3];       /* [d, 1, 1] or [height, width, channels], 1 or 3 channels; d is the product */
    size_t rows[2];        /* examples in CMF_TRAIN and CMF_HELD_OUT, at least 1 each */
    double pixel_range[2]; /* the values of black and white, low < high, for images; 0 and 0 for vectors */
    const char *licence;   /* licence and credits for a model card, or NULL; lives as long as the object */
} cmf_dataset_info;

typedef struct cmf_dataset_factory {
    size_t count;             /* number of entries, at least 1 */
    const cmf_entry *entries; /* [count]; by convention the parameter "path" (string) names a file or folder and
                                 "seed" (integer) makes generated data */
    /* [any] Opens the data set `name`; *dataset is the host's to destroy. An unknown name is CMF_INVALID. */
    int32_t (*create)(const char *name, const char *parameters, cmf_dataset **dataset, cmf_error *error);
    void (*destroy)(cmf_dataset *dataset); /* [owner] */
    int32_t (*info)(const cmf_dataset *dataset, cmf_dataset_info *info, cmf_error *error); /* [any] constant */
    /* [any] The examples rows [n], each below rows[split], in that order -> out [n, d], finite, in the data's
       units. A row or split that is not there, or another d, is CMF_INVALID. */
    int32_t (*read)(const cmf_dataset *dataset, uint32_t split, size_t n, const size_t *rows, size_t d,
                    double *out, cmf_error *error);
} cmf_dataset_factory;

/* ---- Tasks: something done with a model, by the tools of the host. ----------------------------------- */

#define CMF_TASK "cmf.task/1"

/* What is known of the model w: data are y = grad w*(x), x ~ P_w, and P_w is exp(-w)/Z or of `head_factor`. */
typedef struct cmf_model_info {
    size_t dim;              /* d */
    size_t rank;             /* as in cmf_dataset_info, for the points y */
    size_t shape[3];
    double pixel_range[2];   /* 0 and 0 where y has none */
    double sigma;            /* standard deviation of the noise in the data, in the units of y */
    double log_z;            /* log Z in nats, 0 without has_log_z */
    double log_z_error;      /* its standard error */
    uint32_t has_log_z;      /* 0 or 1: whether log_z is known or estimated */
    uint32_t has_hessian;    /* 0 or 1: whether hessian, contraction and exact log-densities are to be had */
} cmf_model_info;

/* How a Gibbs run went; 0 where unknown. */
typedef struct cmf_gibbs_report {
    double acceptance;            /* mean probability of acceptance, 0 to 1 */
    double step_size;             /* in the sampler's unit */
    double r_hat;                 /* worst split R-hat over several quantities */
    double effective_sample_size; /* least one */
} cmf_gibbs_report;

enum { CMF_CONVERGED = 0, CMF_OUT_OF_STEPS = 1, CMF_STALLED = 2, CMF_NON_FINITE = 3 }; /* conjugate rows */
enum {                                                                               /* log-density rows */
    CMF_EVALUATED = 0,
    CMF_NOT_POSITIVE_DEFINITE = 1, /* value is -inf */
    CMF_NOT_FINITE = 2,            /* value is -inf */
    CMF_UNCONVERGED = 3            /* an estimate whose error may exceed its standard error */
};

/* A file that the user named, decoded by the host. */
typedef struct cmf_input_info {
    const char *name;   /* its path as given; lives until `run` returns */
    size_t rank;        /* 2: a table [n, d]; 3: an image [height, width, channels] */
    size_t shape[3];    /* unused axes are 1 */
    uint32_t has_alpha; /* 1 if an image has an alpha channel, which does not count among its channels */
    uint32_t unused;    /* 0 */
} cmf_input_info;

enum { CMF_INFO = 0, CMF_WARNING = 1 }; /* levels of log; on an error, return it */
#define CMF_NO_INPUT ((size_t)-1)

/* The host's tools. The table and all behind it live until `run` returns. All are [run]; pass `context` first. */
typedef struct cmf_host {
    void *context; /* the host's; opaque */
    /* The model. Lengths as named; another d is CMF_INVALID. */
    int32_t (*model)(void *context, cmf_model_info *info, cmf_error *error);
    /* x [n, d] -> value w [n], gradient [n, d] */
    int32_t (*value_and_gradient)(void *context, size_t n, size_t d, const double *x, double *value,
                                  double *gradient, cmf_error *error);
    /* x, v [n, d] -> Hessian of w at x_i times v_i [n, d] */
    int32_t (*hvp)(void *context, size_t n, size_t d, const double *x, const double *v, double *hv,
                   cmf_error *error);
    /* x [n, d] -> Hessians [n, d, d]; CMF_UNSUPPORTED without has_hessian */
    int32_t (*hessian)(void *context, size_t n, size_t d, const double *x, double *hessian, cmf_error *error);
    /* x [n, d], m [n, d, d] symmetric -> gradient in x_i of <m_i, Hessian(x_i)> [n, d]; CMF_UNSUPPORTED likewise */
    int32_t (*contraction)(void *context, size_t n, size_t d, const double *x, const double *m, double *out,
                           cmf_error *error);
    /* x [n, d] -> y = grad w*(x) [n, d], status [n], residual [n] (root mean square of grad w(y) - x, in the
       units of x). A row that is not CMF_CONVERGED is no error of the call. */
    int32_t (*conjugate)(void *context, size_t n, size_t d, const double *x, double *y, int32_t *status,
                         double *residual, cmf_error *error);
    /* -> n draws of P_w [n, d], each the end of its own chain of `steps` steps (at least 8), the first half
       of which tunes, or exact where P_w is of `head_factor`. Other draws at every call. */
    int32_t (*gibbs)(void *context, size_t n, size_t d, size_t steps, double *x, cmf_gibbs_report *report,
                     cmf_error *error);
    /* y [n, d] -> log rho [n] in nats, standard_error [n] of estimates (0: exact), status [n]; score = its
       gradient [n, d], or NULL if not wanted */
    int32_t (*log_density)(void *context, size_t n, size_t d, const double *y, double *value,
                           double *standard_error, int32_t *status, double *score, cmf_error *error);
    /* -> mean [d] and covariance [d, d] of the noisy data */
    int32_t (*gaussian)(void *context, size_t d, double *mean, double *covariance, cmf_error *error);
    /* Random numbers from the host's seed; the order of the calls decides who gets which. */
    int32_t (*uniform)(void *context, size_t n, double *out, cmf_error *error); /* on [0, 1) */
    int32_t (*normal)(void *context, size_t n, double *out, cmf_error *error);  /* N(0, 1) */
    uint64_t (*seed)(void *context); /* the seed itself, for generators of the task's own */
    /* Files. Images are in the units of y: the model's pixel range, else 0 to 1. */
    size_t (*input_count)(void *context);
    int32_t (*input_info)(void *context, size_t index, cmf_input_info *info, cmf_error *error);
    /* -> values [shape], len of them; alpha [height, width] from 0 (transparent) to 1, or NULL if not wanted */
    int32_t (*input_read)(void *context, size_t index, size_t len, double *values, double *alpha,
                          cmf_error *error);
    /* Writes shape [height, width, channels] as NAME.label.png beside input `input` (or CMF_NO_INPUT), or
       where the user says. The label is lower case letters, digits and hyphens. Clamps to the range. */
    int32_t (*write_image)(void *context, size_t input, const char *label, const size_t *shape,
                           const double *values, cmf_error *error);
    /* Writes rows [n, d] of numbers as NAME.label.npy, likewise. */
    int32_t (*write_table)(void *context, size_t input, const char *label, size_t n, size_t d,
                           const double *values, cmf_error *error);
    /* A result for standard output: one flat JSON object. */
    int32_t (*result)(void *context, const char *json, cmf_error *error);
    /* Control. */
    void (*progress)(void *context, double fraction);            /* share of the work that is done, 0 to 1 */
    void (*log)(void *context, uint32_t level, const char *text); /* a line for the user */
    int32_t (*cancelled)(void *context); /* not 0: stop soon and return CMF_CANCELLED */
    /* Where P_w is N(a, Q^-1), or that with a `mixture`: a [d] and Q [d, d]. CMF_UNSUPPORTED where it is exp(-w)/Z. */
    int32_t (*head_factor)(void *context, size_t d, double *centre, double *precision, cmf_error *error);
    /* The mixture in the place of a Gaussian's marginal along few directions F: of `head_factor` (law 0) or `gaussian` (1).
     * *count is set to the count of its numbers, 0 where there is none; numbers [room] gets them if they fit: K, k, F [k, d],
     * and of each of K components its weight, mean [k] and the rows of its Cholesky factor up to the diagonal. */
    int32_t (*mixture)(void *context, uint32_t law, size_t room, double *numbers, size_t *count, cmf_error *error);
} cmf_host;

typedef struct cmf_task_factory {
    size_t count;             /* number of entries, at least 1 */
    const cmf_entry *entries; /* [count]; the array property "inputs" (of strings), if there is one, says how
                                 many files the user may name (minItems, maxItems) and is not passed on */
    /* [any] Runs the task `name` to its end. An unknown name is CMF_INVALID. */
    int32_t (*run)(const char *name, const char *parameters, const cmf_host *host, cmf_error *error);
} cmf_task_factory;

/* ---- The entry. ------------------------------------------------------------------------------------- */

typedef struct cmf_plugin {
    uint32_t abi_major;  /* CMF_ABI_MAJOR; first in every version */
    uint32_t abi_minor;  /* the least minor version that the plugin needs: CMF_ABI_MINOR will do */
    const char *name;    /* of the plugin */
    const char *version; /* of the plugin, as it pleases */
    /* [any] The factory (cmf_energy_factory, ...) of this id, or NULL for an id that is not known. */
    const void *(*get_factory)(const char *id);
} cmf_plugin;

/* The one symbol: define it as  CMF_EXPORT const cmf_plugin cmf_plugin_entry = { ... };  */
extern CMF_EXPORT const cmf_plugin cmf_plugin_entry;

#ifdef __cplusplus
}
#endif
#endif
