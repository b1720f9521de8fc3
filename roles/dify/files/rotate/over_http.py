# Asks a service over HTTP, from a container that has to reach it. Arguments: variable with its address, or the address;
# path; status codes that refuse; header with {} for the value; body, if any.
# Standard input: a line to pass over, the value to be refused, the value to be accepted.
import os
import sys
import urllib.error
import urllib.request

_key, refused, accepted = sys.stdin.read().split("\n")[:3]
base, path, refusals, header, *body = sys.argv[2:]
url = os.environ.get(base, base).rstrip("/") + path
name, template = header.split(": ")
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def refuses(value: str) -> bool:
    headers = {name: template.format(value), "Content-Type": "application/json"}
    request = urllib.request.Request(url, body[0].encode() if body else None, headers)
    try:
        status = opener.open(request, timeout=20).status
    except urllib.error.HTTPError as error:
        status = error.code
    except OSError as error:
        sys.exit(f"{url} does not answer: {error}")
    if status >= 500:
        sys.exit(f"{url} answers {status}")
    return str(status) in refusals.split(",")


if refuses(accepted):
    sys.exit(f"{url} refuses a key that it should accept")
if not refuses(refused):
    sys.exit(f"{url} accepts a key that it should refuse")
