//! Every form in which people keep private keys, made by the programs that they make them with.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::credential::CredentialKind;
use sortie::provider::Provider;

use crate::support::process::{command_line, require, user_name, write_private};
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd, SshdPlan};
use crate::trial::{Outcome, Trial};

const PASSPHRASE: &str = "open sesame";

/// Makes the keys. A name that ends in `locked` needs the passphrase.
const MAKE: &str = r#"
set -eu
umask 077
P=$1
# In the forms of openssl.
openssl genrsa -traditional -out rsa-pkcs1 2048
openssl ecparam -name prime256v1 -genkey -out p256-sec1-with-parameters
openssl ecparam -name secp384r1 -genkey -noout -out p384-sec1
openssl ecparam -name secp521r1 -genkey -noout -out p521-sec1
openssl genpkey -algorithm ed25519 -out ed25519-pkcs8
openssl rsa -in rsa-pkcs1 -traditional -aes256 -passout "pass:$P" -out rsa-pkcs1-aes-locked
openssl rsa -in rsa-pkcs1 -traditional -des3 -passout "pass:$P" -out rsa-pkcs1-3des-locked
openssl ec -in p384-sec1 -aes128 -passout "pass:$P" -out p384-sec1-locked
openssl pkcs8 -topk8 -nocrypt -in rsa-pkcs1 -out rsa-pkcs8
openssl pkcs8 -topk8 -nocrypt -in p521-sec1 -out p521-pkcs8
openssl pkcs8 -topk8 -v2 aes-256-cbc -passout "pass:$P" -in rsa-pkcs1 -out rsa-pkcs8-locked
openssl pkcs8 -topk8 -scrypt -passout "pass:$P" -in p384-sec1 -out p384-pkcs8-scrypt-locked
openssl pkcs8 -topk8 -v2 aes-128-cbc -passout "pass:$P" -in ed25519-pkcs8 -out ed25519-pkcs8-locked
# In OpenSSH's own form.
for base in rsa-pkcs1 p256-sec1-with-parameters p384-sec1 p521-sec1; do
    cp "$base" "${base%%-*}"
    ssh-keygen -q -p -P '' -N '' -f "${base%%-*}"
done
ssh-keygen -q -t ed25519 -N '' -C ada -f ed25519
cp rsa rsa-locked; ssh-keygen -q -p -P '' -N "$P" -f rsa-locked
for cipher in aes128-ctr aes256-cbc; do
    cp ed25519 "ed25519-$cipher-locked"; ssh-keygen -q -p -P '' -N "$P" -Z "$cipher" -f "ed25519-$cipher-locked"
done
# As they come out of editors, mails and other programs.
sed 's/$/\r/' rsa > rsa-with-carriage-returns
printf '\357\273\277' | cat - ed25519 > ed25519-with-a-mark
printf '%s' "$(cat p256)" > p256-without-a-last-line-end
{ printf 'Bag Attributes\n    friendlyName: ada\nKey Attributes: <No Attributes>\n'; cat rsa-pkcs8; } > rsa-pkcs8-from-a-bag
# What does not go.
openssl dsaparam -genkey -noout -out dsa 1024
openssl pkcs8 -topk8 -nocrypt -in dsa -out dsa-pkcs8
openssl ecparam -name secp256k1 -genkey -noout -out p256k1
openssl genpkey -algorithm ed448 -out ed448
puttygen rsa -O private -o rsa.ppk
puttygen rsa -O private-sshcom -o rsa.sshcom
ssh-keygen -y -f rsa > rsa.pub
ssh-keygen -e -m RFC4716 -f rsa.pub > rsa-public-rfc4716
openssl rsa -in rsa-pkcs1 -pubout -out rsa-public-pem
ssh-keygen -q -s ed25519 -I ada rsa.pub
openssl req -x509 -key rsa-pkcs1 -subj /CN=ada -out x509
openssl rsa -in rsa-pkcs1 -outform DER -out rsa-der
head -c 700 rsa > rsa-cut-off
{ head -n 5 rsa; tail -n 1 rsa; } > rsa-without-its-middle
{ head -n 5 rsa-pkcs1; tail -n 1 rsa-pkcs1; } > rsa-pkcs1-without-its-middle
sed '3s/./!/' rsa-pkcs1 > rsa-pkcs1-damaged
sed 's/^DEK-Info: [A-Z0-9-]*/DEK-Info: DES-CBC/' rsa-pkcs1-aes-locked > rsa-pkcs1-des
openssl pkcs8 -topk8 -v1 PBE-MD5-DES -provider legacy -provider default -passout "pass:$P" -in rsa-pkcs1 -out rsa-pkcs8-des
for cipher in aes256-gcm@openssh.com chacha20-poly1305@openssh.com; do
    cp ed25519 "ed25519-$cipher"; ssh-keygen -q -p -P '' -N "$P" -Z "$cipher" -f "ed25519-$cipher"
