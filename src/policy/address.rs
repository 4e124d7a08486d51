//! Which addresses a connection may go to, whatever is declared: a table of what is never dialed.
//!
//! Private addresses are not in it. A declared server lies on a private network more often than not, and which ones
//! this agent may reach is decided by the declaration. The table has what no git server is at: this host itself, the
//! metadata services of clouds, and addresses that a gateway turns into others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::Server;

/// Which addresses a connection may go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressRule {
    /// Anything but loopback, link-local, metadata and addresses that no host has.
    Remote,
    /// The same, and loopback.
    RemoteOrLoopback,
}

impl AddressRule {
    /// The rule for a declared server at `host`: loopback only where the operator wrote it.
    pub fn for_server(server: &Server, host: &str) -> Self {
        let is_loopback_host =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if server.allow_loopback || is_loopback_host { Self::RemoteOrLoopback } else { Self::Remote }
    }
}

/// Why an address is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// 127.0.0.0/8 or `::1`, where the operator did not write it.
    #[error("a loopback address")]
    Loopback,
    /// 169.254.0.0/16, fe80::/10, and the services that clouds have for their own hosts.
    #[error("a link-local or metadata address")]
    LinkLocal,
    /// A gateway decides which host it leads to, and nothing here can tell.
    #[error("an address that a gateway translates into another one")]
    Translated,
    /// Unspecified, broadcast, multicast, reserved for protocols: no host has it.
    #[error("an address that no host has")]
    NoHost,
}

/// A range of addresses that is refused.
struct Range<A> {
    network: A,
    prefix_bits: u32,
    refusal: AddressRefusal,
}

use AddressRefusal::{LinkLocal, Loopback, NoHost, Translated};

const fn v4(octets: [u8; 4], prefix_bits: u32, refusal: AddressRefusal) -> Range<Ipv4Addr> {
    let [a, b, c, d] = octets;
    Range { network: Ipv4Addr::new(a, b, c, d), prefix_bits, refusal }
}

const fn v6(segments: [u16; 8], prefix_bits: u32, refusal: AddressRefusal) -> Range<Ipv6Addr> {
    let [a, b, c, d, e, f, g, h] = segments;
    Range { network: Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix_bits, refusal }
}

/// The first range that has an address decides. Each has its source beside it.
static IPV4: [Range<Ipv4Addr>; 9] = [
    v4([127, 0, 0, 0], 8, Loopback), // RFC 1122, section 3.2.1.3
    // RFC 3927; in it the metadata services of AWS, Azure, Google, Oracle, OpenStack and most others
    // (169.254.169.254), of ECS tasks and EKS pods (169.254.170.2, .23), Scaleway (169.254.42.42), Tencent
    // (169.254.0.23).
    v4([169, 254, 0, 0], 16, LinkLocal),
    // Microsoft Learn, "What is IP address 168.63.129.16?": the wire server, which hands out extensions' secrets.
    v4([168, 63, 129, 16], 32, LinkLocal),
    v4([100, 100, 100, 200], 32, LinkLocal), // Alibaba Cloud, "View instance metadata"
    v4([192, 0, 0, 192], 32, LinkLocal), // Oracle Cloud Infrastructure Classic, "Retrieving Instance Metadata"
    v4([192, 0, 0, 0], 24, NoHost),      // RFC 6890, section 2.2.2: IETF protocol assignments
    v4([0, 0, 0, 0], 8, NoHost),         // RFC 1122, section 3.2.1.3: Linux takes 0.0.0.0 for loopback
    v4([224, 0, 0, 0], 4, NoHost),       // RFC 5771: multicast
    v4([255, 255, 255, 255], 32, NoHost), // RFC 919: broadcast
];

