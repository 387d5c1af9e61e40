//! TLS and passwords.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use etcd_client::{Client, Permission, PermissionType};

use super::open;
use super::server::{self, Cluster};
use crate::suite::{Mirror, commit, put, value};
use crate::{Etcd, Meta, MetaError, MetaUrl};

/// An authority, and what it signed for a server and a client, as PEM files.
struct Certificates<'a>(&'a Path);

impl Certificates<'_> {
    fn make(&self) {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem");
        std::fs::write(self.0.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        for name in ["server", "client"] {
            self.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
            ));
            self.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out {name}.pem"
            ));
        }
    }

    fn openssl(&self, arguments: &str) {
        let done = Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.0)
            .stderr(Stdio::null())
            .status()
            .expect("this test needs `openssl` (`tests/install test` installs it)");
        assert!(done.success(), "openssl {arguments}");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

#[tokio::test]
async fn tls_with_certificates_of_both_sides() {
    let directory = server::directory();
    let certificates = Certificates(directory.path());
    certificates.make();
    let file = |name| certificates.file(name).display().to_string();
    let options = [
        format!("--cert-file={}", file("server.pem")),
        format!("--key-file={}", file("server.key")),
        format!("--trusted-ca-file={}", file("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let cluster = Cluster::with_options(1, "https", directory, &options);
    let file = |name| cluster.directory().join(name).display().to_string();
    let url = |query: String| -> MetaUrl { format!("etcds://{}/a?{query}", cluster.hosts(0)).parse().unwrap() };
    let ca = format!("ca={}", file("ca.pem"));
    let identity = format!("cert={}&key={}", file("client.pem"), file("client.key"));

    let meta = open(&url(format!("{ca}&{identity}"))).await;
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("", None));
    let last = commit(&*meta, vec![put("a", "1")]).await;
    mirror.catch_up(&mut *watch, last).await;
    assert_eq!(value(&*meta, "a").await.as_deref(), Some("1"));

    let absent = format!("ca={}", file("absent.pem"));
    let (anonymous, strangers, missing, plain) = tokio::join!(
        refusal(url(ca)),
        refusal(url(identity)),
        refusal(url(absent)),
        refusal(cluster.url("a")),
    );
    assert!(missing.contains("absent.pem"), "{missing}");
    for (text, words) in [
        (&anonymous, "127.0.0.1"),
        (&strangers, "certificate"),
        (&plain, "127.0.0.1"),
    ] {
        assert!(text.contains(words), "{text}");
    }
}

async fn refusal(url: MetaUrl) -> String {
    match Etcd::open(&url).await {
        Err(MetaError::Unavailable(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{url} is open to anybody"),
    }
}

/// A user `me` who may only touch what begins with `/a/`.
async fn guard(mut root: Client) {
    root.user_add("root", "secret", None).await.unwrap();
    root.user_grant_role("root", "root").await.unwrap();
    root.role_add("mine").await.unwrap();
    let permission = Permission::new(PermissionType::Readwrite, "/a/").with_prefix();
    root.role_grant_permission("mine", permission).await.unwrap();
    root.user_add("me", "p@ss", None).await.unwrap();
    root.user_grant_role("me", "mine").await.unwrap();
    root.auth_enable().await.unwrap();
}

#[tokio::test]
async fn users_with_passwords() {
    let cluster = Cluster::start(1);
    guard(cluster.client(0).await).await;
    let url = |user: &str, prefix: &str| -> MetaUrl {
        format!("etcd://{user}{}/{prefix}", cluster.hosts(0)).parse().unwrap()
    };
    let meta = open(&url("me:p%40ss@", "a")).await;
    let (mut mirror, mut watch) = (Mirror::default(), meta.watch("", None));
    let last = commit(&*meta, vec![put("a", "1")]).await;
    mirror.catch_up(&mut *watch, last).await;
    let lease = meta.lease_grant(std::time::Duration::from_secs(60)).await.unwrap();
    meta.lease_keep_alive(lease).await.unwrap();

    let (anonymous, wrong, elsewhere) = tokio::join!(
        refusal(url("", "a")),
        refusal(url("me:pass@", "a")),
        refusal(url("me:p%40ss@", "b")),
    );
    for (text, words) in [
        (anonymous, "user name is empty"),
        (wrong, "authentication failed"),
        (elsewhere, "permission denied"),
    ] {
        assert!(text.contains(words), "{text}");
    }
}
