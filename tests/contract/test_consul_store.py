"""What Consul documents of its key/value store, asked of the stand-in, or of a real agent (consulsite).

Sources: https://developer.hashicorp.com/consul/api-docs/kv, …/api-docs/features/blocking, and
…/api-docs#authentication; their words stand in the tests that try them.
"""

import base64
import threading

import pytest

from consulsite import ConsulSite, Said, consul_site

LIMIT = 512 * 1024


def only_record(said: Said) -> dict[str, object]:
    """The one record of an answer."""
    assert 200 == said.status
    (found,) = said.document
    assert isinstance(found, dict)
    return found


def index_of(site: ConsulSite, key: str) -> int:
    """The ModifyIndex of a key."""
    found = only_record(site.ask("GET", key))["ModifyIndex"]
    assert isinstance(found, int)
    return found


def test_put_answers_true_and_the_record_says_what_was_put(consul: ConsulSite) -> None:
    """`Value` is a base64-encoded blob of data, `Key` simply the full path."""
    key = consul.key("my-key")

    assert True is consul.ask("PUT", key, body=b"hello consul").document

    found = only_record(consul.ask("GET", key))
    made = found.pop("CreateIndex")
    value = base64.b64encode(b"hello consul").decode()
    expected = {"LockIndex": 0, "Key": key, "Flags": 0, "Value": value, "ModifyIndex": made}
    assert expected == found


def test_missing_keys_are_404_without_a_body(consul: ConsulSite) -> None:
    """If no key exists at the given path, a 404 is returned instead of a 200 response."""
    for query in ("", "recurse", "keys", "raw"):
        said = consul.ask("GET", consul.key("none"), query)
        assert (404, b"") == (said.status, said.body)


def test_raw_is_the_value_alone(consul: ConsulSite) -> None:
    """The response is not application/json, but text/plain; any bytes."""
    value = bytes(range(256))
    consul.ask("PUT", consul.key("raw"), body=value)

    said = consul.ask("GET", consul.key("raw"), "raw")

    assert (200, value, "text/plain") == (said.status, said.body, said.headers["Content-Type"])


def test_empty_value_is_null(consul: ConsulSite) -> None:
    """As the agent's JSON has no bytes."""
    consul.ask("PUT", consul.key("empty"), body=b"")

    assert None is only_record(consul.ask("GET", consul.key("empty")))["Value"]


def test_flags_are_kept(consul: ConsulSite) -> None:
    """An opaque unsigned integer that can be attached to each entry."""
    consul.ask("PUT", consul.key("a"), f"flags={2**64 - 1}", b"1")

    assert 2**64 - 1 == only_record(consul.ask("GET", consul.key("a")))["Flags"]


def test_cas_puts_only_what_is_as_it_was_seen(consul: ConsulSite) -> None:
    """Index 0: only if it does not exist; otherwise only if it matches the ModifyIndex."""
    key = consul.key("cas")

    assert True is consul.ask("PUT", key, "cas=0", b"1").document
    assert False is consul.ask("PUT", key, "cas=0", b"2").document
    first = only_record(consul.ask("GET", key))
    assert False is consul.ask("PUT", key, f"cas={index_of(consul, key) - 1}", b"2").document
    assert b"1" == consul.ask("GET", key, "raw").body
    assert True is consul.ask("PUT", key, f"cas={index_of(consul, key)}", b"2").document
    assert False is consul.ask("PUT", consul.key("other"), "cas=7", b"2").document

    second = only_record(consul.ask("GET", key))
    assert b"2" == consul.ask("GET", key, "raw").body
    assert first["CreateIndex"] == second["CreateIndex"]
    assert index_of(consul, key) > int(str(first["ModifyIndex"]))


def test_recurse_lists_records_by_prefix_in_order(consul: ConsulSite) -> None:
    """`key` is treated as a prefix instead of a literal match."""
    for name in ("b", "a", "sub/x", "ab"):
        consul.ask("PUT", consul.key(name), body=name.encode())

    found = consul.ask("GET", consul.key("a"), "recurse").document
    with_value = consul.ask("GET", consul.key("a"), "recurse=None").document

    assert [consul.key("a"), consul.key("ab")] == [one["Key"] for one in found]
    assert found == with_value


