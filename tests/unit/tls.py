"""A server certificate for 127.0.0.1 and tls.test that signs itself, valid until 2126. Its key protects nothing."""

import ssl
import tempfile

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBpjCCAUygAwIBAgIUepmZl7L8tgVWWJQgt8YX8I1mfkswCgYIKoZIzj0EAwIw
GjEYMBYGA1UEAwwPYSB0ZXN0J3Mgb3duIENBMCAXDTI2MTEyMjA5NTc1N1oYDzIx
MjYxMDI5MDk1NzU3WjAaMRgwFgYDVQQDDA9hIHRlc3QncyBvd24gQ0EwWTATBgcq
hkjOPQIBBggqhkjOPQMBBwNCAATL9wVxU7CtVyxpJ4yICNuCNK41MYkZr4ccinuX
A/NnENVDV4/bfm6uGGdTBffXOtPCmIgJjieDIugaKv6gUjpRo24wbDAdBgNVHQ4E
FgQUv7fAGgZJzldNSDghesYAYamia6MwHwYDVR0jBBgwFoAUv7fAGgZJzldNSDgh
esYAYamia6MwDwYDVR0TAQH/BAUwAwEB/zAZBgNVHREEEjAQhwR/AAABggh0bHMu
dGVzdDAKBggqhkjOPQQDAgNIADBFAiB7JItaggjN0wUUj/+OxICRnJ3+Vd5VFFHV
woMeqabkggIhANEqPSrev4c8fVmHNvm0SUbYa3bmxfiOoLK7zHhcMnCD
-----END CERTIFICATE-----
"""

_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgd2mntzdf4l4U9iB3
bBu4YYGIkj2IOAF9kuT5Dyiv5r2hRANCAATL9wVxU7CtVyxpJ4yICNuCNK41MYkZ
r4ccinuXA/NnENVDV4/bfm6uGGdTBffXOtPCmIgJjieDIugaKv6gUjpR
-----END PRIVATE KEY-----
"""


def server_context() -> ssl.SSLContext:
    """What a server needs that shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(CERTIFICATE + _KEY)
        file.flush()
        context.load_cert_chain(file.name)
    return context
