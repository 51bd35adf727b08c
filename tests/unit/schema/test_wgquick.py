"""The client's bundle is data: whatever is in the file, it is a ClientConfig or a ConfigError, never a command."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_schema.wgquick import (
    KEYLESS_POSTUP,
    MAX_BYTES,
    ClientConfig,
    ConfigError,
    Peer,
    parse,
    parse_endpoint,
)

KEYS = [base64.b64encode(bytes([n] * 31 + [1])).decode() for n in range(2, 8)]
HEAD = "[Interface]\nAddress = 10.64.0.11/32\n"
PEER = f"\n[Peer]\nPublicKey = {KEYS[0]}\nEndpoint = 203.0.113.10:51820\nAllowedIPs = 10.20.0.0/16\n"
ACCEPTED = {"Address", "MTU", "PostUp"}, {"PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"}
# Every key of wg-quick(8) and wg(8).
INTERFACE_KEYS = [
    *("Address", "DNS", "MTU", "Table", "PreUp", "PostUp", "PreDown", "PostDown", "SaveConfig"),
    *("PrivateKey", "ListenPort", "FwMark"),
]
PEER_KEYS = ["PublicKey", "PresharedKey", "AllowedIPs", "Endpoint", "PersistentKeepalive"]


def written(config: ClientConfig) -> bytes:
    """Write a config the way the compiler's template does, independently of it."""
    lines = ["[Interface]", f"Address = {', '.join(config.addresses)}"]
    lines += [f"MTU = {config.mtu}"] if config.mtu else []
    for peer in config.peers:
        lines += ["", "[Peer]", f"PublicKey = {peer.public_key}", f"Endpoint = {peer.endpoint}"]
        lines += [f"AllowedIPs = {', '.join(peer.allowed_ips)}"] if peer.allowed_ips else []
        if peer.persistent_keepalive is not None:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
    return "\n".join(lines).encode() + b"\n"


def hosts() -> st.SearchStrategy[str]:
    v4 = st.ip_addresses(v=4).map(lambda a: f"{a}/32")
    return v4 | st.ip_addresses(v=6).map(lambda a: f"{a}/128")


@st.composite
def prefixes(draw: st.DrawFn) -> str:
    address = draw(st.ip_addresses())
    length = draw(st.integers(0, address.max_prefixlen))
    return str(ipaddress.ip_network((address, length), strict=False))


@st.composite
def endpoints(draw: st.DrawFn) -> str:
    address, port = draw(st.ip_addresses()), draw(st.integers(1, 65535))
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@st.composite
def configs(draw: st.DrawFn) -> ClientConfig:
    nets = draw(st.lists(prefixes(), min_size=4, max_size=8, unique=True))
    peers = []
    for index, key in enumerate(draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True))):
        mine = tuple(nets[index::4]) if index == 0 or draw(st.booleans()) else ()
        peers.append(Peer(key, draw(endpoints()), mine, draw(st.none() | st.integers(0, 65535))))
    addresses = tuple(draw(st.lists(hosts(), min_size=1, max_size=3, unique=True)))
    return ClientConfig(addresses, tuple(peers), draw(st.none() | st.integers(1280, 65535)))


@settings(deadline=None)
@given(configs())
def test_what_is_written_reads_back_alike(config: ClientConfig) -> None:
    assert parse(written(config)) == config


def test_the_one_keyless_postup_is_accepted() -> None:
    data = f"{HEAD}PostUp = {KEYLESS_POSTUP}\n{PEER}".encode()
    assert parse(data) == parse((HEAD + PEER).encode())


FRAGMENTS = [
    *("[Interface]", "[Peer]", "Address", "MTU", "PostUp", "PublicKey", "Endpoint", "AllowedIPs", "PreUp"),
    *("PersistentKeepalive", " = ", "=", "\n", "\r\n", "#", ";", "10.0.0.1/32", "fd00::1/128", "0.0.0.0/0"),
    *("203.0.113.1:5", "[fd00::1]:5", "1420", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\x00", "%i", ","),
    *(KEYLESS_POSTUP, KEYS[0], KEYS[1], " ", "\t", "$(id)", "fe80::1%$(id)/128", "\u00a0"),
]


@settings(deadline=None, max_examples=400)
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(lambda parts: "".join(parts).encode())
    | st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(
        lambda parts: (HEAD + PEER + "".join(parts)).encode()
    )
)
def test_any_bytes_are_a_config_or_a_config_error(data: bytes) -> None:
    problem = ""
    try:
        config = parse(data)
    except ConfigError as error:
        problem = str(error)
    else:
        assert parse(written(config)) == config
        assert b"$" not in written(config)
    assert problem.isprintable()


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_changed_file_never_says_more_than_data(data: st.DataObject) -> None:
    text = (HEAD + f"PostUp = {KEYLESS_POSTUP}\n" + PEER).encode()
    at = data.draw(st.integers(0, len(text)))
    inserted = data.draw(st.binary(min_size=1, max_size=6))
    changed = text[:at] + inserted + text[at + data.draw(st.integers(0, 3)) :]
    try:
        config = parse(changed)
    except ConfigError:
        return
    assert parse(written(config)) == config


