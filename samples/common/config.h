/* config.json of a model folder: our own keys, and those of Hugging Face's configurations
 * beside them. What would change the numbers is followed or refused, never passed over. */
#ifndef SAMPLES_CONFIG_H
#define SAMPLES_CONFIG_H

#include "fields.h"
#include "model.h"

#define CONFIG_MAX_THETA 1e18

bool config_read(const char *path, struct model_config *config, struct problem *problem);

/* For config_read, which has read our own keys by then. */
#define CONFIG_FOREIGN_LISTS 3
extern const char *const *const config_foreign_keys[CONFIG_FOREIGN_LISTS];
void config_read_foreign(struct fields *f, struct model_config *config, double norm_eps);
void config_read_rope(struct fields *f, struct model_config *config);

#endif
