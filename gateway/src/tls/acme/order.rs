//! Course of one order, from the account to the issued chain (RFC 8555 7.4). The order asks for a
//! certificate, proves control of the names to the server, and fetches the result.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, Identifier,
    NewAccount, NewOrder, Order, OrderStatus,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::cache::AccountFile;
use super::client::{AcmeClient, OrderError, problem_text, retry_bad_nonce};
use super::{Cache, Challenges, PlannedCertificate, Published, Server, Timing, tls_alpn};
use crate::config::ChallengeKind;
use crate::util::backoff::Backoff;

/// Order that is in progress.
pub(super) struct OneOrder<'o> {
    pub(super) server: &'o Server,
    pub(super) planned: &'o PlannedCertificate,
    pub(super) cache: Cache,
    pub(super) client: AcmeClient,
    pub(super) timing: &'o Timing,
    /// URL of the account that the order was first made with; empty until then.
    pub(super) account_url: OnceLock<String>,
}

impl OneOrder<'_> {
    /// Runs [`OneOrder::pem`] with a timeout: three times the timeout of a single wait for the server.
    pub(super) async fn pem_in_time(
        &self,
        challenges: &Arc<Challenges>,
        accounts: &Mutex<()>,
    ) -> Result<String, OrderError> {
        let limit = self.timing.timeout * 3;
        let outcome = timeout(limit, self.pem(challenges, accounts)).await;
        outcome.unwrap_or_else(|_| {
            Err(OrderError::new("order a certificate", format!("it took longer than {limit:?}")))
        })
    }

    /// Makes a key and returns it in PEM, followed by the chain that the server issues for it.
    async fn pem(&self, challenges: &Arc<Challenges>, accounts: &Mutex<()>) -> Result<String, OrderError> {
        let account = self.account(accounts).await?;
        let names: Vec<Identifier> = self.planned.names.iter().cloned().map(Identifier::Dns).collect();
        let ordered = retry_bad_nonce!(account.new_order(&NewOrder::new(&names)));
        let mut order = ordered.map_err(|error| self.failed("order a certificate", &error))?;
        let published = self.authorize(&mut order, challenges).await?;
        self.wait_until(&mut order, OrderStatus::Ready).await?;
        drop(published);
        let (key, request) = self.request().map_err(|error| OrderError::new("make a key", error))?;
        if order.state().status == OrderStatus::Ready {
            retry_bad_nonce!(order.finalize_csr(&request))
                .map_err(|error| self.failed("finalize the order", &error))?;
        }
        self.wait_until(&mut order, OrderStatus::Valid).await?;
        let chain = retry_bad_nonce!(order.certificate());
        let chain = chain.map_err(|error| self.failed("fetch the certificate", &error))?;
        Ok(key + &chain.ok_or_else(|| OrderError::new("fetch the certificate", "the server has none"))?)
    }

    /// Has the server validate each name that it has not validated yet. The answers to the validations are
    /// published until the returned guards are dropped.
    async fn authorize(
        &self,
        order: &mut Order,
        challenges: &Arc<Challenges>,
    ) -> Result<Vec<Published>, OrderError> {
        let fetched = retry_bad_nonce!(fetch_authorizations(order));
        fetched.map_err(|error| self.failed("read the authorizations of an order", &error))?;
        let mut published = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let authorization =
                authorization.map_err(|error| self.failed("read the authorizations of an order", &error))?;
            if authorization.status != AuthorizationStatus::Valid {
                published.push(self.show(authorization, challenges).await?);
            }
        }
        Ok(published)
    }

    /// Publishes the answer that proves control of one name, and tells the server that the answer is ready.
    async fn show(
        &self,
        mut authorization: AuthorizationHandle<'_>,
        challenges: &Arc<Challenges>,
    ) -> Result<Published, OrderError> {
        let name = authorization.identifier().to_string();
        let offered: Vec<String> =
            authorization.challenges.iter().map(|challenge| kind_name(&challenge.r#type)).collect();
        let (kind, required) = match self.server.challenge {
            ChallengeKind::Http01 => (ChallengeType::Http01, "http-01"),
            ChallengeKind::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        };
        let tried = || format!("prove control of {name}");
        let Some(mut challenge) = authorization.challenge(kind) else {
            let reason = format!("the server offers {}, but not {required}", offered.join(", "));
            return Err(OrderError::new(tried(), reason));
        };
        let answer = challenge.key_authorization();
        let published = match self.server.challenge {
            ChallengeKind::Http01 => challenges.publish_http(&challenge.token, answer.as_str()),
            ChallengeKind::TlsAlpn01 => {
                let digest = openssl::sha::sha256(answer.as_str().as_bytes());
                let context =
                    tls_alpn::context(&name, &digest).map_err(|error| OrderError::new(tried(), error))?;
                challenges.publish_tls(&name, context)
            }
        };
        retry_bad_nonce!(challenge.set_ready()).map_err(|error| self.failed(tried(), &error))?;
        Ok(published)
    }

    /// Polls the order at growing intervals, until its status is `awaited` or a later status.
    async fn wait_until(&self, order: &mut Order, awaited: OrderStatus) -> Result<(), OrderError> {
        let tried = match awaited {
            OrderStatus::Ready => "have the names validated",
            _ => "have a certificate issued",
        };
        let deadline = Instant::now() + self.timing.timeout;
        let backoff = Backoff { first: Duration::from_millis(250), most: self.timing.poll_most };
        let mut polls = 0;
        loop {
            match order.state().status {
                OrderStatus::Valid => return Ok(()),
                OrderStatus::Ready if awaited == OrderStatus::Ready => return Ok(()),
                OrderStatus::Invalid => return Err(self.refused(tried, order).await),
                _ => {}
            }
            polls += 1;
            let wait = backoff.delay(polls).max(self.client.asked_to_wait().unwrap_or_default());
            if Instant::now() + wait > deadline {
                let reason = format!("the server did not finish within {:?}", self.timing.timeout);
                return Err(OrderError::new(tried, reason));
            }
            sleep(wait).await;
            retry_bad_nonce!(async { order.refresh().await.map(|_| ()) })
                .map_err(|error| self.failed(tried, &error))?;
        }
    }

    /// Returns the reason why an order is invalid: the server's errors for single names. If there are none, the
    /// reason is the server's error for the whole order.
    async fn refused(&self, tried: &str, order: &mut Order) -> OrderError {
        let of_order = order.state().error.as_ref().map(problem_text);
        let mut reasons = Vec::new();
        if let Err(error) = retry_bad_nonce!(fetch_authorizations(order)) {
            debug!("cannot read why an order was refused: {error}");
        }
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            let name = authorization.identifier().to_string();
            let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
            reasons.extend(problems.map(|problem| format!("{name}: {}", problem_text(problem))));
        }
        if reasons.is_empty() {
            reasons.push(of_order.unwrap_or_else(|| "the server gives no reason".to_owned()));
        }
        OrderError::new(tried, reasons.join("; ")).heeding(&self.client)
    }

    /// Makes a key, and a request to sign it for every name (RFC 2986). Each order has a new key.
    fn request(&self) -> Result<(String, Vec<u8>), rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(self.planned.names.iter().cloned().collect::<Vec<_>>())?;
        // The alternative names are sufficient; the subject stays empty.
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        Ok((key.serialize_pem(), request.der().to_vec()))
    }

    pub(super) fn failed(&self, tried: impl Into<String>, error: &Error) -> OrderError {
        OrderError::from_server(tried, error, &self.client)
    }
}

