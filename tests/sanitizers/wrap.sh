#!/bin/sh
# Runs a test that was built with the sanitizers; meson test --wrapper names it.
# RATPLUS_SANITIZER is address (the default) or thread.
#
# An object that the library forgets in a driver looks like the driver's leak:
# the validation layer is what finds those.
here=$(cd "$(dirname "$0")" && pwd)
case ${RATPLUS_SANITIZER:-address} in
    address) runtime=libasan.so ;;
    thread) runtime=libtsan.so ;;
esac
# A size that no machine has is refused with a status, which malloc must allow.
export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:allocator_may_return_null=1
export LSAN_OPTIONS="suppressions=$here/leaks.txt:print_suppressions=0"
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS="suppressions=$here/races.txt"
export LD_PRELOAD="$(gcc -print-file-name=$runtime) $PWD/tests/sanitizers/libkeep_loaded.so"
exec "$@"
