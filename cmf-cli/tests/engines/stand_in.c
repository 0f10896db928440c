/* A library with ONNX Runtime's one symbol, whose answers are those of a release that does not serve. */
#include <stddef.h>
#include <stdint.h>

#ifndef VERSION
#define VERSION "1.16.3"
#endif

struct base {
  const void *(*get_api)(uint32_t);
  const char *(*get_version_string)(void);
};

static const void *get_api(uint32_t version) {
  (void)version;
  return NULL;
}
static const char *get_version_string(void) { return VERSION; }
static const struct base BASE = {get_api, get_version_string};

#ifdef NO_SYMBOL
int something_else;
#else
__attribute__((visibility("default"))) const struct base *OrtGetApiBase(void) {
#ifdef NOWHERE
  (void)BASE;
  return NULL;
#else
  return &BASE;
#endif
}
#endif
