//! One order, from the account to the file (RFC 8555 7.4): what is asked for, how the server is shown that the names
//! lead here, and what comes of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, Problem,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::cache::{AccountFile, Claim};
use super::client::Client;
use super::tls_alpn;
use super::{Cache, CacheError, Certificate, Challenges, Pace, Published, Server, Wanted};
use crate::config::ChallengeKind;

/// Why an order came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("cannot {tried}: {reason}")]
pub(super) struct OrderError {
    tried: String,
    reason: String,
    /// How long the server wants to be left alone.
    pub(super) asked_to_wait: Option<Duration>,
    /// Whether the server has forgotten the account.
    account_unknown: bool,
}

/// A step that the server answered with a bad nonce has not happened, and is taken again with a new one (RFC 8555
/// 6.5). instant-acme does so twice for each request; a server under load, or a test, may refuse more.
macro_rules! persist {
    ($step:expr) => {{
        let mut left = 10_u8;
        loop {
            match $step.await {
                Err(Error::Api(problem)) if left > 0 && is(&problem, "badNonce") => left -= 1,
                outcome => break outcome,
            }
        }
    }};
}

/// What orders are made with.
pub(super) struct Orders {
    pub(super) challenges: Arc<Challenges>,
    pub(super) pace: Pace,
    /// Held by whoever looks for the account, so that two orders do not make two.
    account: Mutex<()>,
    /// The directories that nobody else orders into.
    claims: parking_lot::Mutex<HashMap<PathBuf, Claim>>,
}

/// What came of an order that came to something.
pub(super) enum Fulfilled {
    /// The server has issued it.
    Issued(Certificate),
    /// It was there already: somebody else has ordered it.
    Found(Certificate),
}

impl Orders {
    /// Nothing is ordered yet.
    pub(super) fn new(challenges: Arc<Challenges>, pace: Pace) -> Self {
        Orders { challenges, pace, account: Mutex::new(()), claims: parking_lot::Mutex::default() }
    }

    /// Has `server` issue what is wanted, and keeps it; unless somebody else has done so.
    pub(super) async fn fulfil(&self, server: &Server, wanted: &Wanted) -> Result<Fulfilled, OrderError> {
        let cache = Cache::new(&server.cache_dir);
        let is_mine = self.claim(&cache, server).map_err(|error| failed("order a certificate", error))?;
        let found = cache.certificate(&wanted.domain);
        if let Some(found) = found.filter(|found| wanted.is_served_by(found, SystemTime::now())) {
            return Ok(Fulfilled::Found(found));
        }
        if !is_mine {
            let reason = format!(
                "another process orders into {}; what it gets is used here too",
                server.cache_dir.display()
            );
            return Err(failed("order a certificate", reason));
        }
        cache.rehearse().map_err(|error| failed("keep a certificate", error))?;
        let client = Client::new(&server.roots).map_err(|error| failed("speak TLS", error))?;
        let one = OneOrder { server, wanted, cache, client, pace: &self.pace };
        let mut pem = one.pem_in_time(self).await;
        if pem.as_ref().is_err_and(|error| error.account_unknown) {
            // A server that was set up anew knows nobody; it does not take long to be known again.
            one.cache.put_account_aside().map_err(|error| failed("make a new account", error))?;
            pem = one.pem_in_time(self).await;
        }
        let mut pem = pem.map_err(|error| OrderError {
            asked_to_wait: error.asked_to_wait.or_else(|| one.client.asked_to_wait()),
            ..error
        })?;
        let certificate =
            Certificate::read(pem.as_bytes()).map_err(|error| failed("use what was issued", error))?;
        if !certificate.names.is_superset(&wanted.names) {
            return Err(failed("use what was issued", "it is not for every name that was asked for"));
        }
        if !pem.ends_with('\n') {
            pem.push('\n');
        }
        let kept = one.cache.keep_certificate(&wanted.domain, &pem);
        kept.map_err(|error| failed("keep a certificate", error)).map(|()| Fulfilled::Issued(certificate))
    }

    /// Whether nobody else orders into this directory, from now until the process ends.
    fn claim(&self, cache: &Cache, server: &Server) -> Result<bool, CacheError> {
        let mut claims = self.claims.lock();
        if !claims.contains_key(&server.cache_dir) {
            let Some(claim) = cache.claim()? else { return Ok(false) };
            claims.insert(server.cache_dir.clone(), claim);
        }
        Ok(true)
    }
}

/// An order under way.
struct OneOrder<'o> {
    server: &'o Server,
    wanted: &'o Wanted,
    cache: Cache,
    client: Client,
    pace: &'o Pace,
}