@pytest.mark.parametrize("key", [k for k in INTERFACE_KEYS if k not in ACCEPTED[0]])
@pytest.mark.parametrize("spelling", [str, str.upper, str.lower])
def test_every_other_interface_key_is_refused_by_name(key: str, spelling: type[str]) -> None:
    line = f"{spelling(key)} = x"
    with pytest.raises(ConfigError, match=rf"line 3: {spelling(key)} in \[Interface\] is refused"):
        parse(f"{HEAD}{line}\n{PEER}".encode())


@pytest.mark.parametrize("key", [*(k for k in PEER_KEYS if k not in ACCEPTED[1]), *INTERFACE_KEYS])
def test_every_other_peer_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} in \[Peer\] is refused"):
        parse(f"{HEAD}{PEER}{key} = x\n".encode())


@pytest.mark.parametrize("key", ["PublicKey", "Endpoint", "AllowedIPs", "PersistentKeepalive"])
def test_a_peer_s_key_in_the_interface_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key} in \[Interface\] is refused"):
        parse(f"{HEAD}{key} = x\n".encode())


@pytest.mark.parametrize(
    "value",
    [
        "id",
        KEYLESS_POSTUP + ";",
        KEYLESS_POSTUP + "; id",
        KEYLESS_POSTUP + " # id",
        KEYLESS_POSTUP + "#",
        KEYLESS_POSTUP + "\r",
        KEYLESS_POSTUP + "\x00",
        KEYLESS_POSTUP + " && id",
        KEYLESS_POSTUP + "\x0bid",
        KEYLESS_POSTUP + "\x0c",
        KEYLESS_POSTUP + "\x1c",
        KEYLESS_POSTUP.upper(),
        KEYLESS_POSTUP.replace("%i", "tidegate0"),
        KEYLESS_POSTUP.replace("client.key", "../client.key"),
        KEYLESS_POSTUP.replace(" ", "  "),
        KEYLESS_POSTUP.replace(" ", "\t"),
        KEYLESS_POSTUP.replace("private-key", "preshared-key"),
        "",
        f'"{KEYLESS_POSTUP}"',
    ],
)
@pytest.mark.parametrize("key", ["PostUp", "POSTUP", "postup", "PostUp ", "  PostUp", "\tPostUp\t"])
def test_any_other_postup_is_refused(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match="line 3: PostUp is refused"):
        parse(f"{HEAD}{key}= {value}\n{PEER}".encode())


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029", "\u00a0", "\ufeff", "é", "\u202e"])
def test_what_is_not_ascii_is_refused_wherever_it_stands(mark: str) -> None:
    for text in (
        mark + HEAD,
        f"{HEAD}PostUp = {KEYLESS_POSTUP}{mark}id\n",
        HEAD + mark + PEER,
        HEAD + f"#{mark}PostUp = id\n",
    ):
        with pytest.raises(ConfigError, match="is not ASCII"):
            parse(text.encode())


