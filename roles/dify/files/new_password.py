# Writes a new password to the file that the argument names, for root alone.
import secrets
import string
import sys
from pathlib import Path

letters = string.ascii_letters + string.digits
drawn = [secrets.choice(letters) for _unused in range(22)]
drawn += [secrets.choice(string.ascii_letters), secrets.choice(string.digits)]
file = Path(sys.argv[1])
file.parent.mkdir(0o700, parents=True, exist_ok=True)
file.touch(0o600)
file.chmod(0o600)
file.write_text("".join(drawn))