impl OneOrder<'_> {
    /// The same as [`OneOrder::pem`], but not for ever, whatever the server does.
    async fn pem_in_time(&self, orders: &Orders) -> Result<String, OrderError> {
        let limit = self.pace.patience * 3;
        let outcome = timeout(limit, self.pem(orders)).await;
        outcome
            .unwrap_or_else(|_| Err(failed("order a certificate", format!("it took longer than {limit:?}"))))
    }

    /// A key, and the chain that the server issues for it.
    async fn pem(&self, orders: &Orders) -> Result<String, OrderError> {
        let account = {
            let _alone = orders.account.lock().await;
            self.account().await?
        };
        let names: Vec<Identifier> = self.wanted.names.iter().cloned().map(Identifier::Dns).collect();
        let ordered = persist!(account.new_order(&NewOrder::new(&names)));
        let mut order = ordered.map_err(|error| self.failed("order a certificate", error))?;
        let published = self.authorize(&mut order, &orders.challenges).await?;
        self.wait_until(&mut order, OrderStatus::Ready).await?;
        drop(published);
        let (key, request) = self.request().map_err(|error| failed("make a key", error))?;
        if order.state().status == OrderStatus::Ready {
            persist!(order.finalize_csr(&request))
                .map_err(|error| self.failed("have a key signed", error))?;
        }
        self.wait_until(&mut order, OrderStatus::Valid).await?;
        let chain = persist!(order.certificate());
        let chain = chain.map_err(|error| self.failed("fetch the certificate", error))?;
        Ok(key + &chain.ok_or_else(|| failed("fetch the certificate", "the server has none"))?)
    }

    /// The account that is kept, or a new one.
    async fn account(&self) -> Result<Account, OrderError> {
        let contact = format!("mailto:{}", self.server.email);
        let contact: &[&str] = if self.server.email.is_empty() { &[] } else { &[&contact] };
        let builder = || Account::builder_with_http(Box::new(self.client.clone()));
        let kept = self.cache.account().map_err(|error| failed("use the account", error))?;
        let Some(kept) = kept else {
            let new = NewAccount { contact, terms_of_service_agreed: true, only_return_existing: false };
            let made = persist!(builder().create(&new, self.server.directory_url.clone(), None));
            let (account, credentials) = made.map_err(|error| self.failed("make an account", error))?;
            let credentials =
                serde_json::to_value(credentials).map_err(|error| failed("keep the account", error))?;
            let file = AccountFile { email: self.server.email.clone(), credentials };
            self.cache.keep_account(&file).map_err(|error| failed("keep the account", error))?;
            return Ok(account);
        };
        let credentials = serde_json::from_value(kept.credentials.clone())
            .map_err(|error| failed("use the account", error))?;
        let account = builder().from_credentials(credentials).await;
        let account = account.map_err(|error| self.failed("use the account", error))?;
        if kept.email != self.server.email {
            let told = persist!(account.update_contacts(contact));
            told.map_err(|error| self.failed("change the contact of the account", error))?;
            let file = AccountFile { email: self.server.email.clone(), ..kept };
            self.cache.keep_account(&file).map_err(|error| failed("keep the account", error))?;
        }
        Ok(account)
    }

    /// Has the server check every name that it does not know to be ours. What it will see is there until what is
    /// returned is dropped.
    async fn authorize(
        &self,
        order: &mut Order,
        challenges: &Arc<Challenges>,
    ) -> Result<Vec<Published>, OrderError> {
        // All of them first: one that could not be fetched would be passed over by the next call.
        let fetched = persist!(async {
            let mut authorizations = order.authorizations();
            while let Some(authorization) = authorizations.next().await {
                authorization?;
            }
            Ok(())
        });
        fetched.map_err(|error| self.failed("read the authorizations of an order", error))?;
        let mut published = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization =
                authorization.map_err(|error| self.failed("read the authorizations of an order", error))?;
            if authorization.status != AuthorizationStatus::Valid {
                published.push(self.show(authorization, challenges).await?);
            }
        }
        Ok(published)
    }

    /// Shows that one name leads here.
    async fn show(
        &self,
        mut authorization: AuthorizationHandle<'_>,
        challenges: &Arc<Challenges>,
    ) -> Result<Published, OrderError> {
        let name = authorization.identifier().to_string();
        let offered: Vec<String> =
            authorization.challenges.iter().map(|challenge| kind_name(&challenge.r#type)).collect();
        let (kind, wanted) = match self.server.challenge {
            ChallengeKind::Http01 => (ChallengeType::Http01, "http-01"),
            ChallengeKind::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        };
        let tried = || format!("show that {name} leads here");
        let Some(mut challenge) = authorization.challenge(kind) else {
            let reason = format!("the server offers {}, and not {wanted}", offered.join(", "));
            return Err(failed(tried(), reason));
        };
        let answer = challenge.key_authorization();
        let published = match self.server.challenge {
            ChallengeKind::Http01 => challenges.publish_http(&challenge.token, answer.as_str()),
            ChallengeKind::TlsAlpn01 => {
                let digest = openssl::sha::sha256(answer.as_str().as_bytes());
                let context = tls_alpn::context(&name, &digest).map_err(|error| failed(tried(), error))?;
                challenges.publish_tls(&name, context)
            }
        };
        persist!(challenge.set_ready()).map_err(|error| self.failed(tried(), error))?;
        Ok(published)
    }

    /// Asks how the order is, less and less often, until it is as `awaited` or further.
    async fn wait_until(&self, order: &mut Order, awaited: OrderStatus) -> Result<(), OrderError> {
        let tried = match awaited {
            OrderStatus::Ready => "have the names checked",
            _ => "have a certificate issued",
        };
        let deadline = Instant::now() + self.pace.patience;
        let mut pause = Duration::from_millis(250).min(self.pace.poll_most);
        loop {
            match order.state().status {
                OrderStatus::Valid => return Ok(()),
                OrderStatus::Ready if awaited == OrderStatus::Ready => return Ok(()),
                OrderStatus::Invalid => return Err(self.refused(tried, order).await),
                _ => {}
            }
            let wait = pause.max(self.client.asked_to_wait().unwrap_or_default());
            if Instant::now() + wait > deadline {
                let reason = format!("the server was not done with it within {:?}", self.pace.patience);
                return Err(failed(tried, reason));
            }
            sleep(wait).await;
            pause = (pause * 2).min(self.pace.poll_most);
            persist!(async { order.refresh().await.map(|_| ()) })
                .map_err(|error| self.failed(tried, error))?;
        }
    }

    /// Why an order is invalid: what the server says of it, and what of each name.
    async fn refused(&self, tried: &str, order: &mut Order) -> OrderError {
        let mut reasons: Vec<String> = order.state().error.iter().map(problem_text).collect();
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if persist!(async { authorization.refresh().await.map(|_| ()) }).is_err() {
                continue;
            }
            let name = authorization.identifier().to_string();
            let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            reasons.extend(problems.map(|problem| format!("{name}: {}", problem_text(problem))));
        }
        if reasons.is_empty() {
            reasons.push("the server does not say why".to_owned());
        }
        OrderError { asked_to_wait: self.client.asked_to_wait(), ..failed(tried, reasons.join("; ")) }
    }

    /// A key, and the request to sign it for every name (RFC 2986). Each order has a key of its own.
    fn request(&self) -> Result<(String, Vec<u8>), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.wanted.names.iter().cloned().collect::<Vec<_>>())?;
        // The names say it all; there is no subject beside them.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        Ok((key.serialize_pem(), request.der().to_vec()))
    }

    fn failed(&self, tried: impl Into<String>, error: Error) -> OrderError {
        let mut failed = failed(tried, "");
        failed.asked_to_wait = self.client.asked_to_wait();
        failed.reason = match &error {
            Error::Api(problem) => {
                failed.account_unknown = is(problem, "accountDoesNotExist");
                problem_text(problem)
            }
            other => other.to_string(),
        };
        failed
    }
}

fn failed(tried: impl Into<String>, reason: impl ToString) -> OrderError {
    OrderError {
        tried: tried.into(),
        reason: reason.to_string(),
        asked_to_wait: None,
        account_unknown: false,
    }
}

/// Whether a problem is of this type (RFC 8555 6.7).
fn is(problem: &Problem, kind: &str) -> bool {
    let of = problem.r#type.as_deref().and_then(|of| of.strip_prefix("urn:ietf:params:acme:error:"));
    of == Some(kind)
}

/// A problem document as one line: what it says, its type, and what it says of single names.
pub(super) fn problem_text(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("a problem without a type");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let mut text = match &problem.detail {
        Some(detail) => format!("{detail} ({kind})"),
        None => kind.to_owned(),
    };
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    text
}

fn kind_name(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of an order from a server that answers everything with `answer`.
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
        let wanted = Wanted { vhost: "a.example".to_owned(), domain: "a.example".to_owned(), names };
        let orders = Orders::new(Arc::default(), Pace::default());
        orders.fulfil(&server, &wanted).await.err().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_asks_to_be_left_alone_is_heard() {
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
    async fn whatever_a_server_answers_is_an_error_and_no_more() {
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
