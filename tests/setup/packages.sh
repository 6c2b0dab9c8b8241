# Debian's packages that the tests and `make bench-check` run, by the program each brings. Sourced, not run.

# program:package
programs=(
    redis-server:redis-server
    redis-cli:redis-tools
    chromium:chromium
    promtool:prometheus
    valgrind:valgrind
    openssl:openssl
)

# The packages to install, as words.
missing_packages() {
    local entry words=()
    for entry in "${programs[@]}"; do
        command -v "${entry%%:*}" >/dev/null || words+=("${entry##*:}")
    done
    # Debian splits venv off; without it no environment can be made.
    if command -v python3 >/dev/null && ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        words+=(python3-venv)
    fi
    echo "${words[*]}"
}

# The programs behind them, as a subject with its verb.
missing_programs() {
    local words
    words=$(missing_packages)
    case "$words" in
    *" "*) echo "${words// /, } are" ;;
    *) echo "$words is" ;;
    esac
}