@pytest.mark.parametrize("mark", ["\x00", "\x0b", "\x0c", "\r", "\x1c", "\x1d", "\x1e", "\x1b", "\x7f"])
@pytest.mark.parametrize(
    "place",
    ["{0}Address = 10.64.0.11/32", "Address{0} = 10.64.0.11/32", "Address = {0}10.64.0.11/32",
     "Address = 10.64.0.11/32{0}", "Address = 10.64.0.11/32{0}PostUp = id", "Address = 10.64.0.11/32,{0} fd00::1/128",
     "{0}", "MTU = 1420{0}", "Address = 10.64.0.11/32\n{0}PostUp = id"],
)  # fmt: skip
def test_a_control_character_is_refused_wherever_it_stands(mark: str, place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"[Interface]\n{place.format(mark)}\n{PEER}".encode())
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "starts with"),
        (PEER, "starts with"),
        ("Address = 10.0.0.1/32\n", "not a line"),
        ("[interface]\nAddress = 10.0.0.1/32\n", "not a line"),
        ("[Interface]\n", "no Address"),
        ("# c\n" + HEAD, "not a line"),
        (HEAD + "# c\n", "not a line"),
        (HEAD + "MTU = 1420 # c\n", "a number from"),
        (HEAD + HEAD, r"second \[Interface\]"),
        (HEAD + PEER + HEAD, r"second \[Interface\]"),
        (HEAD + "MTU = 1400\nMTU = 1400\n", "twice in one section"),
        (HEAD + "MTU = 1400\nmtu = 1400\n", "twice in one section"),
        (HEAD + "MTU = 1279\n", "1280"),
        (HEAD + "MTU = 65536\n", "65535"),
        (HEAD + "MTU = -1\n", "a number"),
        (HEAD + "MTU = 1_400\n", "a number"),
        (HEAD + "MTU\n", "not a line"),
        (HEAD + "[WireGuard]\n", "not a line"),
        (HEAD + "Post-Up = id\n", "not a line"),
        (HEAD + "PostUp\\\n = id\n", "not a line"),
        ("[Interface]\nAddress = 10.64.0.11/24\n", "host bits|/32"),
        ("[Interface]\nAddress = 10.64.0.0/24\n", "/32 or a /128"),
        ("[Interface]\nAddress = 10.64.0.11\n", "ADDRESS/LENGTH"),
        ("[Interface]\nAddress = 10.64.0.11/255.255.255.255\n", "ADDRESS/LENGTH"),
        ("[Interface]\nAddress = 10.64.0.11/32,\n", "ADDRESS/LENGTH"),
        ("[Interface]\nAddress = 10.64.0.11/32, 10.64.0.11/32\n", "twice"),
        ("[Interface]\nAddress = fe80::1%eth0/128\n", "ADDRESS/LENGTH"),
        ("[Interface]\nAddress = fe80::1%$(id)/128\n", "ADDRESS/LENGTH"),
        ("[Interface]\nAddress = \n", "ADDRESS/LENGTH"),
        (HEAD + PEER.replace("10.20.0.0/16", "10.20.0.1/16"), "host bits"),
        (HEAD + PEER.replace("10.20.0.0/16", "10.20.0.0/33"), "not permitted|not appear"),
        (HEAD + PEER.replace("10.20.0.0/16", "fe80::%x/64"), "ADDRESS/LENGTH"),
        (HEAD + PEER.replace("10.20.0.0/16", "10.20.0.0/16, 10.20.0.0/16"), "claim one prefix"),
        (HEAD + PEER + PEER, "one PublicKey"),
        (HEAD + PEER + PEER.replace(KEYS[0], KEYS[1]), "claim one prefix"),
        (HEAD + PEER.replace("AllowedIPs = 10.20.0.0/16\n", ""), "standby of nothing"),
        (HEAD + PEER.replace("Endpoint = 203.0.113.10:51820\n", ""), "without endpoint"),
        (HEAD + PEER.replace(f"PublicKey = {KEYS[0]}\n", ""), "without publickey"),
        (HEAD + PEER.replace(KEYS[0], "A" * 43 + "="), "low-order"),
        (HEAD + PEER.replace(KEYS[0], "AAAA"), "44 characters"),
        (HEAD + PEER + "PersistentKeepalive = off\n", "a number"),
        (HEAD + PEER + "PersistentKeepalive = 65536\n", "a number"),
        *(
            (HEAD + PEER.replace("203.0.113.10:51820", end), "endpoint|port|permitted|octet|IP:port|address|two")
            for end in ("vpn.example.net:51820", "203.0.113.10", "203.0.113.10:0", "203.0.113.10:65536",
                        "fd00::1:51820", "[203.0.113.10]:1", "203.0.113.010:1", "[fe80::1%eth0]:1", ":1", "$(id):1",
                        "203.0.113.10:51820 ; id", "[::1]:1\x0b", "1.2.3:1")
        ),
    ],
)  # fmt: skip
def test_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text.encode())
    assert "\n" not in str(caught.value)


def test_the_line_is_named() -> None:
    with pytest.raises(ConfigError, match="line 5: PreUp"):
        parse(f"{HEAD}\n\nPreUp = id\n".encode())


def test_a_file_is_bounded() -> None:
    padding = b"\n" * (MAX_BYTES - len(HEAD))
    assert parse(HEAD.encode() + padding)
    with pytest.raises(ConfigError, match="at most"):
        parse(HEAD.encode() + padding + b"\n")


def test_a_long_line_is_not_repeated_in_full() -> None:
    with pytest.raises(ConfigError) as caught:
        parse((HEAD + "x" * 100_000).encode())
    assert len(str(caught.value)) < 200


@given(endpoints())
def test_an_endpoint_in_canonical_form_stays(text: str) -> None:
    assert parse_endpoint(text) == text
