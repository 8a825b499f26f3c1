/* A mutex that a child process finds free. fork() copies one that another thread held, and that
 * thread is not there to give it back: who waited for it would wait for ever. */
#ifndef RATPLUS_LOCK_H
#define RATPLUS_LOCK_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

struct lock {
    pthread_mutex_t mutex;
    atomic_int process; /* that took it last; 0: none did */
};

/* For those that are static. */
#define LOCK_INITIALIZER {PTHREAD_MUTEX_INITIALIZER, 0}

static inline void lock_init(struct lock *lock)
{
    pthread_mutex_init(&lock->mutex, NULL);
    atomic_init(&lock->process, 0);
}

static inline void lock_fini(struct lock *lock)
{
    pthread_mutex_destroy(&lock->mutex);
}

/* In a child process, whose threads may come at the same time: one of them makes the mutex
 * anew, and the number is -here meanwhile. */
static inline void lock_renew(struct lock *lock, int last, int here)
{
    while (last != here) {
        if (last == -here) {
            sched_yield();
            last = atomic_load(&lock->process);
        } else if (atomic_compare_exchange_strong(&lock->process, &last, -here)) {
            pthread_mutex_init(&lock->mutex, NULL);
            atomic_store(&lock->process, here);
            return;
        }
    }
}

static inline void lock_take(struct lock *lock)
{
    const int here = (int)getpid();
    int last = 0;
    if (!atomic_compare_exchange_strong(&lock->process, &last, here) && last != here)
        lock_renew(lock, last, here);
    pthread_mutex_lock(&lock->mutex);
}

static inline void lock_give(struct lock *lock)
{
    pthread_mutex_unlock(&lock->mutex);
}

#endif
