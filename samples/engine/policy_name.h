/* Policies as command lines name them: a variant for all layers, "d16w64", or
 * variants that the layers take in turns, "dense/d16" or "dense/d16/d16/d16". In a
 * layer, key/value heads share variants in equal runs: "dense+d16", half and half. */
#ifndef ENGINE_POLICY_NAME_H
#define ENGINE_POLICY_NAME_H

#include "engine.h"

/* The longest name, with its NUL. */
#define POLICY_NAME_SIZE 256

/* Makes the policy that `text` names, for the engine's model. `name`, of
 * POLICY_NAME_SIZE, gets the name in its shortest form. */
bool policy_from_name(const struct engine *engine, const char *text, char *name,
                      ratp_policy **out, struct problem *problem);
/* Makes the policy that a JSON file holds. */
bool policy_from_file(const struct engine *engine, const char *path, ratp_policy **out,
                      struct problem *problem);

#endif
