"""Sign-in by OpenID Connect: the provider proves the person, and the log gives role and teams.

The authorization code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636). Groups of the provider give
the roles `auditor` and `operator`, and nothing else.
"""

from __future__ import annotations

import hmac
import re
import secrets
import ssl
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from domain.ids import fault_of
from ledger.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from config.settings import Settings

FLOW_SECONDS = 600
"""A person has this time to sign in at the provider."""
_FLOW = re.compile(r"([\w-]{43})\.([\w-]{43})\.([\w-]{43})", re.ASCII)
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""Signatures by a key that only the provider has; never `none`, or a secret that both know."""
_SECONDS, _METADATA_SECONDS, _LEEWAY_SECONDS = 5.0, 3600.0, 60
_SHOWN = 100


class OpenIdError(LedgerError):
    """A sign-in that cannot be completed; the message names the reason and a remedy."""


class Identity(NamedTuple):
    """A person as the provider proved them: the employee's id, and a role that a group gives."""

    employee_id: str
    role: Literal["auditor", "operator"] | None = None


class OpenIdProvider:
    """An OpenID provider, and the settings of the ledger as its client."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer or ""
        self._client_id = settings.oidc_client_id or ""
        self._tls = ssl.create_default_context()  # one for all requests: making one takes tens of milliseconds
        self._metadata: tuple[float, Mapping[str, Any]] = float("-inf"), {}

    async def begin(self, redirect_uri: str) -> tuple[str, str]:
        """Return the provider's address for a sign-in, and the secrets of this flow for the browser's cookie.

        Raises:
            OpenIdError: the provider does not answer.

        """
        metadata = await self._discover()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        return str(url), f"{state}.{nonce}.{verifier}"

    async def finish(self, redirect_uri: str, answer: Mapping[str, str], flow: str) -> Identity:
        """Return the person that the provider's answer proves; ``flow`` are the secrets in the browser's cookie.

        Raises:
            OpenIdError: the answer does not prove a person that may sign in, or the provider does not answer.

        """
        secrets_of_flow = _FLOW.fullmatch(flow)
        if secrets_of_flow is None or not hmac.compare_digest(
            answer.get("state", "").encode(), secrets_of_flow[1].encode()
        ):
            raise OpenIdError("the sign-in took more than ten minutes, or began in another browser: begin again")
        if "error" in answer or "code" not in answer:
            raise OpenIdError(f"the provider refused the sign-in: {answer.get('error', 'no code')[:_SHOWN]}")
        if answer.get("iss", self._issuer) != self._issuer:  # RFC 9207
            raise OpenIdError("the answer is of another provider: begin again")
        metadata = await self._discover()
        try:
            async with self._client(redirect_uri) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=answer["code"],
                    code_verifier=secrets_of_flow[3],
                )
            keys = await self._get(metadata["jwks_uri"])
            claims = self.verified_claims(token, keys, secrets_of_flow[2])
        except (httpx.HTTPError, AuthlibBaseError, JoseError, KeyError, TypeError, ValueError) as error:
            raise OpenIdError(f"the provider's answer proves no person ({error!r:.{_SHOWN}}): begin again") from error
        return self._identity_of(claims)

    async def sign_out_url(self, return_to: str) -> str | None:
        """Return the provider's address for a sign-out, if it has one (OpenID Connect RP-Initiated Logout 1.0)."""
        endpoint = (await self._discover()).get("end_session_endpoint")
        if endpoint is None:
            return None
        fields = {"client_id": self._client_id, "post_logout_redirect_uri": return_to}
        return str(httpx.URL(endpoint).copy_merge_params(fields))

    def _client(self, redirect_uri: str) -> AsyncOAuth2Client:
        secret = self._settings.oidc_client_secret
        return AsyncOAuth2Client(
            self._client_id,
            secret,
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            scope="openid email",
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_SECONDS,
            verify=self._tls,
        )

    async def _discover(self) -> Mapping[str, Any]:
        at, known = self._metadata
        if time.monotonic() - at > _METADATA_SECONDS:
            known = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
            if known.get("issuer") != self._issuer:
                raise OpenIdError(f"oidc_issuer: the provider calls itself {known.get('issuer')!r:.{_SHOWN}}")
            self._metadata = time.monotonic(), known
        return known

    async def _get(self, url: str) -> Mapping[str, Any]:
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, verify=self._tls) as client:
                answer = await client.get(url)
                answer.raise_for_status()
                found: Mapping[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise OpenIdError(f"the OpenID provider does not answer ({error!r:.{_SHOWN}}): try again later") from error
        return found

    def verified_claims(self, token: Mapping[str, Any], keys: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """Return the claims of an ID token: signed by the provider, of this issuer, client and flow, and not expired.

        Raises:
            JoseError: a proof is missing or wrong.

        """
        decoded = jwt.decode(token["id_token"], KeySet.import_key_set(dict(keys)), algorithms=_ALGORITHMS)  # type: ignore[arg-type]
        must = {
            "iss": {"essential": True, "value": self._issuer},
            "aud": {"essential": True, "value": self._client_id},
            "nonce": {"essential": True, "value": nonce},
        }
        given = {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")}
        claims = CodeIDToken(decoded.claims, decoded.header, must, given)
        claims.validate(leeway=_LEEWAY_SECONDS)
        return dict(claims)

    def _identity_of(self, claims: Mapping[str, Any]) -> Identity:
        """Return the employee and the role that checked claims name.

        Raises:
            OpenIdError: they name no employee.

        """
        settings, claim = self._settings, self._settings.oidc_employee_claim
        value = claims.get(claim)
        if claim == "email" and claims.get("email_verified") is not True:
            raise OpenIdError("the provider has not verified your e-mail address: ask its administrator")
        employee_id = value
        if settings.oidc_employees is not None:
            with Path(settings.oidc_employees).open("rb") as file:
                employee_id = tomllib.load(file).get(str(value))
        if not isinstance(employee_id, str) or fault_of(employee_id) is not None:
            raise OpenIdError(f"the claim {claim!r} of your account names no employee: ask the operator of the ledger")
        groups = claims.get(settings.oidc_groups_claim) or []
        groups = {groups} if isinstance(groups, str) else {one for one in groups if isinstance(one, str)}
        if settings.oidc_operators in groups:
            return Identity(employee_id, "operator")
        return Identity(employee_id, "auditor" if settings.oidc_auditors in groups else None)