/// Fetches every authorization that is not loaded. After a refresh of the order, none of them is loaded. A
/// loop over the authorizations would skip one that cannot be fetched, so the caller repeats this function
/// until it succeeds.
async fn fetch_authorizations(order: &mut Order) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

fn kind_name(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Account with the ACME server (RFC 8555 7.3). The gateway makes the account once, and stores it with its key.
impl OneOrder<'_> {
    /// Returns the stored account, or makes a new one. The lock `accounts` is held during the call, so that two
    /// orders do not make two accounts.
    pub(super) async fn account(&self, accounts: &Mutex<()>) -> Result<Account, OrderError> {
        let _alone = accounts.lock().await;
        match self.kept()? {
            Some(kept) => self.known_account(kept).await,
            None => self.new_account().await,
        }
    }

    /// Renames the stored account that this order was made with, because the server does not know it. Nothing
    /// happens if another order has already replaced the account.
    pub(super) async fn forget_account(&self, accounts: &Mutex<()>) -> Result<(), OrderError> {
        let _alone = accounts.lock().await;
        let url = self.account_url.get().map(String::as_str);
        match self.kept()? {
            Some(kept) if kept.credentials["id"].as_str() == url => {
                self.cache.put_account_aside().map_err(|error| OrderError::new("make a new account", error))
            }
            _ => Ok(()),
        }
    }

    fn kept(&self) -> Result<Option<AccountFile>, OrderError> {
        self.cache.account().map_err(|error| {
            let reason = format!("{error}; if you remove the file, a new account is made");
            OrderError::new("use the account", reason)
        })
    }

    async fn new_account(&self) -> Result<Account, OrderError> {
        let contact = self.contact();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let made = retry_bad_nonce!(self.builder().create(&new, self.server.directory_url.clone(), None));
        let (account, credentials) = made.map_err(|error| self.failed("make an account", &error))?;
        let credentials =
            serde_json::to_value(credentials).map_err(|error| OrderError::new("store the account", error))?;
        self.keep(credentials)?;
        Ok(account)
    }

    async fn known_account(&self, kept: AccountFile) -> Result<Account, OrderError> {
        let credentials = serde_json::from_value(kept.credentials.clone())
            .map_err(|error| OrderError::new("use the account", error))?;
        let account = self.builder().from_credentials(credentials).await;
        let account = account.map_err(|error| self.failed("use the account", &error))?;
        // `forget_account` needs the URL later, if the server does not know the account.
        self.account_url.get_or_init(|| account.id().to_owned());
        if kept.email != self.server.email {
            let contact = self.contact();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            let told = retry_bad_nonce!(account.update_contacts(&contact));
            told.map_err(|error| self.failed("change the contact of the account", &error))?;
            self.keep(kept.credentials)?;
        }
        Ok(account)
    }

    fn keep(&self, credentials: Value) -> Result<(), OrderError> {
        let file = AccountFile { email: self.server.email.clone(), credentials };
        self.cache.keep_account(&file).map_err(|error| OrderError::new("store the account", error))
    }

    fn builder(&self) -> AccountBuilder {
        Account::builder_with_http(Box::new(self.client.clone()))
    }

    /// Returns the contact address for the server (RFC 8555 7.1.2); `None` if no address is configured.
    fn contact(&self) -> Option<String> {
        (!self.server.email.is_empty()).then(|| format!("mailto:{}", self.server.email))
    }
}