/// The same for IPv6. What only wraps an IPv4 address is judged by that one: see [`wrapped`].
static IPV6: [Range<Ipv6Addr>; 14] = [
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Loopback), // RFC 4291, section 2.5.3
    // RFC 4291, section 2.5.6; in it OpenStack's and Akamai's metadata (fe80::a9fe:a9fe).
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LinkLocal),
    // Amazon EC2 User Guide, "Instance metadata" (::254), EKS User Guide, "EKS Pod Identity" (::23), and AWS's
    // resolver and clock (::253, ::123): AWS keeps all of them in this block.
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, LinkLocal),
    // Google Cloud, "Access VM metadata": the server of hosts that have IPv6 alone.
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, LinkLocal),
    // Oracle's SDK for Python, `instance_principals_security_token_signer.py`.
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, LinkLocal),
    v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, LinkLocal), // cloud-init, "Scaleway"
    v6([0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1], 128, LinkLocal), // Akamai, "Overview of the Metadata Service"
    v6([0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200], 128, LinkLocal), // Alibaba Cloud, "View instance metadata"
    // RFC 8215: NAT64 with prefixes of the network's own choice, so that the IPv4 address may stand anywhere in it.
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Translated),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Translated), // RFC 4380: Teredo, whose relays dial IPv4 addresses
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, NoHost),      // RFC 6666: discarded
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, NoHost),      // RFC 9780: a dummy prefix
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, NoHost),         // RFC 4291, section 2.5.2: Linux takes it for loopback
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, NoHost),      // RFC 4291, section 2.7: multicast
];

/// Decides about one address, in whatever spelling it came.
///
/// # Errors
/// Why it is refused.
pub fn check_address(address: IpAddr, rule: AddressRule) -> Result<(), AddressRefusal> {
    let refusal = match address {
        IpAddr::V4(address) => range_v4(address).map(|range| range.refusal),
        IpAddr::V6(address) => {
            let by_itself = range_v6(address).map(|range| range.refusal);
            by_itself.or_else(|| range_v4(wrapped(address)?).map(|range| range.refusal))
        }
    };
    match refusal {
        None => Ok(()),
        Some(Loopback) if rule == AddressRule::RemoteOrLoopback => Ok(()),
        Some(refusal) => Err(refusal),
    }
}

fn range_v4(address: Ipv4Addr) -> Option<&'static Range<Ipv4Addr>> {
    IPV4.iter().find(|it| (address.to_bits() ^ it.network.to_bits()).leading_zeros() >= it.prefix_bits)
}

fn range_v6(address: Ipv6Addr) -> Option<&'static Range<Ipv6Addr>> {
    IPV6.iter().find(|it| (address.to_bits() ^ it.network.to_bits()).leading_zeros() >= it.prefix_bits)
}

