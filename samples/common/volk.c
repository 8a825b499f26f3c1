/* The Vulkan loader's functions, looked up at run time. */
#define VK_NO_PROTOTYPES
#define VOLK_IMPLEMENTATION
#include <volk.h>
