#!/bin/sh
# The library exports ratp_get_api and nothing else. Usage: exports.sh LIBRARY
names=$(nm -D --defined-only "$1" | awk '$2 != "A" { print $3 }')
[ "$names" = "ratp_get_api@@RATPLUS_1" ] && exit 0
echo "exported names:"
echo "$names"
exit 1
