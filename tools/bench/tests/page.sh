#!/usr/bin/env bash
# Opens pages of ouro-bench in headless Chromium: no error may be on the console, and every
# chart must be drawn, of which a page without a measurement has none. page.sh PAGE...
set -euo pipefail

profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
# As root there is no sandbox to be had.
flags=(--headless --disable-gpu --no-first-run --user-data-dir="$profile" --enable-logging=stderr)
[ "$(id -u)" = 0 ] && flags+=(--no-sandbox)

for page in "$@"; do
    url="file://$(realpath "$page")"
    for width in 390 1400; do
        timeout 300 chromium "${flags[@]}" --window-size="$width,900" --virtual-time-budget=5000 \
            --dump-dom "$url" >"$profile/dom" 2>"$profile/log" || {
            cat "$profile/log"
            echo "$page, $width wide: the browser failed, or took more than 5 minutes" >&2
            exit 1
        }
        if grep 'CONSOLE' "$profile/log"; then
            echo "$page, $width wide: the console is not empty" >&2
            exit 1
        fi
        drawn=$(grep -o '<svg ' "$profile/dom" | wc -l || true)
        wanted=$(grep -o 'data-charts="[0-9]*"' "$profile/dom" | grep -o '[0-9]*' || echo none)
        if [ "$drawn" != "$wanted" ] || { [ "$drawn" != 0 ] && [ "$drawn" -lt 4 ]; }; then
            echo "$page, $width wide: $drawn charts are drawn, and $wanted should be" >&2
            exit 1
        fi
        # Nothing is undefined, infinite or no number.
        if grep -oE '<(path|rect|line|text|td|dd|b|h3)\b[^>]*(NaN|undefined|Infinity)' "$profile/dom" ||
            grep -oE '<(text|td|dd|b|h3)\b[^>]*>[^<]*(NaN|undefined|Infinity)' "$profile/dom"; then
            echo "$page, $width wide: what is above is shown" >&2
            exit 1
        fi
        echo "$page, $width wide: $drawn charts"
    done
done