done
"#;

/// A directory with all of these keys, and a server that knows those that are good.
struct Workshop {
    scratch: tempfile::TempDir,
    sshd: Sshd,
}

impl Workshop {
    fn open() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        for (program, package) in
            [("openssl", "openssl"), ("puttygen", "putty-tools"), ("ssh-keygen", "openssh-client")]
        {
            require(program, package);
        }
        let mut make = Command::new("sh");
        command_line(make.args(["-c", MAKE, "make", PASSPHRASE]).current_dir(scratch.path()));
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let plan = Sshd::plan(&[KeyKind::Ed25519]).serve("shop/web.git", &sample.directory);
        let known = ["rsa", "p256", "p384", "p521", "ed25519"].map(|name| public_half(scratch.path(), name));
        let plan = known.iter().fold(plan, SshdPlan::authorize);
        let sshd = plan.authorize(&public_half_of_pkcs8(scratch.path())).start();
        Self { scratch, sshd }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    async fn test(&self, key: &str, passphrase: Option<&str>) -> Outcome {
        let url = format!("{}/shop/web.git", self.sshd.url());
        let trial = Trial::of(Some(Provider::Gitlab), &self.sshd.url(), &url);
        Box::pin(trial.key(&self.path(key), passphrase, &self.sshd.known_hosts()).run()).await
    }
}

fn public_half(directory: &Path, name: &str) -> Key {
    let private_file = directory.join(name);
    let public = command_line(Command::new("ssh-keygen").arg("-yf").arg(&private_file));
    Key { private_file, public }
}

