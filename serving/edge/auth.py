"""Bearer tokens -> tenant (RFC 6750 section 2.1)."""

from __future__ import annotations

import hmac

from serving.errors import Fault, Kind
from serving.settings import AuthSettings

OPEN_TENANT = "default"


def tenant(authorization: str | None, settings: AuthSettings) -> str:
    """Whose token this is; everybody is one tenant where the settings name no tokens.

    Every token is compared, in constant time, so that the time taken says nothing. Raises Fault(UNAUTHENTICATED).
    """
    if not settings.tokens:
        return OPEN_TENANT
    scheme, _, given = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Fault(Kind.UNAUTHENTICATED, "send the header Authorization: Bearer <token>", param="authorization")
    mine = given.strip().encode()
    found = [name for name, token in settings.tokens.items() if hmac.compare_digest(token.get_secret_value().encode(), mine)]
    if not found:
        raise Fault(Kind.UNAUTHENTICATED, "this token is not known here", param="authorization")
    return found[0]
