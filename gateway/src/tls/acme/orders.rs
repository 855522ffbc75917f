//! Orders of this process. No order is made for a certificate that already exists. The result of an order is stored.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use tokio::sync::Mutex;

use super::cache::Claim;
use super::client::{AcmeClient, OrderError};
use super::order::OneOrder;
use super::{Cache, CacheError, Certificate, Challenges, PlannedCertificate, Server, Timing};

/// Shared state of all orders.
pub(super) struct Orders {
    challenges: Arc<Challenges>,
    timing: Timing,
    /// Lock on the account, so that two orders do not make two accounts.
    account: Mutex<()>,
    /// Directories that this process has locked for its orders.
    claims: parking_lot::Mutex<HashMap<PathBuf, Claim>>,
}

/// Result of a successful order.
pub(super) enum Fulfilled {
    /// The server has issued the certificate.
    Issued(Certificate),
    /// The certificate was already in the cache: another process has ordered it.
    Found(Certificate),
}

impl Orders {
    /// Creates the state, without any order.
    pub(super) fn new(challenges: Arc<Challenges>, timing: Timing) -> Self {
        Orders { challenges, timing, account: Mutex::new(()), claims: parking_lot::Mutex::default() }
    }

    /// Orders the certificate `planned` from `server` and stores it, unless the cache already contains one that
    /// another process has ordered.
    pub(super) async fn fulfil(
        &self,
        server: &Server,
        planned: &PlannedCertificate,
    ) -> Result<Fulfilled, OrderError> {
        let cache = Cache::new(&server.cache_dir);
        let is_mine =
            self.claim(&cache, server).map_err(|error| OrderError::new("order a certificate", error))?;
        let found = cache.certificate(&planned.domain);
        if let Some(found) = found.filter(|found| planned.is_served_by(found, SystemTime::now())) {
            return Ok(Fulfilled::Found(found));
        }
        if !is_mine {
            let reason = format!(
                "another process orders certificates into {}; this process will use them, too",
                server.cache_dir.display()
            );
            return Err(OrderError::new("order a certificate", reason));
        }
        cache.rehearse().map_err(|error| OrderError::new("store a certificate", error))?;
        let client = AcmeClient::new(&server.roots).map_err(|error| OrderError::new("set up TLS", error))?;
        let one =
            OneOrder { server, planned, cache, client, timing: &self.timing, account_url: OnceLock::new() };
        let mut pem = one.pem_in_time(&self.challenges, &self.account).await;
        if pem.as_ref().is_err_and(|error| error.account_unknown) {
            // The server may have lost its accounts when it was set up anew, so a new account is made.
            one.forget_account(&self.account).await?;
            pem = one.pem_in_time(&self.challenges, &self.account).await;
        }
        let mut pem = pem.map_err(|error| error.heeding(&one.client))?;
        let certificate = Certificate::read(pem.as_bytes())
            .map_err(|error| OrderError::new("use the issued certificate", error))?;
        if !certificate.names.is_superset(&planned.names) {
            return Err(OrderError::new(
                "use the issued certificate",
                "it does not cover every requested name",
            ));
        }
        if !pem.ends_with('\n') {
            pem.push('\n');
        }
        let kept = one.cache.keep_certificate(&planned.domain, &pem);
        kept.map_err(|error| OrderError::new("store a certificate", error))
            .map(|()| Fulfilled::Issued(certificate))
    }

    /// Returns true if this process holds the lock on the directory. The lock is kept until the process ends.
    fn claim(&self, cache: &Cache, server: &Server) -> Result<bool, CacheError> {
        let mut claims = self.claims.lock();
        if !claims.contains_key(&server.cache_dir) {
            let Some(claim) = cache.claim()? else { return Ok(false) };
            claims.insert(server.cache_dir.clone(), claim);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::ChallengeKind;

    /// Returns the error of an order whose server answers every request with `answer`.
    async fn outcome(answer: &'static str) -> OrderError {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let server = Server {
            directory_url: format!("http://{}/dir", listener.local_addr().unwrap()),
            email: String::new(),
            cache_dir: directory.path().join("acme"),
            challenge: ChallengeKind::Http01,
            roots: Vec::new(),
        };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let names = BTreeSet::from(["a.example".to_owned()]);
        let planned =
            PlannedCertificate { vhost: "a.example".to_owned(), domain: "a.example".to_owned(), names };
        let orders = Orders::new(Arc::default(), Timing::default());
        orders.fulfil(&server, &planned).await.err().unwrap()
    }

    #[tokio::test]
    async fn retry_after_of_acme_server_is_kept_in_the_error() {
        let error = outcome(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7200\r\nContent-Length: 87\r\n\
             Content-Type: application/problem+json\r\nConnection: close\r\n\r\n\
             {\"type\":\"urn:ietf:params:acme:error:rateLimited\",\"detail\":\"too many new certificates\"}   ",
        )
        .await;
        assert_eq!(error.asked_to_wait, Some(Duration::from_secs(7200)));
        let said = error.to_string();
        assert!(said.starts_with("cannot make an account: GET http://127.0.0.1:"), "{said}");
        assert!(said.ends_with("429 Too Many Requests: too many new certificates (rateLimited)"), "{said}");
    }

    #[tokio::test]
    async fn invalid_response_of_acme_server_is_an_error() {
        for (answer, expected) in [
            ("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "answered with 503"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "JSON"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"newN", "/dir: "),
            ("SSH-2.0-x\r\n", "/dir: "),
            ("", "/dir: "),
        ] {
            let said = outcome(answer).await.to_string();
            assert!(said.contains(expected), "{answer:?}: {said}");
        }
    }
}
