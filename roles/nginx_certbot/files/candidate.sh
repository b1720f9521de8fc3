# Runs in the image: what nginx says of the files that are to be. They come on standard input, each after a line with its name.
set -eu
cd /etc/nginx/conf.d
for file in /etc/nginx/user_conf.d/*.conf; do
    if [ -f "$file" ]; then cp "$file" .; fi
done
awk '$1 == "####" { file = $2; printf "" >file; next } { print >file }'

# A certificate that is yet to be had is not what is asked about.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=candidate -days 1 \
    -keyout /tmp/key.pem -out /tmp/certificate.pem 2>/dev/null
for file in *.conf; do
    sed -n 's/^[[:space:]]*ssl_\(certificate\|certificate_key\|trusted_certificate\)[[:space:]][[:space:]]*\([^;$]*\);.*/\1 \2/p' "$file" |
        while read -r directive path; do
            if [ ! -s "$path" ]; then
                case $directive in *_key) with=/tmp/key.pem ;; *) with=/tmp/certificate.pem ;; esac
                sed -i "s|$path;|$with;|" "$file"
            fi
        done
done
exec nginx -t -q
