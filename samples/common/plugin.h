/* libratplus, as the samples open it. */
#ifndef SAMPLES_PLUGIN_H
#define SAMPLES_PLUGIN_H

#include "problem.h"

#include <ratplus.h>

/* Refuses a library that lacks functions which these headers have. Warnings and errors of the
 * library go to stderr. */
bool plugin_open(bool no_vulkan, const struct ratp_api **ratp, ratp_instance **out,
                 struct problem *problem);

/* True for RATP_OK; otherwise the problem is `what` and the object's message. */
bool plugin_check(const struct ratp_api *ratp, ratp_status status, const void *object,
                  const char *what, struct problem *problem);

#endif
