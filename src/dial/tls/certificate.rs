//! What a certificate says, in the form of facts. What a server sends is bounded and cleaned here.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::report::Facts;

/// How many certificates of a chain are reported.
const MAX_CERTIFICATES: usize = 10;

/// How many names of a certificate are reported.
const MAX_NAMES: usize = 100;

/// How many characters of a name are reported.
const MAX_NAME_CHARS: usize = 256;

/// What a certificate says. Texts are without control characters and shortened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFacts {
    /// Whom it names, such as `CN=ado.corp.example, O=Corp`. Empty where it cannot be parsed.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// The host names and addresses that it is for.
    pub names: Vec<String>,
    /// Its first moment, by RFC 3339.
    pub not_before: String,
    /// Its last moment, by RFC 3339.
    pub not_after: String,
    /// SHA-256, hex with colons.
    pub fingerprint: String,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// Where the issuer's certificate can be had, where it says so.
    pub issuer_url: Option<String>,
}

impl CertificateFacts {
    /// What a certificate in DER says.
    pub(in crate::dial) fn parse(der: &[u8]) -> Self {
        let fingerprint = fingerprint(der);
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self { fingerprint, ..Self::default() };
        };
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.iter().flat_map(|extension| &extension.value.general_names);
        Self {
            subject: clean(&certificate.subject().to_string()),
            issuer: clean(&certificate.issuer().to_string()),
            names: names.filter_map(host_name).take(MAX_NAMES).collect(),
            not_before: moment(certificate.validity().not_before),
            not_after: moment(certificate.validity().not_after),
            fingerprint,
            is_authority: certificate.is_ca(),
            issuer_url: issuer_url(&certificate),
        }
    }

    /// What a report says of it.
    pub(in crate::dial) fn to_facts(&self) -> Facts {
        let texts = [
            ("subject", &self.subject),
            ("issuer", &self.issuer),
            ("not_before", &self.not_before),
            ("not_after", &self.not_after),
            ("fingerprint", &self.fingerprint),
        ];
        let mut facts: Facts =
            texts.into_iter().map(|(name, text)| (name.to_owned(), text.as_str().into())).collect();
        facts.insert("names".to_owned(), self.names.clone().into());
        facts
    }

    /// Whether it names itself as its issuer.
    pub(in crate::dial) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }
}

/// The facts of a chain, the server's own certificate first.
pub(in crate::dial) fn chain_facts(chain: &[CertificateDer<'_>]) -> Vec<CertificateFacts> {
    chain.iter().take(MAX_CERTIFICATES).map(|der| CertificateFacts::parse(der)).collect()
}

/// SHA-256 in hex with colons, as browsers and `openssl x509 -fingerprint` show it.
pub(in crate::dial) fn fingerprint(der: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let pairs: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

/// A text of a peer's as it may be shown.
pub(in crate::dial) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_NAME_CHARS).collect()
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(clean(name)),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
        },
        _ => None,
    }
}

fn issuer_url(certificate: &X509Certificate<'_>) -> Option<String> {
    let access =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => Some(access),
            _ => None,
        })?;
    access.accessdescs.iter().find_map(|description| match description.access_location {
        GeneralName::URI(url) if description.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS => {
            Some(clean(url))
        }
        _ => None,
    })
}

fn moment(time: ASN1Time) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(time.timestamp()).ok();
    moment.and_then(|moment| moment.format(&Rfc3339).ok()).unwrap_or_default()
}
