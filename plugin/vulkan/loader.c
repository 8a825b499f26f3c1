#define VOLK_IMPLEMENTATION
#include "internal.h"

#include "../lock.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool loaded;

/* Guards volk's vkGetDeviceProcAddr, which volkLoadDeviceTable reads. */
static struct lock table_lock = LOCK_INITIALIZER;

static void load_once(void)
{
    loaded = volkInitialize() == VK_SUCCESS && vkGetInstanceProcAddr;
}

PFN_vkGetInstanceProcAddr vk_loader(void)
{
    pthread_once(&once, load_once);
    return loaded ? vkGetInstanceProcAddr : NULL;
}

bool vk_calls_load(struct vk_calls *calls, PFN_vkGetInstanceProcAddr get, VkInstance instance,
                   const char **missing)
{
#define LOAD(name)                                                                                \
    calls->name = (PFN_vk##name)get(instance, "vk" #name);                                        \
    if (!calls->name) {                                                                           \
        *missing = "vk" #name;                                                                    \
        return false;                                                                             \
    }
    VK_INSTANCE_CALLS(LOAD)
#undef LOAD
    calls->CreateDebugUtilsMessengerEXT =
        (PFN_vkCreateDebugUtilsMessengerEXT)get(instance, "vkCreateDebugUtilsMessengerEXT");
    calls->DestroyDebugUtilsMessengerEXT =
        (PFN_vkDestroyDebugUtilsMessengerEXT)get(instance, "vkDestroyDebugUtilsMessengerEXT");
    calls->SetDebugUtilsObjectNameEXT =
        (PFN_vkSetDebugUtilsObjectNameEXT)get(instance, "vkSetDebugUtilsObjectNameEXT");
    calls->GetPhysicalDeviceCooperativeMatrixPropertiesKHR =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)get(
            instance, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    return true;
}

void vk_device_table_load(struct VolkDeviceTable *table, const struct vk_calls *calls,
                          VkDevice device)
{
    lock_take(&table_lock);
    vkGetDeviceProcAddr = calls->GetDeviceProcAddr;
    volkLoadDeviceTable(table, device);
    lock_give(&table_lock);
}
