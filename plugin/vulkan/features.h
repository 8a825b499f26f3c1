/* What of a Vulkan device the library needs or can use: one table, by which devices are
 * listed, opened, and taken over from hosts. */
#ifndef RATPLUS_VULKAN_FEATURE_H
#define RATPLUS_VULKAN_FEATURE_H

#include <ratplus_vulkan.h>
#include <stdbool.h>

/* Rows of the table, in its order; a set of features has the bit 1 << row. */
enum vk_feature {
    FEATURE_BUFFER_ADDRESS,
    FEATURE_TIMELINE,
    FEATURE_STORAGE_16BIT,
    FEATURE_FLOAT16,
    FEATURE_INT64,
    FEATURE_SUBGROUP_SIZE,
    FEATURE_FULL_SUBGROUPS,
    FEATURE_INTEGER_DOT,
    FEATURE_HOST_IMPORT,
    FEATURE_MEMORY_BUDGET,
    FEATURE_MEMORY_MODEL, /* this one and those after it serve matrices alone */
    FEATURE_MEMORY_MODEL_DEVICE,
    FEATURE_MATRIX,
    FEATURES
};

static inline uint32_t feature_bit(enum vk_feature feature)
{
    return 1u << feature;
}

/* The table as hosts see it; *count, unless NULL, gets the number of rows that this build
 * has a use for. */
const struct ratp_vulkan_feature *vk_features(uint32_t *count);
/* The extensions among them, ended by NULL. */
extern const char *const vk_recommended_extensions[];

/* A chain of feature structs. It points into itself, so it must not move. */
struct vk_feature_chain {
    VkPhysicalDeviceFeatures2 first;
    /* All structs of single features look so. */
    struct vk_feature_struct {
        VkStructureType type;
        void *next;
        VkBool32 member[6];
    } link[FEATURES];
    uint32_t count;
};

/* A chain in which the features of the set are on. */
void vk_chain_fill(struct vk_feature_chain *chain, uint32_t set);
/* The features that are on in a chain of anybody's, in their own structs or in those that
 * collect the features of a Vulkan version. */
uint32_t vk_chain_read(const VkPhysicalDeviceFeatures2 *first);

/* Of a set, what a chain that was read confirms: extensions without a struct of features are
 * in no chain. */
uint32_t vk_features_confirmed(uint32_t set, uint32_t read);

/* Whether a list of names has this one. */
typedef bool vk_has_extension(const void *list, const char *name);
/* Those of the set that need no extension, or one that the list has. With `host`, the list is
 * what a host enabled: features that Vulkan 1.3 has taken up need no extension there. */
uint32_t vk_features_with_extensions(uint32_t set, vk_has_extension *has, const void *list,
                                     bool host);
/* Those that the library makes use of where it is offered the set: none without what it
 * goes together with. */
uint32_t vk_features_in_use(uint32_t offered);
/* The extensions that a set needs to be enabled; returns how many, at most FEATURES. */
uint32_t vk_features_extensions(uint32_t set, const char **extensions);
/* The name of a required feature that the set lacks; NULL: none. */
const char *vk_features_missing(uint32_t set);

#endif