def test_keys_lists_names_up_to_the_separator(consul: ConsulSite) -> None:
    """An array of strings instead of an array of JSON objects."""
    for name in ("bar", "foo", "sub/dir/1", "sub/2"):
        consul.ask("PUT", consul.key(name), body=b"1")

    whole = consul.ask("GET", f"{consul.prefix}/", "keys").document
    cut = consul.ask("GET", f"{consul.prefix}/", "keys&separator=/").document

    assert [consul.key(one) for one in ("bar", "foo", "sub/2", "sub/dir/1")] == whole
    assert [consul.key(one) for one in ("bar", "foo", "sub/")] == cut


def test_delete_is_true_whether_there_was_something_or_not(consul: ConsulSite) -> None:
    """Only a key with an exact match is deleted."""
    for name in ("a", "ab"):
        consul.ask("PUT", consul.key(name), body=b"1")

    assert True is consul.ask("DELETE", consul.key("a")).document
    assert True is consul.ask("DELETE", consul.key("a")).document

    assert {"ab": b"1"} == consul.entries()


def test_delete_with_cas_takes_only_what_is_as_it_was_seen(consul: ConsulSite) -> None:
    """A 0 index will not delete the key; otherwise the index must match."""
    key = consul.key("a")
    consul.ask("PUT", key, body=b"1")
    index = index_of(consul, key)

    assert False is consul.ask("DELETE", key, "cas=0").document
    assert False is consul.ask("DELETE", key, f"cas={index - 1}").document
    assert {"a": b"1"} == consul.entries()
    assert True is consul.ask("DELETE", key, f"cas={index}").document
    assert {} == consul.entries()


def test_delete_with_recurse_takes_all_of_a_prefix(consul: ConsulSite) -> None:
    """All keys which have the specified prefix, not only those below a slash."""
    for name in ("a", "ab", "a/b", "b"):
        consul.ask("PUT", consul.key(name), body=b"1")

    assert True is consul.ask("DELETE", consul.key("a"), "recurse").document

    assert {"b": b"1"} == consul.entries()


def test_values_end_at_512_kib(consul: ConsulSite) -> None:
    """Values in the KV store cannot be larger than 512kb: 413."""
    assert True is consul.ask("PUT", consul.key("large"), body=bytes(LIMIT)).document
    assert 413 == consul.ask("PUT", consul.key("larger"), body=bytes(LIMIT + 1)).status
    assert ["large"] == list(consul.entries())


def test_options_that_do_not_go_together_and_missing_keys_are_400(consul: ConsulSite) -> None:
    """As the agent says it."""
    both = consul.ask("PUT", consul.key("a"), "cas=0&acquire=x", b"1")
    none = consul.ask("DELETE", consul.key("a"), "recurse&cas=1")

    assert (400, 400) == (both.status, none.status)
    assert both.body.startswith(b"Conflicting flags")
    for method in ("GET", "PUT"):
        assert (400, b"Missing key name") == (said := consul.ask(method, "", body=b""))[::2], said


def test_other_methods_are_405(consul: ConsulSite) -> None:
    """The API responds to the standard HTTP verbs GET, PUT, and DELETE here."""
    assert 405 == consul.ask("POST", consul.key("a"), body=b"1").status


@pytest.mark.parametrize("strict_keys", [False, True], ids=["older", "newer"])
@pytest.mark.parametrize("name", ["a b", "a?b", "a#b", "a%2Fb", "a&b=c", "a+b", "ä", "a:b"])
def test_key_in_percent_code_is_kept_whole_or_refused(name: str, *, strict_keys: bool) -> None:
    """Older releases take every key; newer ones refuse those with unusual letters: 400."""
    with consul_site(strict_keys=strict_keys) as site:
        status = site.ask("PUT", site.key(name), body=b"1").status
        listed = site.entries()

    assert (status, listed) in [(200, {name: b"1"}), (400, {})]


# ..Blocking queries...............................................................................