/// ssh-keygen does not read this one; its public half is the end of what openssl tells.
fn public_half_of_pkcs8(directory: &Path) -> Key {
    let private_file = directory.join("ed25519-pkcs8");
    let told = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&private_file)
        .output();
    let told = told.unwrap().stdout;
    let blob = [b"\0\0\0\x0bssh-ed25519\0\0\0\x20", &told[told.len() - 32..]].concat();
    Key { private_file, public: format!("ssh-ed25519 {}", STANDARD.encode(blob)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_every_usable_form_are_taken() {
    let workshop = Workshop::open();
    for name in [
        "rsa",
        "p256",
        "p384",
        "p521",
        "ed25519",
        "rsa-pkcs1",
        "p256-sec1-with-parameters",
        "p384-sec1",
        "rsa-pkcs8",
        "p521-pkcs8",
        "ed25519-pkcs8",
        "rsa-with-carriage-returns",
        "ed25519-with-a-mark",
        "p256-without-a-last-line-end",
        "rsa-pkcs8-from-a-bag",
    ] {
        let outcome = workshop.test(name, None).await;
        assert!(outcome.succeeded(), "{name}: {:#}", outcome.0["diagnosis"]);
    }
    for name in [
        "rsa-locked",
        "ed25519-aes128-ctr-locked",
        "ed25519-aes256-cbc-locked",
        "rsa-pkcs1-aes-locked",
        "rsa-pkcs1-3des-locked",
        "p384-sec1-locked",
        "rsa-pkcs8-locked",
        "p384-pkcs8-scrypt-locked",
        "ed25519-pkcs8-locked",
    ] {
        let outcome = workshop.test(name, Some(PASSPHRASE)).await;
        assert!(outcome.succeeded(), "{name}: {:#}", outcome.0["diagnosis"]);
        for (passphrase, words) in [(None, "none was given"), (Some("wrong"), "it is wrong")] {
            let outcome = workshop.test(name, passphrase).await;
            assert_eq!(
                outcome.diagnosis(),
                ("ssh_key_passphrase", "authenticate"),
                "{name}: {:#}",
                outcome.0
            );
            let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
            assert!(summary.contains(words), "{name}: {summary}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_are_named_with_the_reason() {
    let workshop = Workshop::open();
    write_private(&workshop.path("blank"), "\n\n").unwrap();
    write_private(&workshop.path("pgp"), "-----BEGIN PGP PRIVATE KEY BLOCK-----\n").unwrap();
    write_private(&workshop.path("note"), "the password is hunter2\n").unwrap();
    write_private(&workshop.path("sk"), &security_key()).unwrap();
    let (unreadable, unsupported) = ("ssh_key_unreadable", "ssh_key_type_unsupported");
    for (name, code, reason, remedy) in [
        ("dsa", unsupported, "ssh-dss", "-t ed25519"),
        ("dsa-pkcs8", unsupported, "ssh-dss", "-t ed25519"),
        ("sk", unsupported, "security key", "-t ed25519"),
        ("p256k1", unsupported, "curve", "-t ed25519"),
        ("ed448", unsupported, "no such keys", "-t ed25519"),
        ("rsa.ppk", unreadable, "PuTTY", "puttygen KEY.ppk -O private-openssh"),
        ("rsa.sshcom", unreadable, "ssh.com", "ssh-keygen -i"),
        ("rsa.pub", unreadable, "public", ".pub"),
        ("rsa-public-rfc4716", unreadable, "public", ".pub"),
        ("rsa-public-pem", unreadable, "public", ".pub"),
        ("rsa-cert.pub", unreadable, "SSH certificate", ".pub"),
        ("x509", unreadable, "X.509", "private key"),
        ("pgp", unreadable, "PGP", "OpenSSH or PEM"),
        ("note", unreadable, "no private key", "OpenSSH or PEM"),
        ("blank", unreadable, "nothing", "OpenSSH or PEM"),
        ("rsa-der", unreadable, "bytes that cannot", "itself"),
        ("rsa-cut-off", unreadable, "end is missing", "as a whole"),
        ("rsa-without-its-middle", unreadable, "end is missing", "as a whole"),
        ("rsa-pkcs1-without-its-middle", unreadable, "end is missing", "as a whole"),
        ("rsa-pkcs1-damaged", unreadable, "cannot be read", "as a whole"),
        ("rsa-pkcs1-des", unreadable, "no longer in use", "ssh-keygen -p"),
        ("rsa-pkcs8-des", unreadable, "no longer in use", "ssh-keygen -p"),
        ("ed25519-aes256-gcm@openssh.com", unreadable, "cipher", "ssh-keygen -p"),
        ("ed25519-chacha20-poly1305@openssh.com", unreadable, "cipher", "ssh-keygen -p"),
    ] {
        let outcome = workshop.test(name, Some(PASSPHRASE)).await;
        assert_eq!(outcome.diagnosis(), (code, "authenticate"), "{name}: {:#}", outcome.0);
        let diagnosis = &outcome.0["diagnosis"];
        assert!(diagnosis["summary"].as_str().unwrap().contains(reason), "{name}: {diagnosis:#}");
        assert!(diagnosis["remedies"].to_string().contains(remedy), "{name}: {diagnosis:#}");
        assert!(!outcome.0.to_string().contains("hunter2"), "a report quotes a secret");
    }
    assert!(!workshop.sshd.log().contains("Failed publickey"), "{}", workshop.sshd.log());
    write_private(&workshop.path("empty"), "").unwrap();
    let empty = workshop.test("empty", None).await;
    assert_eq!(empty.diagnosis(), ("credential_missing", "authenticate"), "{:#}", empty.0);
}

/// What OpenSSH writes for a key in a device: a handle, which is of no use without that.
fn security_key() -> String {
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let public = [string(b"sk-ssh-ed25519@openssh.com"), string(&[7; 32]), string(b"ssh:")].concat();
    let none = string(b"none");
    let body = [
        b"openssh-key-v1\0".to_vec(),
        [&none[..], &none, &string(b""), &1_u32.to_be_bytes()].concat(),
        string(&public),
        string(&[0; 64]),
    ];
    format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        STANDARD.encode(body.concat())
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_server_takes_from_nobody_is_not_shown_to_it() {
    let workshop = Workshop::open();
    let host = "ssh.dev.azure.com";
    let port = workshop.sshd.port();
    let url = format!("ssh://{}@{host}:{port}/v3/corp/Shop/web", user_name());
    let known_hosts = workshop.path("known_hosts");
    let line = format!("[{host}]:{port} {}\n", workshop.sshd.host_keys()[0].public);
    write_private(&known_hosts, &line).unwrap();
    let trial = || {
        let trial = Trial::of(Some(Provider::AzureDevops), &format!("ssh://{host}:{port}"), &url);
        trial.names(std::sync::Arc::new(crate::diagnoses::Loopback))
    };
    for key in ["ed25519", "p256-sec1-with-parameters"] {
        let outcome = trial().key(&workshop.path(key), None, &known_hosts).run().await;
        assert_eq!(outcome.diagnosis(), ("ssh_key_type_unsupported", "authenticate"), "{:#}", outcome.0);
        assert!(
            outcome.0["diagnosis"]["remedies"][0].as_str().unwrap().contains("-t rsa"),
            "{:#}",
            outcome.0
        );
    }
    assert!(!workshop.sshd.log().contains("publickey"), "{}", workshop.sshd.log());
    let rsa = trial().key(&workshop.path("rsa"), None, &known_hosts).run().await;
    assert_eq!(rsa.stages("passed").last(), Some(&"authenticate"), "{:#}", rsa.0);
    assert_eq!(rsa.0["credential"]["kind"], CredentialKind::SshKey.as_str());
}
