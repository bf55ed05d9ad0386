"""Cancels a statement as libpq does from 17 on: on a connection that is encrypted as the session is.

with_libpq.py LIBPQ CONNINFO: prints the backend's process, waits for a line, cancels, prints what became of it all.
"""

import ctypes
import sys

libpq = ctypes.CDLL(sys.argv[1])


def function(name, result, *arguments):
    found = getattr(libpq, name)
    found.restype, found.argtypes = result, arguments
    return found


text, pointer, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
connect = function("PQconnectdb", pointer, text)
status = function("PQstatus", number, pointer)
error = function("PQerrorMessage", text, pointer)
run = function("PQexec", pointer, pointer, text)
value = function("PQgetvalue", text, pointer, number, number)
send = function("PQsendQuery", number, pointer, text)
result = function("PQgetResult", pointer, pointer)
field = function("PQresultErrorField", text, pointer, number)
cancellation = function("PQcancelCreate", pointer, pointer)
cancel = function("PQcancelBlocking", number, pointer)
cancel_error = function("PQcancelErrorMessage", text, pointer)
version = function("PQfullProtocolVersion", number, pointer) if hasattr(libpq, "PQfullProtocolVersion") else None

session = connect(sys.argv[2].encode())
if status(session) != 0:
    sys.exit(error(session).decode())
pid = value(run(session, b"select pg_backend_pid()"), 0, 0).decode()
send(session, b"select pg_sleep(600)")
print(pid, flush=True)
sys.stdin.readline()
wish = cancellation(session)
if cancel(wish) != 1:
    sys.exit(cancel_error(wish).decode())
told = field(result(session), ord("C")).decode()
while result(session):
    pass
spoken = version(session) if version else 30000
print(told, spoken, value(run(session, b"select 'goes on'"), 0, 0).decode())
