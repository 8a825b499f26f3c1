/* config.json of a model folder. */
#ifndef SAMPLES_CONFIG_H
#define SAMPLES_CONFIG_H

#include "model.h"

bool config_read(const char *path, struct model_config *config, struct problem *problem);

#endif