def test_index_of_a_key_and_of_a_prefix_is_that_of_their_last_change(consul: ConsulSite) -> None:
    """X-Consul-Index corresponds to the latest ModifyIndex within the prefix."""
    consul.ask("PUT", consul.key("a"), body=b"1")
    consul.ask("PUT", consul.key("b"), body=b"2")

    assert index_of(consul, consul.key("a")) == consul.ask("GET", consul.key("a")).seen
    assert index_of(consul, consul.key("b")) == consul.ask("GET", consul.key(""), "recurse").seen


def test_query_with_an_index_waits_for_a_change_below_its_prefix(consul: ConsulSite) -> None:
    """A query using that index will wait until any key within that prefix is updated."""
    consul.ask("PUT", consul.key("a"), body=b"1")
    seen = consul.ask("GET", consul.key(""), "recurse")
    answers: list[Said] = []
    query = f"recurse&wait=20s&index={seen.seen}"
    waiter = threading.Thread(target=lambda: answers.append(consul.ask("GET", consul.key(""), query)))
    waiter.start()

    consul.ask("PUT", consul.key("b"), body=b"2")
    waiter.join()

    (answer,) = answers
    assert answer.seen > seen.seen
    assert [consul.key("a"), consul.key("b")] == [one["Key"] for one in answer.document]


def test_deletion_is_a_change_of_its_prefix(consul: ConsulSite) -> None:
    """What is watched is told of keys that go, too."""
    for name in ("a", "b"):
        consul.ask("PUT", consul.key(name), body=b"1")
    seen = consul.ask("GET", consul.key(""), "recurse")
    consul.ask("DELETE", consul.key("a"))

    after = consul.ask("GET", consul.key(""), f"recurse&wait=20s&index={seen.seen}")

    assert [consul.key("b")] == [one["Key"] for one in after.document]
    assert after.seen > seen.seen


def test_query_ends_after_its_wait_without_a_change(consul: ConsulSite) -> None:
    """The return of a blocking request is no guarantee of a change."""
    consul.ask("PUT", consul.key("a"), body=b"1")
    seen = consul.ask("GET", consul.key("a"))

    after = consul.ask("GET", consul.key("a"), f"wait=10ms&index={seen.seen}")

    assert (seen.seen, seen.document) == (after.seen, after.document)


def test_what_is_no_index_and_no_wait_is_400(consul: ConsulSite) -> None:
    """As the agent says it."""
    for query in ("index=x", "index=1&wait=soon"):
        assert 400 == consul.ask("GET", consul.key("a"), query).status


# ..Tokens.........................................................................................


def test_token_is_taken_from_either_header_and_from_the_url(consul: ConsulSite) -> None:
    """X-Consul-Token, or the Bearer scheme; `?token=` exists for backwards compatibility."""
    token = consul.token
    if token is None:
        pytest.skip("this Consul wants no token")
    ways: list[tuple[str, dict[str, str]]] = [
        ("", {"X-Consul-Token": token}),
        ("", {"Authorization": f"Bearer {token}"}),
        (f"token={token}", {}),
    ]

    for query, headers in ways:
        assert 200 == consul.ask("PUT", consul.key("a"), query, b"1", headers).status


def test_wrong_token_is_403_and_none_may_neither_write_nor_read(consul: ConsulSite) -> None:
    """key:write, key:read; a list shows what may be read, which is nothing."""
    if consul.token is None:
        pytest.skip("this Consul wants no token")
    key = consul.key("a")
    consul.ask("PUT", key, body=b"1")
    wrong = {"X-Consul-Token": "00000000-1111-2222-3333-444444444444"}

    for method, body in (("GET", None), ("PUT", b"2"), ("DELETE", None)):
        assert 403 == consul.ask(method, key, body=body, headers=wrong).status
        assert 403 == consul.ask(method, key, body=body, headers={}).status
    assert 403 == consul.ask("GET", key, "recurse", headers=wrong).status
    assert 404 == consul.ask("GET", key, "recurse", headers={}).status
    assert {"a": b"1"} == consul.entries()
