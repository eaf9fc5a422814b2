# shellcheck shell=sh
# What the scripts of this folder share. POSIX sh, to be read with `.` by a script that has set `here` to this folder.
#
# Everything is asked for through the environment and never through text that a CI system puts into a command: a value that came with a
# pull request stays a value.
#
# `here` comes from the script that reads this, and `ready` and `harness` are for it.
# shellcheck disable=SC2034,SC2154

# A line for the log.
say() {
    printf '%s\n' "$*"
}

# A user's mistake: one message, and exit code 2.
usage() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 2
}

# A part of the log with a heading, folded where the CI system can fold.
begin() {
    section=$1
    if [ -n "${GITHUB_ACTIONS:-}" ]; then
        printf '::group::%s\n' "$section"
    elif [ -n "${GITLAB_CI:-}" ]; then
        printf '\033[0Ksection_start:%s:%s\r\033[0K%s\n' "$(date +%s)" "$(section_id)" "$section"
    else
        printf '\n=== %s\n' "$section"
    fi
}

end() {
    if [ -n "${GITHUB_ACTIONS:-}" ]; then
        printf '::endgroup::\n'
    elif [ -n "${GITLAB_CI:-}" ]; then
        printf '\033[0Ksection_end:%s:%s\r\033[0K\n' "$(date +%s)" "$(section_id)"
    fi
}

section_id() {
    printf '%s' "$section" | tr -c 'A-Za-z0-9' '_'
}

# Runs a command so that a signal to this script ends the command in order, with its reports. A container's first process gets
# signals alone, and so does a step of a CI system; Ctrl-C in a terminal reaches the command without this script, and a second one would
# make the harness leave at once.
forwarding() {
    "$@" </dev/null &
    child=$!
    told=
    trap 'told=1; kill -TERM "$child" 2>/dev/null || :' TERM
    trap 'told=1; [ -t 0 ] || kill -TERM "$child" 2>/dev/null || :' INT
    status=0
    wait "$child" || status=$?
    # A wait that a signal interrupts says nothing about the command.
    while [ -n "$told" ]; do
        told=
        again=0
        wait "$child" || again=$?
        # 127: the first one had its status already.
        [ "$again" -eq 127 ] || status=$again
    done
    trap - INT TERM
    return "$status"
}

# Says something to the CI system's later steps, and leaves it in a file for everybody else.
output() {
    case $2 in
    *"
"*) usage "the value of $1 has several lines" ;;
    esac
    printf '%s=%s\n' "$1" "$2" >>"$out/outputs"
    if [ -n "${GITHUB_OUTPUT:-}" ]; then
        printf '%s=%s\n' "$1" "$2" >>"$GITHUB_OUTPUT"
    fi
}

# A field at the top of a report.json, which is always indented the same way; empty when there is none.
report_field() {
    sed -n 's/^  "'"$2"'": "\{0,1\}\([^",]*\)"\{0,1\},\{0,1\}$/\1/p' "$1" 2>/dev/null | head -n 1
}

# Sets `harness` to a program that runs, `out` to an empty directory of this run.
prepared() {
    out=${HARNESS_OUT:-harness-out/$1-$(date +%Y%m%d-%H%M%S)-$$}
    mkdir -p "$out" || usage "HARNESS_OUT: '$out' cannot be made"
    out=$(cd "$out" && pwd)
    # Results of an earlier run must not stand for this one.
    [ -z "$(ls -A "$out")" ] || usage "HARNESS_OUT: '$out' is not empty"

    begin 'get the harness'
    harness=$("$here/get-harness") || exit $?
    "$harness" --version || usage "'$harness' is no harness that runs here"
    end

    "$here/prepare-machine" || exit $?

    begin 'harness doctor'
    ready=0
    # Its exit code counts, and not that of a pipe.
    "$harness" doctor >"$out/doctor.txt" 2>&1 || ready=$?
    cat "$out/doctor.txt"
    end
}
