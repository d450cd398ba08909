"""The HTTP side of the stand-in: who asks, discovery, OpenAPI, objects, watches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

from openairun_devkit.cluster import api, errors, openapi, protobuf, resources, selectors, tables
from openairun_devkit.cluster.api import Api, Options
from openairun_devkit.cluster.errors import ApiError
from openairun_devkit.cluster.resources import SERVICE_ACCOUNTS, Body, Resource
from openairun_devkit.cluster.store import Store
from openairun_devkit.kubectl import write_kubeconfig

HOST = "127.0.0.1"
VERSION = "v1.36.0+standin"
_ADMIN = "admin"
_LARGEST = 3 * 1024 * 1024  # bytes of a request's body (genericapiserver's MaxRequestBodyBytes)
_WATCH_TIMEOUT = 1800.0  # seconds; the API server takes 30 to 60 minutes where the client names no time-out
_EMPTIED_AFTER = 2.0  # seconds from a namespace's deletion; the namespace controller takes 5
_BOOKMARKS = 30.0  # seconds between two bookmarks, and one before a watch ends


class Server:
    """The API on a loopback port. `kept`: how many changes a watch can go back."""

    def __init__(self, *, port: int = 0, kept: int = 10_000) -> None:
        self.api = Api(Store(kept), lambda do: asyncio.get_running_loop().call_later(_EMPTIED_AFTER, do))
        self.port = port
        self.admin_token = secrets.token_hex(16)
        self._users = {self.admin_token: _ADMIN}
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen. With port 0, `port` is the chosen one afterwards."""
        # With cancellation, a watch ends when its client goes.
        server = web.Server(self._serve, access_log=None, handler_cancellation=True)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, self.port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self.port = runner.addresses[0][1]
        self._runner = runner

    async def stop(self) -> None:
        """Drop every connection, watches too, and stop listening."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    # Requests

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        # Not request.read(), which refuses more than 1 MiB.
        sent = await request.content.read() if request.body_exists else b""
        try:
            if "Origin" in request.headers:
                # No page in a browser has any business here, and who asks needs no token.
                raise ApiError(403, "Forbidden", "requests of web pages are refused")
            if len(sent) > _LARGEST:
                text = f"Request entity too large: limit is {_LARGEST}"
                raise ApiError(413, "RequestEntityTooLarge", text)
            return await self._answer(request, sent, self._user(request))
        except ApiError as error:
            return _respond(error.status(), error.code)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if request.method == "GET":
                raise
            refusal = errors.bad_request(f"the stand-in cannot make sense of this: {error!r}")
            return _respond(refusal.status(), refusal.code)

    def _user(self, request: web.BaseRequest) -> str:
        """Who asks. Without a token: the administrator, for kubectl sends none over plain HTTP."""
        header = request.headers.get("Authorization")
        if header is None:
            return _ADMIN
        user = self._users.get(header.removeprefix("Bearer "))
        if user is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        return user

    async def _answer(self, request: web.BaseRequest, sent: bytes, user: str) -> web.StreamResponse:
        path = request.path.rstrip("/")
        match path.split("/")[1:]:
            case ["readyz" | "livez" | "healthz"]:
                return web.Response(text="ok")
            case ["version"]:
                major, minor = VERSION[1:].split(".")[:2]
                return _respond({"major": major, "minor": minor, "gitVersion": VERSION, "platform": "standin"})
            case ["openapi", "v3"]:
                return _respond(openapi.index(self.api.resources))
            case ["openapi", "v3", *group]:
                return _respond(openapi.document(self._group("/" + "/".join(group))))
            case ["api"] | ["apis"] | ["apis", _]:
                return self._discovery(request, path)
            case ["api", "v1"] | ["apis", _, _]:
                found = self._group(path)
                listed = resources.discovery(found)
                group_version = {"groupVersion": found[0].api_version, "resources": listed}
                return _respond({"kind": "APIResourceList", "apiVersion": "v1", **group_version})
            case ["apis", "authorization.k8s.io" | "authentication.k8s.io", _, review] if request.method == "POST":
                return self._review(review, _parse(request, sent), user)
            case ["api", "v1", *rest]:
                return await self._object(request, sent, "", "v1", rest)
            case ["apis", group_name, version, *rest]:
                return await self._object(request, sent, group_name, version, rest)
        raise _no_such_path()

    def _group(self, path: str) -> list[Resource]:
        for found in self.api.resources.groups().values():
            if found[0].root == path:
                return found
        raise _no_such_path()

    def _discovery(self, request: web.BaseRequest, path: str) -> web.Response:
        accepted = request.headers.get("Accept", "")
        groups = self.api.resources.groups()
        if path in ("/api", "/apis") and "as=APIGroupDiscoveryList" in accepted:
            version = "v2" if ";v=v2;" in accepted.replace(" ", "") else "v2beta1"
            wanted = {key: found for key, found in groups.items() if bool(key[0]) is (path == "/apis")}
            answer = {
                "kind": "APIGroupDiscoveryList",
                "apiVersion": f"apidiscovery.k8s.io/{version}",
                "metadata": {},
                "items": resources.aggregated_discovery(wanted),
            }
            media = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
            return _respond(answer, content_type=media)
        if path == "/api":
            return _respond({"kind": "APIVersions", "versions": ["v1"]})
        listed = []
        for group, version in groups:
            if group:
                one = {"groupVersion": f"{group}/{version}", "version": version}
                listed.append({"name": group, "versions": [one], "preferredVersion": one})
        if path == "/apis":
            return _respond({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        for entry in listed:
            if path == f"/apis/{entry['name']}":
                return _respond({"kind": "APIGroup", "apiVersion": "v1", **entry})
        raise _no_such_path()

    def _review(self, review: str, sent: Body, user: str) -> web.Response:
        """Reviews of who asks and what they may do: anything."""
        if review == "selfsubjectaccessreviews":
            return _respond(sent | {"status": {"allowed": True, "reason": "the stand-in lets everybody"}}, 201)
        if review == "selfsubjectreviews":
            return _respond(sent | {"status": {"userInfo": {"username": user}}}, 201)
        raise _no_such_path()

    async def _object(
        self, request: web.BaseRequest, sent: bytes, group: str, version: str, rest: list[str]
    ) -> web.StreamResponse:
        """`[namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]]`."""
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        plural, name, subresource, *more = [*rest, "", ""][: max(3, len(rest))]
        resource = self.api.resources.find(group, version, plural)
        if resource is None or more:
            raise _no_such_path()
        if subresource == "token" and resource == SERVICE_ACCOUNTS and request.method == "POST":
            return self._issue_token(namespace, name, _parse(request, sent))
        if subresource not in ("", "status") or (subresource and not resource.has_status):
            raise _no_such_path()
        query = request.query
        options = Options(dry_run=query.get("dryRun") == "All", field_validation=query.get("fieldValidation") or "Warn")
        where = (resource, namespace, name)
        match request.method, bool(name):
            case "GET", False:
                return await self._list_or_watch(request, resource, namespace)
            case "GET", True:
                return self._show(request, resource, self.api.get(*where))
            case "POST", False:
                body = self.api.create(resource, namespace, _parse(request, sent), options)
                return _respond(body, 201, options)
            case "PUT", True:
                body = self.api.update(*where, _parse(request, sent), subresource=subresource, options=options)
                return _respond(body, options=options)
            case "PATCH", True:
                form = request.content_type
                allowed = [api.JSON_PATCH, api.MERGE, api.APPLY]
                if resource.schema is None:
                    allowed.append(api.STRATEGIC)
                if form not in allowed:
                    accepted = ", ".join(allowed)
                    text = "the body of the request was in an unknown format - accepted media types include: "
                    raise ApiError(415, "UnsupportedMediaType", text + accepted)
                patch = _decode_patch(form, sent)
                there = self.api.store.get(*where) is not None
                body = self.api.patch(*where, form, patch, subresource=subresource, options=options)
                return _respond(body, 200 if there else 201, options)
            case "DELETE", True:
                wanted = (_parse(request, sent) if sent else {}).get("preconditions") or {}
                body, gone = self.api.delete(*where, options, wanted.get("uid"), wanted.get("resourceVersion"))
                if not gone:
                    return _respond(body)
                told = errors.details(resource.group, resource.plural, name) | {"uid": body["metadata"]["uid"]}
                success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": told}
                return _respond(success)
            case "DELETE", False:
                for body in self._selected(request, resource, namespace):
                    self.api.delete(resource, body["metadata"].get("namespace", ""), body["metadata"]["name"], options)
                return self._show_list(request, resource, [])
        raise ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _issue_token(self, namespace: str, name: str, sent: Body) -> web.Response:
        """TokenRequest: a token that says who asks, for as long as the stand-in lives."""
        self.api.get(SERVICE_ACCOUNTS, namespace, name)
        token = secrets.token_hex(16)
        self._users[token] = f"system:serviceaccount:{namespace}:{name}"
        lifetime = timedelta(seconds=(sent.get("spec") or {}).get("expirationSeconds") or 3600)
        expires = (datetime.now(UTC) + lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        return _respond(sent | {"status": {"token": token, "expirationTimestamp": expires}}, 201)

    # Reading

    def _selected(self, request: web.BaseRequest, resource: Resource, namespace: str) -> list[Body]:
        matches = _selector(request, resource)
        return [body for body in self.api.store.all(resource, namespace) if matches(body)]

    async def _list_or_watch(self, request: web.BaseRequest, resource: Resource, namespace: str) -> web.StreamResponse:
        if request.query.get("watch", "") not in ("1", "true"):
            return self._show_list(request, resource, self._selected(request, resource, namespace))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        events = self._watch(request, resource, namespace, _selector(request, resource))
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for event in events:
                await response.write(json.dumps(event).encode() + b"\n")
        return response

    async def _watch(
        self, request: web.BaseRequest, resource: Resource, namespace: str, matches: selectors.Selector
    ) -> AsyncIterator[dict[str, Any]]:
        """Watch events: first what there is, unless the client knows it, then what changes, until the time is up."""
        query, store = request.query, self.api.store
        bookmarks = query.get("allowWatchBookmarks", "") in ("1", "true")
        initial = query.get("sendInitialEvents", "") == "true"
        deadline = time.monotonic() + float(query.get("timeoutSeconds") or _WATCH_TIMEOUT)
        headed = True

        def event(kind: str, body: Body) -> dict[str, Any]:
            nonlocal headed
            if (version := _table_version(request)) is not None and kind != "BOOKMARK":
                include = query.get("includeObject", "Metadata")
                number = body["metadata"]["resourceVersion"]
                shown = tables.table(resource, [body], number, include=include, api_version=version, headed=headed)
                headed = False
                return {"type": kind, "object": shown}
            return {"type": kind, "object": body}

        def bookmark(annotations: Body) -> dict[str, Any]:
            meta = {"resourceVersion": str(seen), "creationTimestamp": None, **annotations}
            return event("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta})

        asked = query.get("resourceVersion", "")
        if asked in ("", "0") or initial:
            seen = store.version
            for body in self._selected(request, resource, namespace):
                yield event("ADDED", body)
            if initial:
                yield bookmark({"annotations": {"k8s.io/initial-events-end": "true"}})
        else:
            seen = int(asked)
            if seen + 1 < store.oldest:
                gone = ApiError(410, "Expired", f"too old resource version: {seen} ({store.oldest})")
                yield {"type": "ERROR", "object": gone.status()}
                return
        due = time.monotonic() + _BOOKMARKS
        while (now := time.monotonic()) < deadline:
            await store.wait(seen, min(deadline, due) - now)
            for change in store.since(seen, resource.key):
                seen = change.version
                if namespace and (change.new or change.old or {})["metadata"]["namespace"] != namespace:
                    continue
                was = change.old is not None and matches(change.old)
                if change.new is not None and matches(change.new):
                    yield event("MODIFIED" if was else "ADDED", change.new)
                elif was and (last := change.new or change.old) is not None:
                    number = {"resourceVersion": str(change.version)}
                    yield event("DELETED", last | {"metadata": last["metadata"] | number})
            seen = max(seen, store.version)
            if bookmarks and time.monotonic() >= min(due, deadline):
                due = time.monotonic() + _BOOKMARKS
                yield bookmark({})

    def _show(self, request: web.BaseRequest, resource: Resource, body: Body) -> web.Response:
        if (version := _table_version(request)) is None:
            return _respond(body)
        include = request.query.get("includeObject", "Metadata")
        number = body["metadata"]["resourceVersion"]
        return _respond(tables.table(resource, [body], number, include=include, api_version=version))

    def _show_list(self, request: web.BaseRequest, resource: Resource, bodies: list[Body]) -> web.Response:
        number = str(self.api.store.version)
        if (version := _table_version(request)) is not None:
            include = request.query.get("includeObject", "Metadata")
            return _respond(tables.table(resource, bodies, number, include=include, api_version=version))
        meta = {"resourceVersion": number}
        return _respond(
            {"apiVersion": resource.api_version, "kind": resource.list_kind, "metadata": meta, "items": bodies}
        )


def _no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def _selector(request: web.BaseRequest, resource: Resource) -> selectors.Selector:
    query = request.query
    return selectors.selector(query.get("labelSelector", ""), query.get("fieldSelector", ""), resource)


def _table_version(request: web.BaseRequest) -> str | None:
    """The apiVersion of the Table that is asked for, if one is."""
    accepted = request.headers.get("Accept", "")
    if "as=Table" not in accepted:
        return None
    return "meta.k8s.io/v1" if ";v=v1;" in accepted.replace(" ", "") else "meta.k8s.io/v1beta1"


def _parse(request: web.BaseRequest, sent: bytes) -> Body:
    """The object in a body. YAML is read as well as JSON, which is YAML."""
    if request.content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(sent)
    try:
        body = yaml.safe_load(sent) if "yaml" in request.content_type else json.loads(sent)
    except (ValueError, yaml.YAMLError) as error:
        raise errors.bad_request(f"the object provided is unrecognized: {error}") from None
    if not isinstance(body, dict):
        raise errors.bad_request("the object provided is unrecognized: it is no object")
    return body


def _decode_patch(form: str, sent: bytes) -> Any:
    try:
        patch = yaml.safe_load(sent) if form == api.APPLY else json.loads(sent)
    except (ValueError, yaml.YAMLError) as error:
        raise errors.bad_request(f"error decoding patch: {error}") from None
    if not isinstance(patch, list if form == api.JSON_PATCH else dict):
        raise errors.bad_request("error decoding patch: it is of another type")
    return patch


def _respond(
    body: Body, status: int = 200, options: Options | None = None, content_type: str = "application/json"
) -> web.Response:
    response = web.Response(body=json.dumps(body).encode(), status=status, headers={"Content-Type": content_type})
    for warning in options.warnings if options is not None else ():
        response.headers.add("Warning", f"299 - {json.dumps(warning)}")
    return response


class StandInCluster:
    """`with StandInCluster() as cluster:` serves from a thread of its own; `cluster.kubeconfig` is the way in."""

    version = VERSION

    def __init__(self, *, port: int = 0) -> None:
        self._server = Server(port=port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="standin-cluster", daemon=True)

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of a cluster administrator."""
        return self._directory / "kubeconfig"

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="openairun-cluster-"))
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(10)
            write_kubeconfig(self.kubeconfig, server=self.url, token=self._server.admin_token)
        except BaseException:  # Ctrl-C too
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(10)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
            shutil.rmtree(self._directory, ignore_errors=True)
