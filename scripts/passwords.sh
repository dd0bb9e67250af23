# Sourced by secrets.sh and rotate.sh: the files that hold the passwords of Redis and PostgreSQL, written in one place.
secrets=${SEAL_SECRETS:-secrets}

password() { head -c 24 /dev/urandom | base64 | tr -d '/+=\n'; }

# A file is replaced atomically and keeps its owner.
replace() { # FILE CONTENT
  local new="$secrets/.$1.new"
  (umask 077 && printf '%s\n' "$2" > "$new")
  [ ! -e "$secrets/$1" ] || chown --reference="$secrets/$1" "$new"
  mv "$new" "$secrets/$1"
}

new_redis_password() {
  local made tls='ssl_ca_certs=/run/tls/ca.crt&ssl_certfile=/run/tls/tls.crt&ssl_keyfile=/run/tls/tls.key'
  made=$(password)
  # The default user is disabled; ours has the queue's keys and the commands that the queue needs.
  replace redis.acl "user default off
user seal on >$made ~seal:* &* -@all +@read +@write +@stream +@connection +@transaction -@dangerous +time +info"
  replace controller_redis_url "rediss://seal:$made@redis:6379/0?$tls"
}

new_postgres_password() { # PASSWORD
  local tls='sslmode=verify-full&sslrootcert=/run/tls/ca.crt&sslcert=/run/tls/tls.crt&sslkey=/run/tls/tls.key'
  replace postgres_password "$1"
  replace controller_database_url "postgresql+psycopg://seal:$1@postgres:5432/seal?$tls"
}
