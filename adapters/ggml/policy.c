#include "policy.h"

#include "adapter.h"
#include "memory.h"
#include "policy_file.h"

#include <stdlib.h>
#include <string.h>

struct adapter_policy {
    pthread_mutex_t lock; /* of `variants`, which one thread may ask at a time */
    ratp_policy *variants;
    struct memory_options memory;
    uint64_t number; /* of readings, from 1 on */
    uint32_t holders;            /* under file.lock, as is ... */
    struct adapter_policy *next; /* ... the one read before it that somebody still holds */
};

static struct {
    pthread_mutex_t lock;
    const struct ratp_api *ratp;
    ratp_instance *instance;
    const char *path; /* NULL: no policy */
    bool started;
    struct memory_options memory; /* of the start: models that are loaded rely on it */
    struct file_state state;
    struct adapter_policy *now; /* NULL until a good one was read */
    struct adapter_policy *held; /* all that somebody holds, the newest first */
    uint64_t readings;
} file = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void release(struct adapter_policy *policy)
{
    if (!policy || --policy->holders > 0)
        return;
    struct adapter_policy **link = &file.held;
    while (*link != policy)
        link = &(*link)->next;
    *link = policy->next;
    file.ratp->policy_destroy(&policy->variants);
    pthread_mutex_destroy(&policy->lock);
    free(policy);
}

/* What is in force, as the library writes it; and what of it cannot be had here. */
static void say(const struct adapter_policy *policy)
{
    size_t size = 0;
    file.ratp->policy_to_json(policy->variants, NULL, 0, &size);
    char *text = malloc(size + 1);
    if (!text || file.ratp->policy_to_json(policy->variants, text, size + 1, &size)) {
        complain("policy %s is in force", file.path);
    } else {
        complain("policy %s: %.300s%s", file.path, text, size > 300 ? " ..." : "");
        if (strstr(text, "snapkv"))
            complain("policy %s: snapkv removes keys from a cache, which is possible in the "
                     "library's own and not in llama.cpp's: heads with snapkv attend all keys "
                     "here", file.path);
    }
    free(text);
}

static struct adapter_policy *parse(char *text, size_t size, char *why, size_t why_size)
{
    bool twice = false;
    cJSON *memory = text_take_member(text, "memory", &twice);
    struct adapter_policy *policy = calloc(1, sizeof *policy);
    bool good = policy && !twice && memory_read(memory, &policy->memory, why, why_size);
    cJSON_Delete(memory);
    if (!policy)
        snprintf(why, why_size, "no host memory for it");
    else if (twice)
        snprintf(why, why_size, "\"memory\" is given twice");
    else if (good && file.started && !memory_is_same(&policy->memory, &file.memory)) {
        snprintf(why, why_size, "its \"memory\" is not what it was when the host started, and "
                 "cannot change until it starts again");
        good = false;
    }
    if (good && file.ratp->policy_from_json(file.instance, text, size, &policy->variants)) {
        file.ratp->last_error(file.instance, why, why_size);
        good = false;
    }
    if (!good) {
        free(policy);
        return NULL;
    }
    pthread_mutex_init(&policy->lock, NULL);
    policy->holders = 1;
    return policy;
}

/* Under file.lock. A file that changes while it is read is read again next time. */
static void read_again(void)
{
    char why[256] = "";
    size_t size = 0;
    const struct file_state state = file_look(file.path);
    if (file_is_same(&state, &file.state))
        return;
    file.state = state;
    char *text = file_read(file.path, &size, why, sizeof why);
    struct adapter_policy *policy = text ? parse(text, size, why, sizeof why) : NULL;
    free(text);
    if (!policy) {
        complain("policy %s: %s; %s", file.path, why,
                 file.now ? "the one before stays in force" : "attention is dense");
        return;
    }
    release(file.now);
    policy->number = ++file.readings;
    policy->next = file.held;
    file.held = policy;
    file.now = policy;
    say(policy);
}

void policy_start(const struct ratp_api *ratp, ratp_instance *instance)
{
    const char *path = getenv("RATPLUS_POLICY");
    if (!path || !*path)
        return;
    pthread_mutex_lock(&file.lock);
    file.ratp = ratp;
    file.instance = instance;
    file.path = path;
    file.state.error = -1; /* no state of a file is like it */
    read_again();
    if (file.now)
        file.memory = file.now->memory;
    file.started = true;
    pthread_mutex_unlock(&file.lock);
}

double policy_packed_theta(void)
{
    return file.memory.packed ? file.memory.theta : 0;
}

/* Under file.lock. */
static struct adapter_policy *hold(struct adapter_policy *policy)
{
    if (policy)
        policy->holders++;
    return policy;
}

struct adapter_policy *policy_take(void)
{
    if (!file.path)
        return NULL;
    pthread_mutex_lock(&file.lock);
    read_again();
    struct adapter_policy *policy = hold(file.now);
    pthread_mutex_unlock(&file.lock);
    return policy;
}

struct adapter_policy *policy_take_same(uint64_t number)
{
    pthread_mutex_lock(&file.lock);
    struct adapter_policy *policy = file.held;
    while (policy && policy->number != number)
        policy = policy->next;
    hold(policy);
    pthread_mutex_unlock(&file.lock);
    return policy || number == 0 ? policy : policy_take();
}

struct adapter_policy *policy_now(void)
{
    pthread_mutex_lock(&file.lock);
    struct adapter_policy *policy = hold(file.now);
    pthread_mutex_unlock(&file.lock);
    return policy;
}

const char *policy_path(void)
{
    return file.path;
}

void policy_give(struct adapter_policy *policy)
{
    pthread_mutex_lock(&file.lock);
    release(policy);
    pthread_mutex_unlock(&file.lock);
}

uint64_t policy_number(const struct adapter_policy *policy)
{
    return policy ? policy->number : 0;
}

bool variant_is_same(const struct ratp_variant *a, const struct ratp_variant *b)
{
    const size_t from = offsetof(struct ratp_variant, kind);
    return memcmp((const char *)a + from, (const char *)b + from,
                  offsetof(struct ratp_variant, prompt) - from) == 0;
}

uint32_t policy_runs(struct adapter_policy *policy, int layer, uint32_t kv_heads,
                     ratp_part_kind part, struct head_run *runs)
{
    uint32_t count = 0;
    runs[0] = (struct head_run){0, kv_heads, {.struct_size = sizeof runs->variant}};
    if (!policy || layer < 0)
        return 1;
    pthread_mutex_lock(&policy->lock);
    for (uint32_t head = 0; head < kv_heads; head++) {
        struct ratp_variant v = {.struct_size = sizeof v};
        file.ratp->policy_variant(policy->variants, (uint32_t)layer, head, part, &v);
        if (count && variant_is_same(&runs[count - 1].variant, &v))
            runs[count - 1].count++;
        else
            runs[count++] = (struct head_run){head, 1, v};
    }
    pthread_mutex_unlock(&policy->lock);
    return count;
}
