# Sourced by the scripts for the stack in containers. Exports the settings of .env that the environment does not have
# (make passes empty ones on), so that they are the same for these scripts and for docker compose, which reads .env itself.
if [ -f .env ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    [[ $line =~ ^[[:space:]]*([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] || continue
    name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]}
    [ -z "${!name:-}" ] || continue
    value=${value%"${value##*[![:space:]]}"}
    if [[ $value =~ ^\"(.*)\"$ || $value =~ ^\'(.*)\'$ ]]; then value=${BASH_REMATCH[1]}; fi
    export "$name=$value"
  done < .env
  unset line name value
fi

# Gives a setting that neither the environment nor .env has a value, and keeps it in .env for later commands.
choose() { # NAME VALUE
  [ -z "${!1:-}" ] && ! grep -qs "^$1=" .env || return 0
  export "$1=$2"
  [ ! -s .env ] || [ -z "$(tail -c 1 .env)" ] || echo >> .env
  printf '%s=%s\n' "$1" "$2" >> .env
}