/// The IPv4 address that an IPv6 one only wraps, by forms whose place for it is fixed.
fn wrapped(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let four = |at: usize| Some(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3]));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] => four(12), // RFC 4291, section 2.5.5.2: mapped
        [0, 0, 0, 0, 0, 0, _, _] => four(12),      // RFC 4291, section 2.5.5.1: compatible
        [0, 0, 0, 0, 0xffff, 0, _, _] => four(12), // RFC 2765, section 2.1: translated
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => four(12), // RFC 6052, section 2.1: NAT64's own prefix
        [0x2002, ..] => four(2),                   // RFC 3056, section 2: 6to4
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => four(12), // RFC 5214, section 6.1: ISATAP
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check(text: &str, rule: AddressRule) -> Result<(), AddressRefusal> {
        check_address(text.parse().unwrap(), rule)
    }

    /// One address of each range at least, in every spelling that hides it.
    const REFUSED: &[(&str, AddressRefusal)] = &[
        ("169.254.169.254", LinkLocal),
        ("169.254.170.2", LinkLocal),
        ("169.254.170.23", LinkLocal),
        ("169.254.0.0", LinkLocal),
        ("169.254.255.255", LinkLocal),
        ("168.63.129.16", LinkLocal),
        ("100.100.100.200", LinkLocal),
        ("192.0.0.192", LinkLocal),
        ("192.0.0.0", NoHost),
        ("192.0.0.191", NoHost),
        ("192.0.0.255", NoHost),
        ("0.0.0.0", NoHost),
        ("0.255.0.1", NoHost),
        ("224.0.0.1", NoHost),
        ("239.255.255.255", NoHost),
        ("255.255.255.255", NoHost),
        ("::", NoHost),
        ("100::1", NoHost),
        ("100:0:0:1::1", NoHost),
        ("ff02::1", NoHost),
        ("fe80::1", LinkLocal),
        ("fe80::a9fe:a9fe", LinkLocal),
        ("febf::1", LinkLocal),
        ("fd00:ec2::", LinkLocal),
        ("fd00:ec2::23", LinkLocal),
        ("fd00:ec2::254", LinkLocal),
        ("fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff", LinkLocal),
        ("fd20:ce::254", LinkLocal),
        ("fd00:c1::a9fe:a9fe", LinkLocal),
        ("fd00:42::42", LinkLocal),
        ("fd00:a9fe:a9fe::1", LinkLocal),
        ("fd00:100::100:200", LinkLocal),
        ("64:ff9b:1::", Translated),
        ("64:ff9b:1::a9fe:a9fe", Translated),
        ("64:ff9b:1:a9fe:a9:fe00::", Translated),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Translated),
        ("2001::", Translated),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Translated),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Translated),
        ("::ffff:169.254.169.254", LinkLocal),
        ("::ffff:192.0.0.192", LinkLocal),
        ("::169.254.169.254", LinkLocal),
        ("::ffff:0:a9fe:a9fe", LinkLocal),
        ("64:ff9b::a9fe:a9fe", LinkLocal),
        ("64:ff9b::a83f:8110", LinkLocal),
        ("64:ff9b::c000:c0", LinkLocal),
        ("2002:a9fe:a9fe::", LinkLocal),
        ("2002:6464:64c8::1", LinkLocal),
        ("2001:db8::5efe:a9fe:a9fe", LinkLocal),
        ("fd12:3456::200:5efe:a9fe:a9fe", LinkLocal),
        ("64:ff9b::", NoHost),
    ];

    const LOOPBACK: &[&str] = &[
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::5efe:7f00:1",
    ];

    /// What git servers are at, private networks first, and the neighbors of what is refused.
    const ALLOWED: &[&str] = &[
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.199",
        "100.100.100.201",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "192.0.1.0",
        "191.255.255.255",
        "203.0.113.7",
        "126.255.255.255",
        "128.0.0.0",
        "223.255.255.255",
        "fc00::1",
        "fd00::1",
        "fd00:ec1:ffff::1",
        "fd00:ec3::1",
        "fd20:ce::253",
        "fd20:ce::1:254",
        "fd00:42::43",
        "fec0::1",
        "2001:1::1",
        "2001:db8::1",
        "2606:4700::1111",
        "64:ff9b::10.0.0.1",
        "64:ff9b:0:1::a9fe:a9fe",
        "64:ff9b:2::1",
        "::ffff:10.0.0.1",
        "2002:a00:1::1",
        "2001:db8::5efe:a00:1",
        "101::1",
        "100:0:0:2::1",
    ];

    #[test]
    fn every_range_is_refused_in_every_spelling_and_whatever_is_declared() {
        for (address, refusal) in REFUSED {
            for rule in [AddressRule::Remote, AddressRule::RemoteOrLoopback] {
                assert_eq!(check(address, rule), Err(*refusal), "{address}");
            }
        }
    }

    #[test]
    fn no_range_is_without_an_address_in_the_table() {
        let all = || REFUSED.iter().map(|(address, _)| *address).chain(LOOPBACK.iter().copied());
        let v4: HashSet<_> =
            all().filter_map(|text| range_v4(text.parse().ok()?)).map(|it| it.network).collect();
        let v6: HashSet<_> =
            all().filter_map(|text| range_v6(text.parse().ok()?)).map(|it| it.network).collect();
        assert_eq!((v4.len(), v6.len()), (IPV4.len(), IPV6.len()));
    }

    #[test]
    fn loopback_is_refused_unless_the_operator_wrote_it() {
        for address in LOOPBACK {
            assert_eq!(check(address, AddressRule::Remote), Err(Loopback), "{address}");
            assert_eq!(check(address, AddressRule::RemoteOrLoopback), Ok(()), "{address}");
        }
    }

    #[test]
    fn private_networks_and_neighbors_of_what_is_refused_are_reached() {
        for address in ALLOWED {
            assert_eq!(check(address, AddressRule::Remote), Ok(()), "{address}");
        }
    }
}
